"""Given masks for an export: masks of the training cases, deformations of these, or masks from a folder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from jdm.config.settings import Config
from jdm.data.case_io import read_label
from jdm.data.codec import PairCodec
from jdm.data.crops import Window, centred_margins, coordinates, cut, random_window
from jdm.data.pairs import planned_arrays
from jdm.data.raw_dataset import Pair, read_case
from jdm.draw.given import given_masks
from jdm.draw.run import Run
from jdm.errors import DataError
from jdm.export.amount import Order
from jdm.export.plausible import real_range

_ATTEMPTS = 20
_KEPT, _ADDED = 0.75, 0.5  # probability that a component is kept, and that one of another mask is added
_ELASTIC_REACH, _ELASTIC_SHIFT = 1 / 8, 0.03  # correlation length and size of displacements, as shares of a side


class GivenMasks:
    """The mask of each case of an export, a function of the request's seed and the case's index.

    Masks are used in turn. Masks larger than the canvas are randomly cropped.
    """

    def __init__(self, run: Run, order: Order) -> None:
        """Raises: ConfigError if it needs real cases that are not on this machine; DataError for an unusable folder."""
        self.config, self.order, self.seed = run.config, order, order.request.seed
        self.real = real_range(run.config.facts, order.canvas_size, order.request.margin)
        self.codec = PairCodec(run.config)
        self.training_ids = sorted(run.checkpoint.metadata["training_ids"])
        self.dataset, self.pairs = run.kind, []
        if order.given_masks in ("real", "deformed"):
            self.dataset = run.real_for(f"--given-masks {order.given_masks}")
        else:
            self.pairs = given_masks(run.kind, Path(order.given_masks), run.config.facts.dtype)
        self._made = functools.lru_cache(maxsize=64)(self._make)

    def source(self, case: int) -> str:
        """The id of the mask from which a case is made."""
        ids = [pair.case_id for pair in self.pairs] or self.training_ids
        return ids[case % len(ids)]

    def label(self, case: int) -> np.ndarray:
        """Label planes of a case, (slices, *spatial), at most as large as the canvas.

        With patches they always fill the canvas, like the training samples; whole images keep their size.
        """
        return self._made(case)[0]

    def place(self, case: int) -> np.ndarray:
        """Where the voxels of a case's canvas lie in the volume of its mask, (axes, *canvas_size)."""
        return coordinates(*self._made(case)[1:])

    def _make(self, case: int) -> tuple[np.ndarray, tuple[int, ...], Window]:
        """Label planes of a case, the shape of the planes from which they are cut, and the window of the canvas."""
        planes = self._planes(case)
        if self.order.given_masks != "deformed":
            return self._cut(planes, np.random.default_rng([self.seed, case]))
        other = self._planes(case + 1)
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([self.seed, case, attempt])
            made = self._cut(deformed(planes, other, self.config, rng), rng)
            if all(self.real.problem(plane) is None for plane in made[0]):
                return made
        return self._cut(planes, np.random.default_rng([self.seed, case]))  # no deformation was plausible

    def encoded(self, number: int) -> np.ndarray:
        """The mask of an image, or of a slice by number, as model channels: (mask channels, *canvas_size)."""
        label = self.label(number // self.order.slices)[number % self.order.slices]
        image = np.zeros((self.codec.image_channels, *label.shape))
        margins = [(0, 0), *centred_margins(label.shape, self.order.canvas_size)]
        return np.pad(self.codec.encode(image, label)[self.codec.image_channels :], margins, mode="symmetric")

    def cut(self, sample: np.ndarray, case: int) -> np.ndarray:
        """A sample (channels, *canvas_size) of a case without the padding of its mask."""
        label = self.label(case)
        margins = centred_margins(label.shape[1:], sample.shape[1:])
        inside = [slice(a, a + side) for (a, _), side in zip(margins, label.shape[1:], strict=True)]
        return sample[(slice(None), *inside)]

    def _planes(self, case: int) -> np.ndarray:
        """The mask of a case in the plan's spacing, with the export's number of slices."""
        pair = self.pairs[case % len(self.pairs)] if self.pairs else read_case(self.dataset, self.source(case))
        _, label = planned_arrays(pair, self.config)
        if self.config.data.slice_axis is None:
            label = label[None]
        if label.ndim != self.config.data.dims + 1:
            raise DataError(
                f"mask {pair.case_id}: has {label.ndim - 1} axes; expected {self.config.data.dims}; give masks of "
                f"{self.dataset.name}"
            )
        chosen = np.rint(np.linspace(0, len(label) - 1, self.order.slices)).astype(int)
        return label[chosen] if len(label) != self.order.slices else label

    def _cut(self, planes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...], Window]:
        """Crop the planes to at most canvas_size; with patches to exactly that, padding small ones by mirroring."""
        shape = planes.shape[1:]
        window = random_window(shape, self.order.canvas_size, rng)
        return planes[:, *window] if self.config.data.whole else cut(planes, window), shape, window


def folder_sha256(run: Run, order: Order) -> str:
    """Check the masks in the order's folder and return their hash; empty without a folder.

    Masks of validation or test cases on this machine are refused, so that they do not leak into training through the
    export.
    Raises: DataError if the folder cannot be used.
    """
    if order.given_masks in ("", "real", "deformed"):
        return ""
    folder, digest = Path(order.given_masks), hashlib.sha256()
    masks = given_masks(run.kind, folder, "uint8")
    _refuse_kept_back(masks, run)
    for mask_id in (pair.case_id for pair in masks):
        content = (folder / (mask_id + run.kind.file_ending)).read_bytes()
        digest.update(f"{mask_id}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def _refuse_kept_back(masks: Sequence[Pair], run: Run) -> None:
    """Raises: DataError if a mask has the name or equals the label of a case that the model never saw."""
    advice = "expected masks of its training cases or of no real case, so that no evaluation case leaks; leave them out"
    dataset = run.real() or run.kind
    kept_back = {*dataset.cases, *dataset.test_cases, *run.checkpoint.metadata["held_out_ids"]}
    kept_back -= {*run.checkpoint.metadata["training_ids"]}
    if leaking := sorted({pair.case_id for pair in masks} & kept_back):
        raise DataError(
            f"masks {', '.join(leaking[:5])} are named like cases of {dataset.name} that the model never saw; {advice}"
        )
    labels = {_content(pair.label): pair.case_id for pair in masks if pair.label.any()}  # empty ones tell nothing
    for case, files in sorted({**dataset.training_files, **dataset.test_files}.items()):
        path = files.label if case in kept_back else None
        if path is not None and (mask_id := labels.get(_content(read_label(path, dataset.reader).array[0]))):
            raise DataError(
                f"mask {mask_id} is the label of {case} of {dataset.name}, a case that the model never saw; {advice}"
            )


def _content(label: np.ndarray) -> bytes:
    """Hash of a label, independent of its dtype."""
    return hashlib.sha256(f"{label.shape}".encode() + label.astype(np.uint16).tobytes()).digest()


def deformed(planes: np.ndarray, other: np.ndarray, config: Config, rng: np.random.Generator) -> np.ndarray:
    """A new mask from two: recombine their components, then flip (if the plan allows it), zoom, rotate, shift and bend.

    Args:
        planes: label planes (slices, *spatial), all deformed in the same way.
        other: another mask, whose components may be added if the sizes agree.
    Returns: like planes, with no values other than those of the two masks.
    """
    label = recombined(planes, other, rng) if planes.shape == other.shape else planes.copy()
    for axis in config.augment.mirror_axes:
        if rng.random() < 0.5:
            label = np.flip(label, 1 + axis)
    grid = _bent_grid(label.shape[1:], config, rng)
    return np.stack([ndimage.map_coordinates(plane, grid, order=0, mode="reflect") for plane in label])


def recombined(planes: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some components of one mask, and some of another that do not touch them.

    A mask with a single component, such as an organ, is unchanged.
    """
    own, count = _components(planes)
    theirs, more = _components(other)
    if min(count, more) < 2:
        return planes.copy()
    kept = 1 + np.flatnonzero(rng.random(count) < _KEPT)
    label = np.where(np.isin(own, kept), planes, 0).astype(planes.dtype)
    for number in 1 + rng.permutation(more):
        component = theirs == number
        grown = np.asarray(ndimage.binary_dilation(component), dtype=bool)
        if rng.random() < _ADDED and not label[grown].any():
            label[component] = other[component]
    return label


def _components(planes: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected foreground components of any class, numbered from 1, and their number."""
    numbers = np.empty(planes.shape, np.int32)
    ndimage.label(planes > 0, output=numbers)
    return numbers, int(numbers.max())


def _bent_grid(shape: tuple[int, ...], config: Config, rng: np.random.Generator) -> np.ndarray:
    """Source coordinates of each pixel, (axes, *spatial): zoom, rotation in the last two axes, shift, bending."""
    augment, axes = config.augment, len(shape)
    centre = (np.array(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*(np.arange(side) - c for side, c in zip(shape, centre, strict=True)), indexing="ij"))
    zoom = 2.0 ** (augment.scale * rng.standard_normal())
    angle = np.deg2rad(augment.rotation_degrees) * rng.standard_normal()
    turn = np.eye(axes)
    turn[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shift = augment.translation * np.array(shape) * rng.standard_normal(axes)
    grid = np.tensordot(turn / zoom, grid, axes=1) + (centre + shift).reshape(-1, *[1] * axes)
    for axis, side in enumerate(shape):
        field = ndimage.gaussian_filter(rng.standard_normal(shape), [_ELASTIC_REACH * s for s in shape], mode="reflect")
        grid[axis] += _ELASTIC_SHIFT * side * field / max(float(field.std()), 1e-12)
    return grid

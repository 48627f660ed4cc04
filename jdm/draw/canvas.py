"""Converts real cases to the network's input, and samples back to the grid and intensities of the case's files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from jdm.config.facts import Fingerprint
from jdm.config.settings import Config
from jdm.data.codec import PairCodec
from jdm.data.crops import centred_margins, coordinates
from jdm.data.pairs import case_scale, planned_arrays, zoomed
from jdm.data.raw_dataset import Geometry, Pair
from jdm.errors import DataError


@dataclass(frozen=True)
class Canvas:
    """One image, or one slice of a volume, encoded and padded to at least the training patch."""

    x: np.ndarray
    """Float32, (channels, *spatial)."""
    inside: tuple[slice, ...]
    """Where the image itself lies, in (*spatial)."""
    coordinates: np.ndarray | None = None
    """Of its voxels in the case, (axes, *spatial), for a network that takes them."""


class CaseCanvas:
    """The canvases of a case, and the conversion of samples back to its grid."""

    def __init__(self, pair: Pair, config: Config) -> None:
        """Raises: DataError if the case's number of axes or size does not fit the plan."""
        self.pair, self.config, self.codec = pair, config, PairCodec(config)
        axes = config.data.dims + (config.data.slice_axis is not None)
        if pair.label.ndim != axes:
            raise DataError(
                f"case {pair.case_id}: has {pair.label.ndim} axes, {pair.label.shape}; expected {axes} as the training "
                "cases have; give images like those"
            )
        image, label = planned_arrays(pair, config)
        self.image, self.label = self._planes(image, 1), self._planes(label, 0)
        """By plane: (planes, channels, *spatial) and (planes, *spatial), in planned spacing."""
        check_size(pair.case_id, self.label.shape[1:], config)

    def canvas(self, plane: int, label: np.ndarray | None = None, crop: tuple[slice, ...] = ()) -> Canvas:
        """Canvas of a plane or, with `crop`, of a part of it; `label` (*spatial of the plane) replaces its own."""
        shown = self.label[plane] if label is None else label
        x = self.codec.encode(self.image[plane][(slice(None), *crop)], shown[crop])
        sides = x.shape[1:]
        size = tuple(max(side, least) for side, least in zip(sides, self.config.data.patch_size, strict=True))
        margins = centred_margins(sides, size)
        inside = tuple(slice(before, before + side) for (before, _), side in zip(margins, sides, strict=True))
        places = None
        if self.config.data.position:
            starts = [along.start for along in crop] or [0] * len(size)
            window = tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))
            places = coordinates(shown.shape, window)
        return Canvas(np.pad(x, [(0, 0), *margins], mode="symmetric"), inside, places)

    def native_label(self, planes: np.ndarray) -> np.ndarray:
        """Labels (planes, *spatial) resampled to the case's own grid by nearest neighbour."""
        return self._native(planes, order=0)

    def native_shares(self, planes: np.ndarray) -> np.ndarray:
        """Probabilities (planes, classes, *spatial) resampled to the case's own grid: (classes, *spatial)."""
        return np.stack([self._native(planes[:, value], order=1) for value in range(planes.shape[1])])

    def native_image(self, planes: np.ndarray, own_units: bool = True) -> np.ndarray:
        """Decoded intensities (planes, channels, *spatial) resampled to the case's own grid, in its own type.

        Args: own_units: rescale intensities in arbitrary units to this case's scale, else keep the codec's scale.
        """
        image = planes.astype(np.float64)
        if own_units and self.config.facts.case_std:
            mean, gain, offset = case_scale(self.pair.image, self.config.facts)  # the inverse of `rescaled`
            image = ((np.moveaxis(image, 1, 0) - offset) / gain + mean).swapaxes(0, 1)
        channels = [self._native(image[:, channel], order=1) for channel in range(image.shape[1])]
        return in_type(np.stack(channels), self.pair.image.dtype)

    def _planes(self, array: np.ndarray, axis: int) -> np.ndarray:
        """The slices, or the one image, along a new first axis."""
        return array[None] if self.config.data.slice_axis is None else np.moveaxis(array, axis, 0)

    def _native(self, planes: np.ndarray, order: int) -> np.ndarray:
        slice_axis = self.config.data.slice_axis
        array = planes[0] if slice_axis is None else np.moveaxis(planes, 0, slice_axis)
        wanted = self.pair.label.shape
        if array.shape == wanted:
            return array
        return zoomed(array, [want / side for want, side in zip(wanted, array.shape, strict=True)], order)


def decoded(config: Config, canvas: Canvas, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a sample (channels, *canvas), without the padding."""
    return PairCodec(config).decode(sample[(slice(None), *canvas.inside)])


def planned_pair(case_id: str, image: np.ndarray, label: np.ndarray, config: Config) -> Pair:
    """A pair in the plan's spacing; for volumes, a single slice."""
    data, facts = config.data, config.facts
    if data.slice_axis is None:
        return Pair(case_id, image, label, facts.spacing, volume_geometry(facts))
    spacing = list(facts.spacing)
    spacing.insert(data.slice_axis, facts.slice_spacing)
    return Pair(
        case_id,
        np.expand_dims(image, 1 + data.slice_axis),
        np.expand_dims(label, data.slice_axis),
        tuple(spacing),
        volume_geometry(facts),
    )


def volume_geometry(facts: Fingerprint) -> Geometry | None:
    """Where a made volume lies: with the directions of the real ones, as their reader has them; None for pictures."""
    return Geometry((0.0,) * 3, facts.direction, facts.stored_axes) if facts.direction else None


def check_size(case_id: str, shape: tuple[int, ...], config: Config) -> None:
    """Raises: DataError if an image is too small for the training patch, or too large for a plan of whole images."""
    patch, whole = config.data.patch_size, config.data.whole
    for side, trained in zip(shape, patch, strict=True):
        if side < math.ceil(trained / 2) or (whole and side > 2 * trained):
            upper = f" and at most {tuple(2 * p for p in patch)}" if whole else ""
            raise DataError(
                f"case {case_id}: the size is {shape} in the plan's spacing, the model was trained on {patch}; "
                f"expected at least {tuple(math.ceil(p / 2) for p in patch)}{upper}; give images like the training ones"
            )


def in_type(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Real-valued intensities in a stored type; rounded and clipped for integer types."""
    if dtype.kind not in "iu":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)


def around(region: np.ndarray, patch: tuple[int, ...]) -> tuple[slice, ...]:
    """Bounding box of a region in (*spatial), with a margin of half a patch and at least a patch along each axis."""
    parts = []
    for axis, (side, trained) in enumerate(zip(region.shape, patch, strict=True)):
        marked = np.flatnonzero(region.any(axis=tuple(k for k in range(region.ndim) if k != axis)))
        first, behind = int(marked[0]) - trained // 2, int(marked[-1]) + 1 + trained // 2
        missing = max(0, trained - (min(behind, side) - max(first, 0)))
        first, behind = max(0, first - missing), min(side, behind + missing)
        parts.append(slice(first, behind))
    return tuple(parts)


def seam(region: np.ndarray, feather: int, slice_axis: int | None = None) -> np.ndarray:
    """Blending weight of the sample, (*spatial): 0 outside the region, rising to 1 within `feather` pixels inside it.

    Slices of a volume are treated separately. A region too narrow for the feather gets a narrower one, so that the
    weight still reaches 1 in its core.
    """
    if slice_axis is not None:
        return np.stack([seam(part, feather) for part in np.moveaxis(region, slice_axis, 0)], slice_axis)
    inside = np.asarray(ndimage.distance_transform_edt(region))
    return np.clip(inside / max(1.0, min(feather + 1, inside.max())), 0, 1)

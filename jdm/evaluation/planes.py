"""Images and slices of whole datasets, on one scale, for audits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jdm.data.groups import read_groups
from jdm.data.raster import NATURAL_ENDINGS
from jdm.data.raw_dataset import RawDataset, read_case, slice_axis
from jdm.errors import DataError
from jdm.evaluation.appearance import light, objects, quadrants
from jdm.evaluation.audit import area_weights
from jdm.evaluation.copies import Scale

SIDE, GREY_SIDE = 16, 64
"""Pixels a side of the features that distributions are compared by, and of the grey images."""


@dataclass(frozen=True)
class Plane:
    """An image, or a slice of a volume."""

    case_id: str
    group: str
    image: np.ndarray
    """(channels, H, W), float32, on one scale for all cases."""
    label: np.ndarray
    """(H, W)."""

    @property
    def blank(self) -> bool:
        """Whether every channel is constant: nothing can be compared."""
        return not np.any(np.ptp(self.image, axis=(1, 2)))


def training_groups(dataset: RawDataset, trained: Sequence[str]) -> dict[str, str]:
    """Group of each training case; if all are of one group, which would leave no second nearest, each is its own."""
    groups = read_groups(dataset)
    alone = len({groups[case] for case in trained}) < 2
    return {case: case if alone else groups[case] for case in trained}


def planes(
    dataset: RawDataset, cases: Sequence[str], test: bool = False, group_of: Mapping[str, str] | None = None
) -> Iterator[Plane]:
    """All images or slices of some cases, read one case at a time.

    Pictures and CT are taken as stored; other volumes are standardised by case, as nnU-Net does.
    """
    group_of = group_of or read_groups(dataset, test)
    stored = dataset.file_ending in NATURAL_ENDINGS or all(name.lower() == "ct" for name in dataset.channel_names)
    for case_id in cases:
        pair = read_case(dataset, case_id, test)
        image, label = pair.image.astype(np.float32), pair.label
        if not stored:
            axes = tuple(range(1, image.ndim))
            image = image - image.mean(axes, keepdims=True)
            image = image / np.maximum(image.std(axes, keepdims=True), 1e-6)
        if label.ndim == 3:
            axis = slice_axis([label.shape], pair.spacing)
            slices = zip(np.moveaxis(image, axis + 1, 0), np.moveaxis(label, axis, 0), strict=True)
        else:
            slices = [(image, label)]
        yield from (Plane(case_id, group_of[case_id], *each) for each in slices)


@dataclass
class PlaneSet:
    """What an audit keeps of a set of planes: some kilobytes of each, whatever its size. Lists have one entry each."""

    name: str
    scale: Scale
    cases: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    """Reduced for the search."""
    labels: list[np.ndarray] = field(default_factory=list)
    """Reduced likewise."""
    digests: list[str] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    """(channels * SIDE * SIDE,) of each: its pixels, reduced."""
    greys: list[np.ndarray] = field(default_factory=list)
    """(GREY_SIDE, GREY_SIDE) of each: the mean of its channels."""
    looks: list[dict[str, float]] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    """(channels,) of each: its mean colour."""
    blank: int = 0
    """Constant planes, which were left out."""

    def __len__(self) -> int:
        return len(self.cases)

    def without(self, cases: Container[str]) -> PlaneSet:
        """The set without the planes of some cases."""
        kept = [n for n, case in enumerate(self.cases) if case not in cases]
        lists = {name: [values[n] for n in kept] for name, values in vars(self).items() if isinstance(values, list)}
        return dataclasses.replace(self, **lists)

    def add(self, plane: Plane, of: Plane | None = None) -> None:
        """Take what is needed of a plane, or of an area `of` a plane, unless that is constant.

        Raises: DataError if it has other channels than those before.
        """
        whole = of or plane
        if whole.blank:
            self.blank += 1
            return
        if self.images and len(self.images[0]) != len(plane.image):
            raise DataError(
                f"{plane.case_id} has {len(plane.image)} channels; expected {len(self.images[0])} as in the first case "
                f"of {self.name}; check the dataset"
            )
        self.cases.append(plane.case_id)
        self.groups.append(plane.group)
        self.images.append(self.scale.image(plane.image))
        self.labels.append(self.scale.label(plane.label))
        self.digests.append(digest(whole.image))
        self.features.append(_stretched(plane.image, SIDE).ravel())
        self.greys.append(_stretched(plane.image.mean(0), GREY_SIDE))
        self.looks.append({**objects(plane.label), **light(plane.image), "quadrants": quadrants(plane.image)})
        self.means.append(plane.image.mean((1, 2)))


def digest(image: np.ndarray) -> str:
    """SHA-256 of an image's shape and values."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes() + str(image.shape).encode()).hexdigest()


def area(plane: Plane, size: tuple[int, ...], rng: np.random.Generator) -> Plane:
    """A random area of a plane, as large as a synthetic pair where the plane is."""
    starts = [int(rng.integers(0, max(side - want, 0) + 1)) for side, want in zip(plane.label.shape, size, strict=True)]
    place = tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))
    return Plane(plane.case_id, plane.group, plane.image[:, *place], plane.label[place])


def _stretched(image: np.ndarray, side: int) -> np.ndarray:
    """(..., side, side), float32: means of an image's (..., H, W) areas."""
    rows, columns = (area_weights(length, side) for length in image.shape[-2:])
    return (rows @ image @ columns.T).astype(np.float32)

"""Measurements kept of each training case while a dataset is surveyed, with one case in memory at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from jdm.data.raw_dataset import Pair
from jdm.data.regions import region_sizes

CROP_SIDES = (64, 128, 256, 512)
"""Sides of the crops over which the foreground range is measured, in addition to whole images."""
_PIXELS_PER_CASE, _PIXELS_PER_CLASS = 20_000, 2_000
_CROPS = 400
_LEAST_CASES = 3
_PLANES_PER_CASE = 20
"""Images or slices of a case whose regions are measured."""


@dataclass
class Survey:
    """Measurements of each case; those of intensities per channel."""

    classes: int
    crops_per_case: int
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)
    directions: list[tuple[tuple[float, ...], str]] = field(default_factory=list)
    """Direction cosines, and axis order of the file."""
    slices: list[np.ndarray] = field(default_factory=list)
    """Number of non-constant slices across each array axis of a volume."""
    dtypes: list[np.dtype] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    """Some pixels of each case, (channels, n)."""
    class_samples: list[dict[int, np.ndarray]] = field(default_factory=list)
    """Some pixels of each label value of each case, (channels, n)."""
    extremes: list[np.ndarray] = field(default_factory=list)
    """Least and most, (2, channels)."""
    zero_faces: list[bool] = field(default_factory=list)
    class_shares: list[np.ndarray] = field(default_factory=list)
    layouts: list[np.ndarray] = field(default_factory=list)
    """See `layout`; images only."""
    foreground: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)
    """Least and most share of each label value over crops, (2, classes), by slice axis (none for images) and crop side;
    side 0: whole images or slices."""
    regions: dict[tuple[int, ...], list[np.ndarray]] = field(default_factory=dict)
    """Pixels of the connected regions of some planes, by slice axis."""

    @classmethod
    def of(cls, cases: int, classes: int) -> Survey:
        """An empty survey for this number of cases."""
        return cls(classes, math.ceil(_CROPS / max(cases, 1)))

    def add(self, pair: Pair, rng: np.random.Generator) -> None:
        flat, labels = pair.image.reshape(len(pair.image), -1), pair.label.reshape(-1)
        self.shapes.append(pair.label.shape)
        self.spacings.append(pair.spacing)
        geometry = pair.geometry
        self.directions.append(((), "") if geometry is None else (geometry.direction, geometry.stored))
        self.dtypes.append(pair.image.dtype)
        self.samples.append(flat[:, rng.integers(0, flat.shape[1], min(_PIXELS_PER_CASE, flat.shape[1]))])
        self.class_samples.append(_by_class(flat, labels, self.classes, rng))
        self.extremes.append(np.array([flat.min(axis=1), flat.max(axis=1)]))
        self.zero_faces.append(has_zero_face(pair.image))
        self.class_shares.append(class_shares(labels, self.classes))
        if pair.label.ndim == 2:
            self.slices.append(np.array([1]))
            self.layouts.append(layout(pair, self.classes))
            self._add_crops((), pair.label[None], rng)
            return
        self._add_crops((), pair.label[None], rng)
        varied = [_varied_slices(pair.image, axis) for axis in range(pair.label.ndim)]
        self.slices.append(np.array([np.count_nonzero(found) for found in varied]))
        for axis, found in enumerate(varied):
            if found.any():
                self._add_crops((axis,), np.moveaxis(pair.label, axis, 0)[found], rng)

    def _add_crops(self, axis: tuple[int, ...], planes: np.ndarray, rng: np.random.Generator) -> None:
        """Class shares of whole planes (n, *spatial) and of random crops of them, and sizes of regions."""
        step = math.ceil(len(planes) / _PLANES_PER_CASE)
        self.regions.setdefault(axis, []).extend(region_sizes(plane) for plane in planes[::step])
        shares = {0: [class_shares(plane, self.classes) for plane in planes]}
        for side in (side for side in CROP_SIDES if side < max(planes.shape[1:])):
            for _ in range(self.crops_per_case):
                plane = planes[rng.integers(len(planes))]
                starts = [rng.integers(0, max(length - side, 0) + 1) for length in plane.shape]
                crop = plane[tuple(slice(start, start + side) for start in starts)]
                shares.setdefault(side, []).append(class_shares(crop, self.classes))
        for side, found in shares.items():
            ends = np.array([np.min(found, axis=0), np.max(found, axis=0)])
            before = self.foreground.get((*axis, side), ends)
            self.foreground[*axis, side] = np.array([np.minimum(before[0], ends[0]), np.maximum(before[1], ends[1])])


def class_shares(label: np.ndarray, classes: int) -> np.ndarray:
    """Share of pixels per label value, (classes,)."""
    return np.bincount(label.reshape(-1), minlength=classes)[:classes] / label.size


def _by_class(flat: np.ndarray, labels: np.ndarray, classes: int, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Some pixels (channels, n) of each label value present."""
    found = {}
    for value in range(classes):
        places = np.flatnonzero(labels == value)
        if len(places):
            chosen = places[rng.integers(0, len(places), min(_PIXELS_PER_CLASS, len(places)))]
            found[value] = flat[:, chosen]
    return found


def has_zero_face(image: np.ndarray) -> bool:
    """Whether an outer face of (channels, *spatial) is exactly zero in every channel."""
    return any(
        image.shape[axis] > 1 and not np.take(image, end, axis=axis).any()
        for axis in range(1, image.ndim)
        for end in (0, -1)
    )


def _varied_slices(image: np.ndarray, axis: int) -> np.ndarray:
    """Which slices across an axis of (channels, *spatial) are not constant."""
    flat = np.moveaxis(image, 1 + axis, 0).reshape(image.shape[1 + axis], -1)
    return flat.min(axis=1) < flat.max(axis=1)


def layout(pair: Pair, classes: int) -> np.ndarray:
    """Positions of structures in an image, as numbers whose sign mirroring or rotation changes: (3, classes + 1).

    Rows 0 and 1: mean positions along the two axes, from -1 to 1. Those of the whole foreground and of the brightness
    are relative to the image centre, those of each class to the foreground's position. Row 2: difference in spread
    between the axes. NaN if a class is absent.
    """
    places = [np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in pair.label.shape]
    maps = [pair.label > 0, *(pair.label == value for value in range(1, classes))]
    brightness = pair.image.astype(np.float64).mean(axis=0)
    maps.append(brightness - brightness.min())
    found = np.full((3, len(maps)), np.nan)
    for number, weights in enumerate(maps):
        total = float(weights.sum())
        if total == 0:
            continue
        profiles = [weights.sum(axis=1) / total, weights.sum(axis=0) / total]
        centre = [float(profile @ place) for profile, place in zip(profiles, places, strict=True)]
        spread = [float(p @ (x - c) ** 2) for p, x, c in zip(profiles, places, centre, strict=True)]
        found[:, number] = *centre, spread[0] - spread[1]
    if classes > 2:
        found[:2, 1:classes] -= found[:2, :1]  # relative arrangement of the classes, wherever they are
    return found.round(9)  # rounding errors about zero are no asymmetry


def distinct_layouts(layouts: list[np.ndarray], kind: int) -> bool:
    """Whether mirrored (kind 0, 1: the axis) or rotated (2) cases can be told apart from real ones.

    Mirroring (rotation) changes the sign of each number of a layout. If the mean of one over cases differs from 0 by a
    t-test at 1 % (Bonferroni-corrected over all numbers), mirrored cases can be told apart.
    """
    from scipy import stats

    table = np.array([found[kind] for found in layouts])  # (cases, numbers)
    columns = [column[np.isfinite(column)] for column in table.T]
    columns = [column for column in columns if len(column) >= _LEAST_CASES and column.any()]
    for column in columns:
        error = column.std(ddof=1) / math.sqrt(len(column))
        statistic = abs(column.mean()) / error if error > 0 else math.inf
        if 2 * stats.t.sf(statistic, len(column) - 1) < 0.01 / len(columns):
            return True
    return False

"""Measurements kept of each training case while a dataset is surveyed, with one case in memory at a time."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import numpy as np

from jdm.data.raw_dataset import Pair

_PIXELS_PER_CASE, _PIXELS_PER_CLASS = 20_000, 2_000
_LEAST_CASES = 3


@dataclass
class Survey:
    """Measurements of each case; those of intensities per channel."""

    classes: int
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)
    directions: list[tuple[tuple[float, ...], str]] = field(default_factory=list)
    """Direction cosines, and axis order of the file."""
    varied: list[list[np.ndarray]] = field(default_factory=list)
    """Which slices across each array axis of a volume are not constant; of a picture, one plane."""
    labels: list[tuple[bytes, np.dtype]] = field(default_factory=list)
    """Compressed, see `label`: masks are measured when the spacing that cases are resampled to is known."""
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
        self.labels.append((zlib.compress(pair.label.tobytes(), 1), pair.label.dtype))
        if pair.label.ndim == 2:
            self.layouts.append(layout(pair, self.classes))
            self.varied.append([np.ones(1, bool)])
        else:
            self.varied.append([_varied_slices(pair.image, axis) for axis in range(pair.label.ndim)])

    def label(self, case: int) -> np.ndarray:
        """The label (*spatial) of a case, by its number."""
        packed, dtype = self.labels[case]
        return np.frombuffer(zlib.decompress(packed), dtype).reshape(self.shapes[case])


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

"""Images and slices of whole datasets, on one scale, for audits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdm.data.groups import read_groups
from jdm.data.raster import NATURAL_ENDINGS
from jdm.data.raw_dataset import RawDataset, read_case, slice_axis
from jdm.evaluation.audit import area_weights

_SIDE, _MOST = 16, 2000
"""Pixels a side, and images, for the distances between distributions."""


@dataclass(frozen=True)
class Plane:
    """An image, or a slice of a volume."""

    case_id: str
    group: str
    image: np.ndarray
    """(channels, H, W), float32, on one scale for all cases."""
    label: np.ndarray
    """(H, W)."""


def planes(dataset: RawDataset, cases: Sequence[str], test: bool = False) -> list[Plane]:
    """All images, or slices that are not constant, of some cases.

    Pictures and CT are taken as stored; other volumes are standardised by case, as nnU-Net does.
    """
    group_of, found = read_groups(dataset, test), []
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
        found += [Plane(case_id, group_of[case_id], *each) for each in slices if each[0].min() < each[0].max()]
    return found


def digest(plane: Plane) -> str:
    return hashlib.sha256(np.ascontiguousarray(plane.image).tobytes() + str(plane.image.shape).encode()).hexdigest()


def repeated(items: list[Plane], count: int) -> list[Plane]:
    return [items[n % len(items)] for n in range(max(count, len(items)))] if items else []


def area(plane: Plane, size: tuple[int, ...], rng: np.random.Generator) -> Plane:
    """A random area of a plane, as large as a synthetic pair where the plane is."""
    starts = [int(rng.integers(0, max(side - want, 0) + 1)) for side, want in zip(plane.label.shape, size, strict=True)]
    place = tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))
    return dataclasses.replace(plane, image=plane.image[:, *place], label=plane.label[place])


def features(part: list[Plane]) -> np.ndarray:
    """Pixels of images stretched to _SIDE a side, (n, features), of at most _MOST planes spread over the set."""
    chosen = np.unique(np.linspace(0, len(part) - 1, min(_MOST, len(part))).astype(int))
    rows = [[area_weights(side, _SIDE) for side in part[n].label.shape] for n in chosen]
    return np.stack([(r @ part[n].image @ c.T).ravel() for n, (r, c) in zip(chosen, rows, strict=True)])

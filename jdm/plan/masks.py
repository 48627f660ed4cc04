"""What of the masks judges synthetic ones: shares and sizes of classes, and sizes of connected regions.

They are measured at the spacing at which samples are trained and exported, so that pixels of all cases have one size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jdm.config.facts import Foreground
from jdm.data.crops import random_window
from jdm.data.pairs import zoomed
from jdm.data.regions import region_sizes
from jdm.plan.survey import Survey, class_shares

CROP_SIDES = (64, 128, 256, 512)
"""Sides of the crops over which the foreground range is measured, in addition to whole images."""
_CROPS = 400
_PLANES_PER_CASE = 20
"""Images or slices of a case whose regions are measured."""
_SPECKS = 0.01
"""Share of real regions that are small enough to be left out of synthetic masks."""


def mask_facts(survey: Survey, axis: int | None, spacing: np.ndarray, largest: tuple[int, ...]) -> dict[str, Any]:
    """The facts that judge synthetic masks.

    Args:
        axis: along which volumes are sliced; None: whole volumes, or pictures.
        spacing: to which cases are resampled, along each array axis.
        largest: sides of the largest image, slice or volume at that spacing.
    """
    rng, crops_per_case = np.random.default_rng(0), math.ceil(_CROPS / len(survey.shapes))
    voxel = float(np.prod([step for k, step in enumerate(spacing) if k != axis]))
    regions: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    shares: dict[int, list[np.ndarray]] = {0: []}
    for planes in _resampled(survey, axis, spacing):
        step = math.ceil(len(planes) / _PLANES_PER_CASE)
        regions += [region_sizes(plane) for plane in planes[::step]]
        whole = [class_shares(plane, survey.classes) for plane in planes]
        shares[0] += whole
        sizes += [share * planes[0].size * voxel for share in whole]
        for side in (side for side in CROP_SIDES if side < max(planes.shape[1:])):
            for _ in range(crops_per_case):
                plane = planes[rng.integers(len(planes))]
                crop = plane[random_window(plane.shape, (side,) * plane.ndim, rng)]
                shares.setdefault(side, []).append(class_shares(crop, survey.classes))
    ends = np.min(sizes, axis=0), np.max(sizes, axis=0)
    return {
        "least_region": int(np.quantile(np.concatenate(regions), _SPECKS)),
        "class_volumes": tuple(zip(*(end.tolist() for end in ends), strict=True)) if len(spacing) == 3 else (),
        "foreground": tuple(
            Foreground(
                (side,) * len(largest) if side else largest,
                tuple(np.min(shares[side], axis=0).tolist()),
                tuple(np.max(shares[side], axis=0).tolist()),
            )
            for side in sorted(shares, key=lambda side: side or math.inf)
        ),
    }


def _resampled(survey: Survey, axis: int | None, spacing: np.ndarray) -> Iterator[np.ndarray]:
    """Labels (planes, *spatial) of each case at the trained spacing, as `jdm.data.pairs.planned_arrays` resamples them.

    Slices of which the image is constant are left out, and cases of such slices alone.
    """
    for number, own in enumerate(survey.spacings):
        label, zoom = survey.label(number)[None], [1.0, *(np.array(own) / spacing)]
        if axis is not None:
            label = np.moveaxis(label[0], axis, 0)[survey.varied[number][axis]]
            del zoom[1 + axis]
        if len(label) and any(abs(z - 1) > 0.01 for z in zoom):
            label = zoomed(label, zoom, order=0)
        if len(label):
            yield label

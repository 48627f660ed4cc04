"""Quality of samplers against network evaluations: numbers with intervals, compared with those of real images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from jdm.config.settings import Config
from jdm.draw.cost import evaluations
from jdm.errors import DataError
from jdm.evaluation.distribution import (
    Estimate,
    KernelDistance,
    bootstrap_counts,
    estimate,
    pooled_dice,
    share_distances,
    standardised,
    subset_counts,
)
from jdm.export.amount import Order
from jdm.system.files import replaced

METRICS = ("kernel_distance", "agreement", "share_distance")
"""Higher is better for `agreement`, lower for the others."""
_RESAMPLES, _SETS = 1000, 200
_LEAST_STEPS, _MOST_STEPS = 2, 1000


@dataclass(frozen=True)
class Judged:
    """Features and segmentations of n pairs by a network trained on real images."""

    features: np.ndarray
    """(n, d)"""
    overlap: np.ndarray
    """(n, foreground classes, 3): true positives, false positives and false negatives of its segmentation against the
    pair's mask, in pixels."""
    shares: np.ndarray
    """(n, foreground classes): share of the mask's pixels."""
    cases: np.ndarray
    """(n,): index of the case of each image or slice."""

    def __len__(self) -> int:
        return len(self.features)

    def part(self, chosen: np.ndarray) -> Judged:
        """Some of the pairs, by index or as a boolean mask."""
        return Judged(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def save(self, file: Path) -> None:
        """Write an .npz file, complete or not at all."""
        with replaced(file) as partial:
            np.savez(partial, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Judged:
        with np.load(file, allow_pickle=False) as stored:
            return cls(*(stored[field.name] for field in fields(cls)))


Measured = tuple[Mapping[str, Any], Judged]
"""What it took (sampler, steps, and per pair evaluations and CPU seconds of sampling), and the pairs."""


def steps_by_evaluations(config: Config, order: Order, wanted: Sequence[int]) -> dict[int, int]:
    """For each wanted number of evaluations, the largest number of steps of an order's sampler that does not exceed it.

    Numbers that the sampler does not support are left out. A sampler that chooses its own steps has a single entry,
    with the order's steps.

    Returns: steps by number of evaluations.
    """
    most = config.diffusion.steps if order.way.sampler == "ancestral" else _MOST_STEPS
    steps = range(_LEAST_STEPS, most + 1)
    costs = [evaluations(config, order.request, replace(order.way, steps=number)) for number in steps]
    if costs[0] == costs[-1]:
        return {costs[0]: order.way.steps}
    return {number: steps[bisect_right(costs, number) - 1] for number in sorted(wanted) if number >= costs[0]}


class Reference:
    """Real images for comparison."""

    def __init__(self, images: Judged, scale: np.ndarray) -> None:
        """Args: scale: features (m, d) that give each feature its unit; see `standardised`."""
        self.images, self.scale = images, scale
        self._distance = KernelDistance(standardised(images.features, scale))

    def resampled(self, judged: Judged, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `METRICS` (resamples,) for resamples (resamples, n) of judged pairs."""
        shares = [share_distances(judged.shares, self.images.shares, row).mean() for row in counts]
        return {
            "kernel_distance": self._distance.resampled(standardised(judged.features, self.scale), counts),
            "agreement": pooled_dice(judged.overlap, counts),
            "share_distance": np.array(shares),
        }

    def values(self, judged: Judged) -> dict[str, float]:
        """Each of `METRICS` for all judged pairs."""
        return {name: float(found[0]) for name, found in self.resampled(judged, np.ones((1, len(judged)))).items()}


def real_scores(training: Judged, other: Judged, size: int) -> dict[str, dict[str, Estimate]]:
    """`METRICS` of sets of `size` real images: their mean and the range of 95 % of the sets.

    Returns:
        training: random training images against all other images: the score of a sampler that only repeats them.
        other: random images from half of the other cases against the other half, split again for each set: the score
            without any difference.
    Raises: DataError if the other images are from fewer than two cases.
    """
    cases, rng = np.unique(other.cases), np.random.default_rng(0)
    if len(cases) < 2:
        raise DataError("the real images for comparison are from one case; expected at least two; hold out more")
    scale = training.features
    sets = {"training": Reference(other, scale).resampled(training, subset_counts(len(training), size, _SETS, 0))}
    halves = []
    for _ in range(_SETS):
        first = np.isin(other.cases, rng.permutation(cases)[: len(cases) // 2])
        drawn = rng.permutation(np.flatnonzero(first))[:size]
        halves.append(Reference(other.part(~first), scale).values(other.part(drawn)))
    sets["other"] = {metric: np.array([found[metric] for found in halves]) for metric in METRICS}
    return {
        name: {metric: estimate(float(values.mean()), values) for metric, values in found.items()}
        for name, found in sets.items()
    }


def sampler_scores(rows: Sequence[Measured], training: Judged, other: Judged, classes: Sequence[str]) -> list[dict]:
    """Plain values of each row: `METRICS` with bootstrap intervals over pairs, foreground per class, and `ties`.

    `ties` names the metrics in which a row does not differ from the best one: the interval of their difference includes
    zero. All rows have the same initial noise, so pairs are resampled together.

    Args: classes: names of the foreground classes.
    Raises: DataError if rows have different numbers of pairs.
    """
    sizes = {len(judged) for _, judged in rows}
    if len(sizes) != 1:
        raise DataError(f"samplers with {sorted(sizes)} pairs; expected the same number; measure them again")
    reference = Reference(other, training.features)
    counts = bootstrap_counts(sizes.pop(), _RESAMPLES, 0)
    values = [reference.values(judged) for _, judged in rows]
    resampled = [reference.resampled(judged, counts) for _, judged in rows]
    found: list[dict[str, Any]] = [
        {
            **took,
            **{metric: estimate(own[metric], drawn[metric])._asdict() for metric in METRICS},
            "classes": _classes(judged, other, classes),
            "ties": [],
        }
        for (took, judged), own, drawn in zip(rows, values, resampled, strict=True)
    ]
    for metric in METRICS:
        sign = -1 if metric == "agreement" else 1
        best = int(np.argmin([sign * own[metric] for own in values]))
        for row, own, drawn in zip(found, values, resampled, strict=True):
            difference = own[metric] - values[best][metric]
            around = estimate(difference, drawn[metric] - resampled[best][metric])
            if around.low <= 0 <= around.high:
                row["ties"].append(metric)
    return found


def _classes(judged: Judged, other: Judged, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean share of pixels per class, and the distance of its distribution over images."""
    distances = share_distances(judged.shares, other.shares)
    means = judged.shares.mean(0)
    return {
        name: {"mean_share": float(mean), "share_distance": float(distance)}
        for name, mean, distance in zip(names, means, distances, strict=True)
    }

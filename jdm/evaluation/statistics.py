"""How sure a difference between two ways of training is, when both are scored on the same images.

The image is the unit: seeds are averaged within an image first, then images (or patients) are resampled.
Testing over seeds alone says nothing with few of them (five seeds: the smallest two-sided p is 1/16).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from jdm.errors import DataError

_CHUNK = 2**22


@dataclass(frozen=True)
class Interval:
    """A mean over images with its bootstrap interval, in the unit of the scores."""

    mean: float
    low: float
    high: float
    p_wilcoxon: float
    """Two-sided p of the signed-rank test over the same units; NaN for a mean that is not a difference."""
    n: int
    """Units resampled: images, or groups of them."""

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """Mean of a - b over images, its paired percentile bootstrap interval, and Wilcoxon's signed-rank p.

    Args:
        a, b: scores, (images,) or (seeds, images), same images in the same order; the numbers of seeds may
            differ. NaN is an undefined score: seeds are averaged over the defined ones, and an image that is
            undefined in all seeds of either side is left out of both.
        groups: patient of each image; groups are then resampled whole and tested by their means.
    Raises: DataError if the images differ in number or none is defined in both.
    Source: Efron & Tibshirani 1993, ch. 13 (percentile interval); Wilcoxon 1945, by `scipy.stats.wilcoxon`.
    """
    mean_a, mean_b = _over_seeds(a), _over_seeds(b)
    if mean_a.shape != mean_b.shape:
        raise DataError(
            f"paired scores of {mean_a.size} and {mean_b.size} images; expected the same images on both sides; "
            "score both on one set"
        )
    difference = mean_a - mean_b
    interval = _bootstrap(difference, resamples, seed, confidence, groups)
    sums, counts = _grouped(difference, groups)
    return Interval(*interval, wilcoxon_p(sums / counts), counts.size)


def mean_interval(
    scores: np.ndarray,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """Mean of one side's scores over images with its percentile bootstrap interval.

    Args: as for `paired_difference`.
    Raises: DataError if no score is defined.
    """
    values = _over_seeds(scores)
    interval = _bootstrap(values, resamples, seed, confidence, groups)
    return Interval(*interval, math.nan, _grouped(values, groups)[1].size)


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where every difference is zero."""
    differences = np.round(differences, 12)  # rounding in the mean over seeds must not become a rank
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0
    from scipy.stats import wilcoxon

    result = wilcoxon(differences)
    return float(result.pvalue)  # type: ignore[attr-defined]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; NaN stays NaN and is not counted as a test.

    Source: Holm 1979, Scand. J. Stat. 6:65-70.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _over_seeds(scores: np.ndarray) -> np.ndarray:
    """(images,): mean over the seeds that define a score; NaN where none does."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim not in (1, 2):
        raise DataError(
            f"scores have shape {scores.shape}; expected (images,) or (seeds, images); give one row per seed"
        )
    table = np.atleast_2d(scores)
    defined = ~np.isnan(table)
    sums, counts = np.where(defined, table, 0).sum(0), defined.sum(0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _grouped(values: np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the defined values of each group, in order of first appearance."""
    if groups is not None and len(groups) != values.size:
        raise DataError(
            f"{len(groups)} groups for {values.size} images; expected one per image; name the group of each"
        )
    members: dict[Hashable, list[float]] = {}
    for key, value in zip(groups or range(values.size), values.tolist(), strict=True):
        if not math.isnan(value):
            members.setdefault(key, []).append(value)
    if not members:
        raise DataError("no image has a defined score on both sides; expected at least one; check the labels")
    return np.array([sum(m) for m in members.values()]), np.array([len(m) for m in members.values()])


def _bootstrap(
    values: np.ndarray, resamples: int, seed: int, confidence: float, groups: Sequence[Hashable] | None
) -> tuple[float, float, float]:
    """Mean, and the percentile interval of the mean over resampled groups."""
    sums, counts = _grouped(values, groups)
    random = np.random.default_rng(seed)
    means = []
    rows = max(1, _CHUNK // counts.size)  # bounds the memory of the index table
    for start in range(0, resamples, rows):
        drawn = random.integers(counts.size, size=(min(rows, resamples - start), counts.size))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(sums.sum() / counts.sum()), float(low), float(high)

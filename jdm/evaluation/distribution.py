"""Distances between sets of synthetic and real images and masks: kernel distance of features, foreground shares.

Every number can also be computed for resamples of the set. A resample is a row of counts, one per image; applying the
same row to two sets of the same cases gives a paired comparison.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jdm.errors import DataError


def standardised(features: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Features (n, d) standardised by the mean and standard deviation of `like` (m, d), float64.

    The polynomial kernel depends on the scale of features. Averaged activations differ by orders of magnitude, and much
    less between images than from zero. Features that are constant in `like` are only shifted.
    """
    mean, deviation = like.mean(0, dtype=np.float64), like.std(0, dtype=np.float64)
    return (features - mean) / np.where(deviation > 0, deviation, 1)


class KernelDistance:
    """Kernel distance of feature sets to a reference set: unbiased squared maximum mean discrepancy.

    With k(x, y) = (x . y / d + 1)^3 its expectation is zero if the first three moments are equal; it may be negative.
    With Inception features it is the Kernel Inception Distance (KID).
    Source: Binkowski et al. 2018 (arXiv:1801.01401); the estimator is that of Gretton et al. 2012, Lemma 6.
    """

    def __init__(self, reference: np.ndarray) -> None:
        """Args: reference: (m, d), at least two images. Raises: DataError for fewer."""
        self.reference = _checked(reference, "the reference set")
        self._within = float(_within(_kernel(self.reference, self.reference), np.ones((1, len(reference))))[0])

    def __call__(self, samples: np.ndarray) -> float:
        """Distance of samples (n, d). Raises: DataError for fewer than two, or another number of features."""
        return float(self.resampled(samples, np.ones((1, len(samples))))[0])

    def resampled(self, samples: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Distances (resamples,) of resamples of `samples` (n, d).

        An image drawn twice is not compared with itself, because that would bias the distance upwards.

        Args: counts: (resamples, n).
        """
        x = _checked(samples, "the set")
        if x.shape[1] != self.reference.shape[1]:
            raise DataError(
                f"the set has {x.shape[1]} features; expected {self.reference.shape[1]}, as in the reference set; use "
                "the same network for both"
            )
        across = counts @ _kernel(x, self.reference).mean(1) / counts.sum(1)
        return _within(_kernel(x, x), counts) + self._within - 2 * across


def share_distances(shares: np.ndarray, reference: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Wasserstein-1 distance of the share of pixels per image, for each class (classes,).

    Args:
        shares, reference: (n, classes) and (m, classes).
        counts: (n,), one resample of `shares`.
    Source: `scipy.stats.wasserstein_distance`.
    """
    from scipy.stats import wasserstein_distance

    return np.array([wasserstein_distance(a, b, u_weights=counts) for a, b in zip(shares.T, reference.T, strict=True)])


def pooled_dice(overlap: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Dice (resamples,) pooled over all images of a resample, averaged over the classes that occur; else NaN.

    Pooling weights small objects in single images, for which Dice is 0 or 1, by their area.

    Args:
        overlap: (n, classes, 3), true positives, false positives and false negatives.
        counts: (resamples, n).
    """
    tp, fp, fn = np.moveaxis(np.tensordot(counts, overlap.astype(np.float64), axes=1), -1, 0)
    total = 2 * tp + fp + fn
    dice = np.divide(2 * tp, total, out=np.zeros(total.shape), where=total > 0)
    seen = (total > 0).sum(1)
    return np.divide(dice.sum(1), seen, out=np.full(len(counts), np.nan), where=seen > 0)


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(value: float, resampled: np.ndarray) -> Estimate:
    """The bootstrap interval of a number, shifted so that the mean over resamples equals the number.

    Resampling increases every nonnegative distance; this bias is not part of the uncertainty.
    """
    spread = np.quantile(resampled - resampled.mean(), [0.025, 0.975])
    return Estimate(float(value), float(value + spread[0]), float(value + spread[1]))


def bootstrap_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """Counts (resamples, n) of n images drawn with replacement."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)


def subset_counts(n: int, size: int, resamples: int, seed: int) -> np.ndarray:
    """Counts (resamples, n) of random subsets of `size` images, or of all images if there are fewer."""
    order = np.random.default_rng(seed).random((resamples, n)).argsort(1)
    return (order < size).astype(np.float64)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _within(kernel: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean kernel (resamples,) of two different images of a resample."""
    same = np.square(counts)
    pairs = counts.sum(1) ** 2 - same.sum(1)
    return (((counts @ kernel) * counts).sum(1) - same @ np.diag(kernel)) / pairs


def _checked(features: np.ndarray, name: str) -> np.ndarray:
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise DataError(
            f"{name} has features of shape {features.shape}; expected (images, features), finite, of at least two "
            "images; add some"
        )
    return features.astype(np.float64)

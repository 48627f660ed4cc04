"""Distances of sets of images against closed forms, brute force and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdm.errors import DataError
from jdm.evaluation.distribution import (
    KernelDistance,
    bootstrap_counts,
    estimate,
    pooled_dice,
    share_distances,
    standardised,
    subset_counts,
)


def brute_force(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(z: np.ndarray) -> float:
        return float(np.mean([kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]))

    return within(x) + within(y) - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_kernel_distance_is_its_definition_and_symmetric(n, m, d, seed) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(1, 2, size=(m, d))
    assert KernelDistance(y)(x) == pytest.approx(brute_force(x, y), rel=1e-9, abs=1e-9)
    assert KernelDistance(x)(y) == pytest.approx(KernelDistance(y)(x), rel=1e-9, abs=1e-9)


def test_kernel_distance_is_zero_on_average_for_equal_distributions() -> None:
    rng = np.random.default_rng(0)
    found = np.array([KernelDistance(rng.normal(size=(12, 3)))(rng.normal(size=(10, 3))) for _ in range(2000)])
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(found.size)
    assert (found < 0).any()  # an estimate with the diagonal never is


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_kernel_distance_of_shifted_normals(shift: float) -> None:
    """(xy + 1)^3 compares moments: 3 (dE x)^2 + 3 (dE x^2)^2 + (dE x^3)^2."""
    rng = np.random.default_rng(1)
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    found = [
        KernelDistance(rng.normal(size=(400, 1)))(rng.normal(shift, 1, size=(400, 1))) for _ in range(100)
    ]  # fmt: skip
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 10)
    assert np.std(found) / 10 < 0.1 * expected


def test_a_resample_without_repetition_is_the_subset() -> None:
    rng = np.random.default_rng(2)
    distance, x = KernelDistance(rng.normal(size=(20, 4))), rng.normal(0.3, 1, size=(15, 4))
    counts = subset_counts(15, 6, 5, seed=0)
    assert (counts.sum(1) == 6).all()
    assert len(np.unique(counts, axis=0)) > 1
    found = distance.resampled(x, counts)
    assert found == pytest.approx([distance(x[row > 0]) for row in counts])
    assert subset_counts(4, 9, 2, seed=0).tolist() == [[1.0] * 4] * 2


def test_resampling_does_not_push_the_kernel_distance_up() -> None:
    rng = np.random.default_rng(3)
    distance, x = KernelDistance(rng.normal(size=(200, 30))), rng.normal(size=(60, 30))
    counts = bootstrap_counts(60, 3000, seed=0)
    assert (counts.sum(1) == 60).all()
    found = distance.resampled(x, counts)
    assert found.mean() == pytest.approx(distance(x), abs=4 * found.std() / math.sqrt(3000))


def test_share_distance_of_a_shift_is_the_shift_and_counts_repeat() -> None:
    rng = np.random.default_rng(4)
    shares = rng.random((30, 2))
    assert share_distances(shares + np.array([0.1, -0.2]), shares) == pytest.approx([0.1, 0.2])
    counts = bootstrap_counts(30, 1, seed=1)[0]
    repeated = np.repeat(shares, counts.astype(int), axis=0)
    other = rng.random((11, 2))
    assert share_distances(shares, other, counts) == pytest.approx(share_distances(repeated, other))


def test_pooled_dice_is_that_of_all_images_as_one() -> None:
    rng = np.random.default_rng(5)
    predicted, reference = rng.integers(0, 3, (2, 4, 50))
    overlap = np.array([
        [[((p == k) & (r == k)).sum(), ((p == k) & (r != k)).sum(), ((p != k) & (r == k)).sum()] for k in (1, 2, 3)]
        for p, r in zip(predicted, reference, strict=True)
    ])  # fmt: skip
    dice = [
        2 * np.sum((predicted == k) & (reference == k)) / (np.sum(predicted == k) + np.sum(reference == k))
        for k in (1, 2)
    ]
    found = pooled_dice(overlap, np.array([[1, 1, 1, 1], [0, 0, 0, 0]], dtype=float))
    assert found[0] == pytest.approx(np.mean(dice))  # class 3 is nowhere and does not count
    assert np.isnan(found[1])


def test_standardised_features_have_the_scale_of_the_others() -> None:
    like = np.random.default_rng(6).normal(5, 3, (50, 4))
    like[:, 2] = 7
    found = standardised(like, like)
    assert found.mean(0) == pytest.approx(np.zeros(4), abs=1e-12)
    assert found.std(0) == pytest.approx([1, 1, 0, 1])
    assert standardised(like + like.std(0), like)[:, 0].mean() == pytest.approx(1)


def test_an_interval_lies_around_the_value() -> None:
    rng = np.random.default_rng(7)
    found = estimate(2.0, 5 + rng.normal(size=100_000))
    assert found == pytest.approx((2.0, 2 - 1.96, 2 + 1.96), abs=0.03)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match="reference set"):
        KernelDistance(np.zeros((1, 3)))
    with pytest.raises(DataError, match="finite"):
        KernelDistance(np.full((3, 3), np.nan))
    with pytest.raises(DataError, match="3 features; expected 2"):
        KernelDistance(np.eye(2))(np.eye(3))

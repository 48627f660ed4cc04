"""Intervals against simulation, exact enumeration and the normal law; tests against tables and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdm.errors import DataError
from jdm.evaluation.statistics import holm, mean_interval, paired_difference, wilcoxon_p


def test_interval_of_few_images_is_that_of_all_resamples() -> None:
    """Four images have 256 resamples: their exact quantiles are known."""
    a, b = np.array([0.9, 0.6, 0.7, 0.2]), np.array([0.5, 0.6, 0.8, 0.1])
    means = [np.mean(np.take(a - b, draw)) for draw in itertools.product(range(4), repeat=4)]
    found = paired_difference(a, b, resamples=100_000)
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-9)
    assert found.n == 4


def test_interval_of_many_images_is_the_normal_one() -> None:
    difference = np.random.default_rng(0).standard_normal(4000)
    found = mean_interval(difference, resamples=4000)
    half = 1.959964 * difference.std() / math.sqrt(difference.size)
    assert found.low == pytest.approx(difference.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.05 * half)
    assert math.isnan(found.p_wilcoxon)


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """Images differ far more than arms; pairing and averaging over seeds must still give 95 %."""
    random = np.random.default_rng(1)
    covered = unpaired_too_wide = 0
    for trial in range(400):
        image = random.normal(0, 1, 40)
        a = image + 0.1 + random.normal(0, 0.1, (3, 40)) + random.normal(0, 0.1, 40)
        b = image + random.normal(0, 0.1, (2, 40))
        found = paired_difference(a, b, resamples=500, seed=trial)
        covered += found.low <= 0.1 <= found.high
        unpaired_too_wide += found.high - found.low < 0.15
    assert 0.90 <= covered / 400 <= 0.975  # percentile intervals of 40 are a little narrow
    assert unpaired_too_wide == 400


def test_seeds_do_not_count_as_images() -> None:
    random = np.random.default_rng(2)
    a, b = random.random(20), random.random(20)
    once = paired_difference(a, b)
    repeated = paired_difference(np.tile(a, (50, 1)), np.tile(b, (3, 1)))
    assert (repeated.mean, repeated.low, repeated.high) == pytest.approx((once.mean, once.low, once.high))
    assert repeated.p_wilcoxon == once.p_wilcoxon
    assert repeated.n == once.n == 20


def test_groups_are_resampled_whole() -> None:
    """Five copies of each image, grouped, tell as much as the images; ungrouped they pretend to more."""
    difference = np.random.default_rng(3).standard_normal(12)
    zeros = np.zeros(60)
    once = paired_difference(difference, np.zeros(12))
    copies = np.repeat(difference, 5)
    grouped = paired_difference(copies, zeros, groups=[f"patient {i // 5}" for i in range(60)])
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    assert grouped.p_wilcoxon == pytest.approx(once.p_wilcoxon)
    pretended = paired_difference(copies, zeros)
    assert pretended.high - pretended.low < 0.6 * (once.high - once.low)


def test_undefined_scores_are_left_out_of_both_sides() -> None:
    nan = math.nan
    a = np.array([[0.5, nan, 0.7, nan], [0.7, nan, 0.9, 0.4]])
    b = np.array([0.5, 0.9, nan, 0.3])
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(0.1)
    assert found.n == 2
    with pytest.raises(DataError):
        paired_difference(np.array([nan, 1.0]), np.array([1.0, nan]))
    with pytest.raises(DataError, match="2 and 3 images"):
        paired_difference(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="one per image"):
        mean_interval(np.zeros(3), groups=["a"])


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(4).random(30)
    first, second = mean_interval(values, seed=5), mean_interval(values, seed=5)
    assert (first.low, first.high) == (second.low, second.high)
    assert mean_interval(values, seed=6).low != first.low


def test_wilcoxon_is_the_exact_count_of_sign_patterns() -> None:
    differences = np.array([0.3, -0.1, 0.5, 0.2, 0.7])
    ranks = np.abs(differences).argsort().argsort() + 1
    observed = ranks[differences > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=5)]
    assert wilcoxon_p(differences) == pytest.approx(2 * np.mean(np.array(sums) >= observed))
    assert wilcoxon_p(np.ones(5) * np.arange(1, 6)) == pytest.approx(1 / 16)
    assert wilcoxon_p(np.zeros(9)) == 1
    assert wilcoxon_p(np.array([0.0, 0.2])) == 1
    assert wilcoxon_p(np.array([0.1 + 0.2 - 0.3, 0.3 - 0.2 - 0.1])) == 1  # zero but for rounding
    assert 0 < wilcoxon_p(np.array([0.1, 0.1, 0.1, -0.1, 0.2, 0.3, 0.0, 0.0])) < 1


def test_holm_equals_its_table() -> None:
    """Adjusted by hand: sorted .005 .01 .03 .04 times 4 3 2 1, then never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_nan = holm([0.01, math.nan, 0.5])
    assert with_nan[0] == pytest.approx(0.02)
    assert math.isnan(with_nan[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)

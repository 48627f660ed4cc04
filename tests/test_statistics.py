"""Intervals against exact enumeration, the normal law and simulated coverage; Holm against its table."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from jdm.errors import DataError
from jdm.evaluation.statistics import auc, detectable, holm, mean_interval, paired_difference


def test_interval_of_few_images_is_that_of_all_resamples() -> None:
    """Five images have 3125 resamples: their t statistics and so the exact interval are known."""
    a, b = np.array([0.9, 0.6, 0.7, 0.2, 0.8]), np.array([0.5, 0.6, 0.8, 0.1, 0.75])
    difference = a - b
    draws = difference[np.array(list(itertools.product(range(5), repeat=5)))]
    draws = draws[draws.std(1) > 1e-9]
    error = difference.std(ddof=1) / math.sqrt(5)
    statistics = (draws.mean(1) - difference.mean()) / (draws.std(1, ddof=1) / math.sqrt(5))
    low, high = np.quantile(statistics, [0.025, 0.975])
    bound = student.ppf(0.975, 4)
    found = paired_difference(a, b, resamples=200_000)
    assert found.mean == pytest.approx(0.09)
    assert found.low == pytest.approx(0.09 - max(high, bound) * error, rel=0.01)
    assert found.high == pytest.approx(0.09 - min(low, -bound) * error, rel=0.01)
    assert found.n == 5 and low < -bound  # the bootstrap is what widened it


def test_interval_of_many_images_is_the_normal_one() -> None:
    values = np.random.default_rng(0).standard_normal(4000)
    found = mean_interval(values, resamples=4000)
    half = 1.959964 * values.std() / math.sqrt(values.size)
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


@pytest.mark.parametrize("n", [6, 8, 14])
@pytest.mark.parametrize("scores", ["normal", "near one", "nearer one", "patients"])
def test_interval_of_few_images_covers_the_truth(scores: str, n: int) -> None:
    random = np.random.default_rng(1)

    def draw() -> tuple[np.ndarray, list[int] | None]:
        if scores == "normal":
            return random.normal(0.8, 0.1, n), None
        if scores == "patients":  # one to six images each, alike
            images = random.integers(1, 7, n)
            dice = np.repeat(random.beta(4, 1, n), images)
            return dice + random.normal(0, 0.02, dice.size), np.repeat(np.arange(n), images).tolist()
        return random.beta(*{"near one": (4, 1), "nearer one": (2, 0.5)}[scores], n), None

    covered = 0
    for trial in range(1000):
        values, groups = draw()
        found = mean_interval(values, groups=groups, resamples=500, seed=trial)
        covered += found.low <= 0.8 <= found.high
    assert covered >= (920 if n == 6 else 930)


def test_pairing_and_averaging_over_seeds_narrow_the_interval() -> None:
    """Images differ far more than arms; the difference is still found, and covered."""
    random = np.random.default_rng(1)
    covered = narrow = 0
    for trial in range(400):
        image = random.normal(0, 1, 40)
        a = image + 0.1 + random.normal(0, 0.1, (3, 40)) + random.normal(0, 0.1, 40)
        b = image + random.normal(0, 0.1, (2, 40))
        found = paired_difference(a, b, resamples=500, seed=trial)
        covered += found.low <= 0.1 <= found.high
        narrow += found.high - found.low < 0.15
    assert 0.93 <= covered / 400 <= 0.985 and narrow == 400


def test_p_is_below_five_percent_where_the_interval_excludes_zero() -> None:
    random = np.random.default_rng(5)
    decisions = set()
    for _ in range(300):
        found = mean_interval(random.beta(2, 0.5, 8) - random.uniform(0.5, 0.8), resamples=2000)
        if abs(found.p - 0.05) > 0.003:  # quantiles of 2000 interpolate
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
            decisions.add(found.p < 0.05)
    assert decisions == {True, False}


def test_no_more_than_five_percent_of_equal_arms_differ() -> None:
    random = np.random.default_rng(6)
    found = [mean_interval(0.8 - random.beta(4, 1, 8), resamples=500, seed=i).p < 0.05 for i in range(1000)]
    assert sum(found) <= 70


def test_seeds_do_not_count_as_images() -> None:
    random = np.random.default_rng(2)
    a, b = random.random(20), random.random(20)
    once = paired_difference(a, b)
    repeated = paired_difference(np.tile(a, (50, 1)), np.tile(b, (3, 1)))
    assert (repeated.mean, repeated.low, repeated.high) == pytest.approx((once.mean, once.low, once.high))
    assert repeated.p == once.p and repeated.n == once.n == 20


def test_groups_are_resampled_whole() -> None:
    """Five copies of each image, grouped, tell as much as the images; ungrouped they pretend to more."""
    difference = np.random.default_rng(3).standard_normal(12)
    zeros = np.zeros(60)
    once = paired_difference(difference, np.zeros(12))
    copies = np.repeat(difference, 5)
    grouped = paired_difference(copies, zeros, groups=[f"patient {i // 5}" for i in range(60)])
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    assert grouped.p == pytest.approx(once.p) and grouped.n == 12
    pretended = paired_difference(copies, zeros)
    assert pretended.high - pretended.low < 0.6 * (once.high - once.low)


def test_arms_are_compared_over_the_same_cells_of_the_same_seeds() -> None:
    nan = math.nan
    a = np.array([[0.5, nan, 0.7, nan, 0.6], [0.7, nan, 0.9, 0.4, 0.8]])
    b = np.array([0.5, 0.9, nan, 0.3, 0.6])
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(0.1) and found.n == 2
    with pytest.raises(DataError):
        paired_difference(np.array([nan, 1.0]), np.array([1.0, nan]))
    with pytest.raises(DataError, match="2 and 3"):
        paired_difference(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="1 groups"):
        mean_interval(np.zeros(3), groups=["a"])


def test_units_that_agree_or_are_alone_tell_no_more_than_they_can() -> None:
    alone = mean_interval(np.array([0.3, 0.5]), groups=["a", "a"])
    assert alone.mean == pytest.approx(0.4) and alone.n == 1
    assert all(map(math.isnan, (alone.low, alone.high, alone.p, detectable(alone))))
    agreeing = mean_interval(np.array([0.1 + 0.2, 0.3, 0.3]))  # equal but for rounding
    assert (agreeing.low, agreeing.high) == pytest.approx((0.3, 0.3)) and agreeing.p == 0.25
    assert mean_interval(np.zeros(9)).p == 1
    two = mean_interval(np.array([0.1, 0.3]))
    assert two.high - 0.2 == pytest.approx(student.ppf(0.975, 1) * 0.1)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(4).random(30)
    first, second = mean_interval(values, seed=5), mean_interval(values, seed=5)
    assert (first.low, first.high) == (second.low, second.high)
    assert mean_interval(values, seed=6).low != first.low


def test_the_detectable_difference_is_found_in_four_of_five_repetitions() -> None:
    random = np.random.default_rng(8)
    halves = [detectable(mean_interval(random.normal(0, 1, 14), resamples=500, seed=i)) for i in range(100)]
    truth = float(np.mean(halves))
    found = [mean_interval(random.normal(truth, 1, 14), resamples=500, seed=i).p < 0.05 for i in range(500)]
    assert 0.75 <= np.mean(found) <= 0.87
    single = mean_interval(random.normal(0, 1, 30))
    assert detectable(single) < detectable(single, tests=6) < 2 * detectable(single)


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


@pytest.mark.parametrize(("m", "n"), [(3, 12), (12, 12), (5, 80)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_an_area_under_the_curve_is_covered_by_its_interval(m: int, n: int, shift: float) -> None:
    rng, true = np.random.default_rng(0), norm.cdf(shift / math.sqrt(2))
    found = [auc(rng.normal(shift, 1, m), rng.normal(0, 1, n)) for _ in range(400)]
    assert np.mean([area for area, _, _ in found]) == pytest.approx(true, abs=0.02)
    assert np.mean([low <= true <= high for _, low, high in found]) > 0.92


def test_an_area_is_that_of_all_pairs_and_its_limits_mirror() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 2.0, 4.0])
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    area, low, high = auc(a, b)
    assert area == pytest.approx(np.mean(pairs)) and low < area < high
    assert auc(b, a) == pytest.approx((1 - area, 1 - high, 1 - low), abs=1e-6)
    assert auc(a + 9, b)[0] == auc(a + 9, b)[2] == 1 and 0.3 < auc(a + 9, b)[1] < 1

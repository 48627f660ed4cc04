"""Distances, copies and information against their closed forms; held-out data as the control."""

import json
import math

import numpy as np
import pytest

from jdm.errors import DataError
from jdm.evaluation.audit import audit, mutual_information, nearest_pairs, shrink


def _constant(*values: float) -> np.ndarray:
    """Cases (n, 1, 4, 4), each of one value: their distance is the difference of the values."""
    return np.broadcast_to(np.array(values, dtype=float)[:, None, None, None], (len(values), 1, 4, 4))


def test_distance_and_ratio_on_a_line() -> None:
    found = nearest_pairs(_constant(1, 9, 5), _constant(0, 4, 10))
    assert found.index.tolist() == [0, 2, 1]
    assert found.distance == pytest.approx([1, 1, 1])
    assert found.ratio == pytest.approx([1 / 3, 1 / 5, 1 / 5])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_a_turned_and_flipped_copy_is_found_and_told_how(turns: int, flip: bool) -> None:
    training = np.random.default_rng(0).integers(0, 256, (6, 2, 8, 8)).astype(np.uint8)
    source = training[3, ..., ::-1] if flip else training[3]
    copy = np.rot90(source, turns, axes=(1, 2))[None]
    found = nearest_pairs(copy, training)
    assert (found.index[0], found.distance[0], found.ratio[0]) == (3, 0.0, 0.0)
    assert (found.turns[0], bool(found.flipped[0])) == (turns, flip)
    if turns or flip:
        assert nearest_pairs(copy, training, symmetries=False).distance[0] > 10


def test_oblong_images_are_turned_by_half_only() -> None:
    training = np.random.default_rng(1).random((3, 1, 4, 6))
    for copy in (training[..., ::-1], training[..., ::-1, :], training[..., ::-1, ::-1]):
        assert nearest_pairs(copy, training).distance == pytest.approx([0, 0, 0])


def test_distances_equal_a_search_over_everything() -> None:
    random = np.random.default_rng(2)
    synthetic, training = random.random((5, 3, 6, 6)), random.random((7, 3, 6, 6))
    found = nearest_pairs(synthetic, training)
    for sample, index, distance, ratio in zip(synthetic, found.index, found.distance, found.ratio, strict=True):
        per_case = [
            min(
                np.sqrt(np.mean((sample - np.rot90(view, turns, axes=(1, 2))) ** 2))
                for view in (case, case[..., ::-1])
                for turns in range(4)
            )
            for case in training
        ]
        nearest, second = sorted(per_case)[:2]
        assert index == np.argmin(per_case)
        assert (distance, ratio) == pytest.approx((nearest, nearest / second))


def test_brightness_and_contrast_do_not_hide_a_copy_when_standardised() -> None:
    training = np.random.default_rng(3).random((4, 2, 8, 8))
    disguised = 0.3 * training[1:2] + 5
    assert nearest_pairs(disguised, training).distance[0] > 4
    found = nearest_pairs(disguised, training, standardise=True)
    assert found.index[0] == 1
    assert found.distance[0] == pytest.approx(0, abs=1e-12)
    flat = nearest_pairs(_constant(3), _constant(7, 8), standardise=True)
    assert flat.distance.tolist() == [0.0]


def test_shrinking_averages_over_areas_and_keeps_the_mean() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(shrink(image, 2)[0, 0], [[2.5, 4.5], [10.5, 12.5]])
    uneven = np.random.default_rng(4).random((2, 3, 7, 10))
    small = shrink(uneven, 3)
    assert small.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(small.mean((2, 3)), uneven.mean((2, 3)))
    np.testing.assert_allclose(shrink(uneven, 99), uneven)
    noisy = _constant(1, 9) + np.tile([[0.5, -0.5], [-0.5, 0.5]], (2, 2))
    assert nearest_pairs(noisy, _constant(0, 4, 10), size=2).distance == pytest.approx([1, 1])


def test_authentic_share_on_a_line() -> None:
    """Training 0, 1, 10: own neighbours at 1, 1, 9. A sample at 0.4 copies 0; at 3, 2 > 1 from 1, it is new."""
    for synthetic, training, share in (
        ([0.4], [0, 1, 10], 0), ([3], [0, 1, 10], 1), ([15], [0, 1, 10], 0), ([0.4, 3, 15, 25], [0, 1, 10], 0.5),
        ([0.4, 1.6], [0, 2], 0), ([1], [0], math.nan),
    ):  # fmt: skip
        found = audit(_constant(*synthetic), _constant(*training)).synthetic.authentic
        assert found == pytest.approx(share, nan_ok=True)


def test_copies_stand_out_against_held_out_data() -> None:
    random = np.random.default_rng(5)
    training, held_out = random.random((40, 1, 4, 4)), random.random((40, 1, 4, 4))
    copies = np.rot90(training, axes=(2, 3)) + random.normal(0, 1e-3, training.shape)
    found = audit(copies, training, held_out)
    assert (found.synthetic.below_ratio, found.synthetic.authentic, found.synthetic.copies) == (1, 0, 0)
    assert found.held_out is not None and found.held_out.below_ratio == 0 and 0.3 < found.held_out.authentic < 0.7
    exact = audit(training, training)
    assert exact.synthetic.copies == 40 and exact.held_out is None
    assert found.nearest.index.tolist() == list(range(40))
    json.dumps(found.to_dict(), allow_nan=False)
    alone = audit(held_out[:2], training[:1])
    assert math.isnan(alone.synthetic.below_ratio)
    json.dumps(alone.to_dict(), allow_nan=False)


def test_mutual_information_is_its_closed_form() -> None:
    mask = np.zeros((4, 4), int)
    mask[:1] = 1
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert mutual_information(mask, mask) == pytest.approx(entropy)
    assert mutual_information(mask, 255 * (1 - mask)) == pytest.approx(entropy)  # names of labels do not matter
    assert mutual_information(mask, mask.T) == pytest.approx(0)  # independent
    assert mutual_information(mask, np.zeros_like(mask)) == 0
    four = np.arange(16).reshape(4, 4) // 4
    assert mutual_information(four, four // 2) == pytest.approx(math.log(2))
    assert mutual_information(four, four) == pytest.approx(math.log(4))


def test_masks_are_compared_with_those_of_the_nearest_turned_case() -> None:
    random = np.random.default_rng(8)
    masks = (random.random((3, 1, 4, 4)) < [[[[0.5]]], [[[0.3]]], [[[0.7]]]]).astype(float)
    training = np.concatenate([random.random((3, 1, 4, 4)), masks], axis=1)
    turned = np.rot90(training[..., ::-1], axes=(2, 3))
    found = audit(turned, training, mask_channels=1).synthetic
    assert found.copies == 3
    own = [mutual_information(mask, mask) for mask in masks]  # the entropy of each
    assert found.mask_information == pytest.approx(np.mean(own))
    two = np.concatenate([training, 1 - masks], axis=1)  # a second channel that says the same
    assert audit(two, two, mask_channels=2).synthetic.mask_information == pytest.approx(np.mean(own))
    assert audit(turned, training).to_dict()["synthetic"]["mask_information"] is None


def test_what_cannot_be_compared_is_refused() -> None:
    for synthetic, training, named in (
        (np.zeros((1, 1, 4, 4)), np.zeros((1, 2, 4, 4)), "same channels and size"),
        (np.zeros((0, 1, 4, 4)), np.zeros((1, 1, 4, 4)), "at least one case"),
        (np.full((1, 1, 4, 4), np.nan), np.zeros((1, 1, 4, 4)), "NaN"),
    ):
        with pytest.raises(DataError, match=named):
            nearest_pairs(synthetic, training)
    with pytest.raises(DataError, match="expected the same"):
        mutual_information(np.zeros((2, 2)), np.zeros((2, 3)))

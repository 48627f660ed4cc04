"""Specks are taken for what is around them; other regions keep every pixel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdm.data.regions import region_sizes, without_specks


def test_specks_of_any_value_take_that_of_the_nearest_region() -> None:
    label = np.zeros((12, 12), np.uint8)
    label[2:8, 2:8] = 1
    label[4, 4] = label[10, 10] = 2  # a speck in an object, and one in the background
    label[5:7, 6] = 0  # a hole
    cleaned = np.zeros((12, 12), np.uint8)
    cleaned[2:8, 2:8] = 1
    np.testing.assert_array_equal(without_specks(label, 3), cleaned)
    np.testing.assert_array_equal(without_specks(label, 1), label)
    assert sorted(region_sizes(label)) == [1, 1, 2, 33, 107]


@given(st.integers(0, 2**31), st.integers(0, 9), st.sampled_from([(9, 14), (5, 6, 7)]))
def test_large_regions_keep_their_pixels_and_no_value_is_new(seed, least, shape) -> None:
    label = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    cleaned = without_specks(label, least)
    assert cleaned.shape == shape and cleaned.dtype == label.dtype
    assert set(np.unique(cleaned)) <= set(np.unique(label))
    if least <= 1:
        np.testing.assert_array_equal(cleaned, label)
    kept = sum(size for size in region_sizes(label).tolist() if size >= least)
    assert np.count_nonzero(cleaned == label) >= kept


def test_a_label_of_specks_alone_is_left_as_it_is() -> None:
    board = (np.indices((6, 6)).sum(0) % 2).astype(np.uint8)
    np.testing.assert_array_equal(without_specks(board, 5), board)

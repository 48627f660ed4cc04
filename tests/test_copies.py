"""Copies are found whatever their offset, turn, light or noise; other images are not taken for copies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from jdm.evaluation.audit import COPY_RATIO, transformed
from jdm.evaluation.copies import Search


def textures(count: int, side: int, seed: int, channels: int = 3) -> list[np.ndarray]:
    """Smooth random images (channels, side, side), values of order 100."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, channels, side, side))
    return list(100 + 100 * ndimage.gaussian_filter(noise, (0, 0, 4, 4), mode="wrap") / 0.07)


TRAINING = textures(6, 160, seed=0)
AREAS = Search(TRAINING, [f"case {n}" for n in range(6)], [(64, 64)])


def altered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same picture in another light, with noise of a tenth of its contrast."""
    gain, offset = rng.uniform(0.6, 1.5, (3, 1, 1)), rng.uniform(-50, 50, (3, 1, 1))
    return gain * image + offset + 0.1 * image.std() * rng.normal(size=image.shape)


@given(st.integers(0, 5), st.integers(0, 96), st.integers(0, 96), st.integers(0, 7), st.integers(0, 2**31))
def test_areas_of_training_images_are_found_wherever_they_lie(case, row, column, symmetry, seed):
    area = TRAINING[case][:, row : row + 64, column : column + 64]
    found = AREAS.nearest([altered(transformed(area, symmetry), np.random.default_rng(seed))])
    assert not AREAS.whole
    assert found.ratio[0] < COPY_RATIO
    assert found.index[0] == case and found.symmetry[0] == symmetry
    assert np.abs(found.start[0] - [row, column]).max() <= AREAS.factor


def test_other_images_are_not_taken_for_copies():
    others = [image[:, :64, :64] for image in textures(40, 96, seed=1)]
    assert (AREAS.nearest(others).ratio > 0.7).all()


@pytest.mark.parametrize("symmetry", range(8))
def test_whole_images_are_compared_as_wholes(symmetry):
    search = Search(TRAINING, list("abcdef"), [(160, 160), (150, 160)])
    rng = np.random.default_rng(symmetry)
    found = search.nearest([altered(transformed(image, symmetry), rng) for image in TRAINING])
    assert search.whole
    np.testing.assert_array_equal(found.index, range(6))
    np.testing.assert_array_equal(found.symmetry, symmetry)
    assert (found.ratio < COPY_RATIO).all()
    assert (search.nearest(textures(20, 160, seed=2)).ratio > 0.7).all()


def test_distances_are_those_of_standardised_images():
    """By brute force, on whole images without reduction."""
    training, samples = (textures(4, 32, seed=seed, channels=1) for seed in (3, 4))
    found = Search(training, list("abcd"), [(32, 32)]).nearest(samples)

    def standardised(image: np.ndarray) -> np.ndarray:
        return (image - image.mean()) / np.linalg.norm(image - image.mean())

    for n, sample in enumerate(samples):
        distances = [
            min(np.linalg.norm(standardised(sample) - standardised(transformed(image, k))) for k in range(8))
            for image in training
        ]
        assert found.distance[n] == pytest.approx(min(distances), abs=1e-3)
        assert found.second[n] == pytest.approx(sorted(distances)[1], abs=1e-3)


def test_the_second_nearest_is_of_another_group_and_without_one_there_is_no_ratio():
    twins = [TRAINING[0], TRAINING[0] + 1, TRAINING[1]]
    sample = [altered(TRAINING[0], np.random.default_rng(0))]
    assert Search(twins, ["a", "a", "b"], [(160, 160)]).nearest(sample).ratio[0] < COPY_RATIO
    assert np.isnan(Search(twins, ["a", "a", "a"], [(160, 160)]).nearest(sample).ratio[0])


def test_own_neighbours_leave_out_the_own_group():
    search = Search([TRAINING[0], TRAINING[0], TRAINING[1]], ["a", "a", "b"], [(160, 160)])
    own = search.own([TRAINING[0], TRAINING[0], TRAINING[1]])
    assert own.index[0] == own.index[1] == 2 and own.index[2] in (0, 1)


def test_images_smaller_than_the_samples_can_be_searched():
    search = Search([*TRAINING, TRAINING[0][:, :40, :100]], [*"abcdefg"], [(64, 64)])
    assert search.nearest([TRAINING[2][:, 10:74, 20:84]]).index[0] == 2

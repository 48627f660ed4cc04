"""Copies are found whatever their offset, turn, light or noise; other images are not taken for copies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from jdm.errors import DataError
from jdm.evaluation.audit import COPY_RATIO, transformed
from jdm.evaluation.copies import UNRELATED, Scale, Search


def textures(count: int, side: int, seed: int, channels: int = 3) -> list[np.ndarray]:
    """Smooth random images (channels, side, side), values of order 100."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, channels, side, side))
    return list(100 + 100 * ndimage.gaussian_filter(noise, (0, 0, 4, 4), mode="wrap") / 0.07)


TRAINING = textures(6, 160, seed=0)


def search_of(images, groups, shape=(160, 160)) -> Search:
    search = Search(Scale.of([image.shape[1:] for image in images], [shape]))
    for image, group in zip(images, groups, strict=True):
        search.add(image, group)
    search.compare([search.scale.image(image) for image in images])
    return search


def nearest(search: Search, images):
    return search.nearest([search.scale.image(image) for image in images])


AREAS = search_of(TRAINING, [f"case {n}" for n in range(6)], (64, 64))


def altered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same picture in another light, with noise of a tenth of its contrast."""
    gain, offset = rng.uniform(0.6, 1.5, (3, 1, 1)), rng.uniform(-50, 50, (3, 1, 1))
    return gain * image + offset + 0.1 * image.std() * rng.normal(size=image.shape)


@given(st.integers(0, 5), st.integers(0, 96), st.integers(0, 96), st.integers(0, 7), st.integers(0, 2**31))
def test_areas_of_training_images_are_found_wherever_they_lie(case, row, column, symmetry, seed):
    area = TRAINING[case][:, row : row + 64, column : column + 64]
    found = nearest(AREAS, [altered(transformed(area, symmetry), np.random.default_rng(seed))])
    assert not AREAS.scale.whole
    assert found.ratio[0] < COPY_RATIO
    assert found.index[0] == case and found.symmetry[0] == symmetry
    assert np.abs(found.start[0] - [row, column]).max() <= AREAS.scale.factor


def test_other_images_are_not_taken_for_copies():
    others = [image[:, :64, :64] for image in textures(40, 96, seed=1)]
    assert (nearest(AREAS, others).ratio > 0.7).all()


@pytest.mark.parametrize("symmetry", range(8))
def test_whole_images_are_compared_as_wholes(symmetry):
    search = search_of(TRAINING, "abcdef", (150, 160))
    rng = np.random.default_rng(symmetry)
    found = nearest(search, [altered(transformed(image, symmetry), rng) for image in TRAINING])
    assert search.scale.whole
    np.testing.assert_array_equal(found.index, range(6))
    np.testing.assert_array_equal(found.symmetry, symmetry)
    assert (found.ratio < COPY_RATIO).all()
    assert (nearest(search, textures(20, 160, seed=2)).ratio > 0.7).all()


def test_distances_are_those_of_standardised_images():
    """By brute force, on whole images without reduction."""
    training, samples = (textures(4, 32, seed=seed, channels=1) for seed in (3, 4))
    found = nearest(search_of(training, "abcd", (32, 32)), samples)

    def standardised(image: np.ndarray) -> np.ndarray:
        return (image - image.mean()) / np.linalg.norm(image - image.mean())

    for n, sample in enumerate(samples):
        distances = [
            min(np.linalg.norm(standardised(sample) - standardised(transformed(image, k))) for k in range(8))
            for image in training
        ]
        assert found.distance[n] == pytest.approx(min(distances), abs=1e-3)
        assert found.second[n] == pytest.approx(sorted(distances)[1], abs=1e-3)


def test_the_second_nearest_is_of_another_group_and_without_one_it_is_unrelated():
    images = [TRAINING[0], TRAINING[0] + 1, TRAINING[1]]
    sample = [altered(TRAINING[0], np.random.default_rng(0))]
    assert nearest(search_of(images, "aab"), sample).ratio[0] < COPY_RATIO
    alone = nearest(search_of(images, "aaa"), sample)
    assert alone.second[0] == UNRELATED and alone.ratio[0] < COPY_RATIO


@pytest.mark.parametrize("shape", [(160, 160), (64, 64)])
def test_near_duplicates_among_the_training_images_hide_no_copy(shape):
    rng = np.random.default_rng(0)
    images = [*TRAINING[:4], altered(TRAINING[0], rng), altered(TRAINING[0], rng)]  # three groups with one picture
    search = search_of(images, "abcdef", shape)
    found = nearest(search, [altered(image[:, : shape[0], : shape[1]], rng) for image in images])
    assert (found.ratio < COPY_RATIO).all()
    new = nearest(search, [image[:, : shape[0], : shape[1]] for image in textures(20, 160, seed=2)])
    assert (new.ratio > 0.6).all()


def test_of_many_images_only_the_likely_ones_are_searched_closely_and_copies_are_still_found():
    training = textures(40, 128, seed=7)
    search, rng = search_of(training, [f"case {n}" for n in range(40)], (48, 48)), np.random.default_rng(0)
    starts = rng.integers(0, 81, (40, 2))
    areas = [image[:, r : r + 48, c : c + 48] for image, (r, c) in zip(training, starts, strict=True)]
    found = nearest(search, [altered(transformed(area, n % 8), rng) for n, area in enumerate(areas)])
    np.testing.assert_array_equal(found.index, range(40))
    assert (found.ratio < COPY_RATIO).all()


def test_distances_between_training_images_leave_out_the_own_group():
    search = Search(Scale(True, 1))
    for image, group in zip((TRAINING[0], TRAINING[0], TRAINING[1]), "aab", strict=True):
        search.add(image, group)
    own = search.compare([search.scale.image(image) for image in (TRAINING[0], TRAINING[0], TRAINING[1])])
    assert own[0] == own[1] == pytest.approx(own[2], abs=1e-4) and own[0] > 0.7


def test_images_smaller_than_the_samples_can_be_searched():
    search = search_of([*TRAINING, TRAINING[0][:, :40, :100]], "abcdefg", (64, 64))
    assert nearest(search, [TRAINING[2][:, 10:74, 20:84]]).index[0] == 2


def test_a_search_without_images_is_refused():
    with pytest.raises(DataError, match="no training images"):
        Search(Scale(True, 1)).nearest([TRAINING[0]])

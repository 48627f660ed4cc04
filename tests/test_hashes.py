"""Perceptual hashes: what they survive, and that unrelated images are far apart."""

import numpy as np
import pytest
from test_copies import textures

from jdm.evaluation.hashes import nearest_bits, perceptual_hash


@pytest.fixture
def greys():
    return [image.mean(0) for image in textures(40, 64, seed=0)]


def test_a_hash_survives_brightness_contrast_blur_and_turns(greys):
    rng = np.random.default_rng(0)
    changed = [np.rot90(0.6 * image + 30 + rng.normal(0, 2, image.shape), 3)[:, ::-1] for image in greys]
    assert nearest_bits(greys, greys).max() == 0
    assert np.median(nearest_bits(changed, greys)) <= 4
    assert nearest_bits(changed[:20], greys[20:]).min() > 8


def test_a_hash_has_as_many_bits_of_either_sign_and_those_of_noise_differ_by_chance():
    rng = np.random.default_rng(0)
    hashes = np.stack([perceptual_hash(rng.normal(size=(64, 64))) for _ in range(200)])
    assert set(hashes.sum(1)) == {0}
    bits = (64 - hashes[:100] @ hashes[100:].T) / 2
    assert bits.mean() == pytest.approx(32, abs=0.2)

"""Facts measured before training."""

import numpy as np
import pytest

from jdm.train.measures import window_spread


def test_means_of_patches_lie_apart_by_their_standard_deviation_within_images():
    rng = np.random.default_rng(0)
    images = []
    for level in rng.normal(0, 100, 200):  # how far images lie apart does not count
        means = level + rng.normal(0, 3, (2, 3, 3))
        images.append(np.kron(means, np.ones((8, 8))))
    assert window_spread(images, (8, 8)) == pytest.approx(3, rel=0.05)


def test_images_of_one_patch_or_smaller_have_no_spread():
    assert window_spread([np.ones((1, 8, 8)), np.ones((1, 8, 5)), np.ones((1, 3, 20)), np.ones((1, 8, 8))], (8, 8)) == 0
    assert window_spread([np.ones((1, 5, 8))], (8, 8)) == 0

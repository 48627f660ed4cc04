"""The mask's last estimate: the conditional mean given the image, where it is known in closed form."""

import pytest
import torch
from closed_forms import normal, normal_pairs

from jdm.diffusion.mask_estimate import estimated_mask

IMAGE, MASK, BOTH = 0.25, 0.09, 0.1  # variances and covariance of an image and a mask entry
JOINT = normal_pairs(IMAGE, MASK, BOTH)


@pytest.mark.parametrize("level", [0.1, 1.0, 30.0])
def test_the_mask_becomes_its_mean_given_the_image_and_its_noisy_self(level):
    x, noise = 0.3 * normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1)
    found = estimated_mask(JOINT, x, 1, level, noise)
    assert torch.equal(found[:, :1], x[:, :1])
    image, seen = x[:, 0].clamp(-1, 1), x[:, 1] + level * noise[:, 1]
    prior, spread = BOTH / IMAGE * image, MASK - BOTH**2 / IMAGE  # of the mask given the image
    expected = prior + spread / (spread + level**2) * (seen - prior)
    torch.testing.assert_close(found[:, 1], expected)


def test_a_high_level_forgets_the_sampled_mask_and_a_low_one_keeps_it():
    x, noise = 0.3 * normal(1, 2, 8, 8), normal(1, 2, 8, 8, seed=1)
    other = torch.cat([x[:, :1], -x[:, 1:]], 1)
    kept, forgotten = ([estimated_mask(JOINT, y, 1, s, noise) for y in (x, other)] for s in (1e-4, 1e4))
    torch.testing.assert_close(forgotten[0], forgotten[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(kept[0], x, atol=1e-3, rtol=0)
    assert not torch.allclose(kept[0], kept[1], atol=0.1)

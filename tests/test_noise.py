"""Noise levels of the default preset, against closed forms."""

import math

import torch

from jdm.config.settings import NoiseConfig
from jdm.diffusion.noise import draw_sigmas, level_positions, per_channel


def test_level_positions_are_finite_ordered_and_tell_known_from_the_least_noise():
    noise = NoiseConfig()
    sigma = torch.tensor([0.0, noise.sigma_min, 0.5, noise.sigma_max])
    positions = level_positions(sigma)
    assert positions.isfinite().all() and (positions.diff() > 10).all()
    torch.testing.assert_close(positions[2], torch.tensor(25 * math.log(0.5)))


def test_levels_of_training_have_the_mixture_asked_for():
    noise = NoiseConfig(equal=0.4, independent=0.3, known_mask=0.2, known_image=0.1, log_mean=-0.7, log_std=1.5)
    count = 40_000
    sigma = draw_sigmas(noise, count, torch.Generator().manual_seed(0))
    image, mask = sigma.T
    equal, no_mask, no_image = image == mask, mask == 0, image == 0
    rest = ~(equal | no_mask | no_image)
    for found, share in ((equal, 0.4), (rest, 0.3), (no_mask, 0.2), (no_image, 0.1)):
        std = math.sqrt(share * (1 - share) / count)
        assert abs(found.float().mean() - share) < 4 * std
    assert not (no_mask & no_image).any()
    for level in (image[~no_image], mask[~no_mask]):
        assert abs(level.log().mean() + 0.7) < 4 * 1.5 / math.sqrt(len(level))
        assert abs(level.log().std() - 1.5) < 0.03
    logs = sigma[rest].log()
    assert abs(torch.corrcoef(logs.T)[0, 1]) < 0.04  # independent


def test_levels_repeat_with_the_generator_and_single_kinds_are_pure():
    draws = [draw_sigmas(NoiseConfig(), 64, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)
    pure = NoiseConfig(equal=0.0, independent=0.0, known_mask=1.0, known_image=0.0)
    sigma = draw_sigmas(pure, 64, torch.Generator().manual_seed(5))
    assert (sigma[:, 1] == 0).all() and (sigma[:, 0] > 0).all()


def test_per_channel_spreads_two_levels():
    x = torch.zeros(2, 5, 1, 1, 1)
    spread = per_channel(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 3, x)
    assert spread.shape == (2, 5, 1, 1, 1)
    assert spread.flatten(1).tolist() == [[1, 1, 1, 2, 2], [3, 3, 3, 4, 4]]

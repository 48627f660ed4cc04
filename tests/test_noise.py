"""Noise levels and preconditioning of the default preset, against closed forms."""

import math

import pytest
import torch
from closed_forms import normal
from torch import nn

from jdm.config.settings import NoiseConfig
from jdm.diffusion.noise import Denoiser, draw_sigmas, level_positions, per_channel


class Recorder(nn.Module):
    """A network that notes what it is given and answers with ones."""

    def forward(self, x, levels, condition):
        self.x, self.levels, self.condition = x, levels, condition
        return torch.ones_like(x)


def test_preconditioning_is_karras_table_1_per_group():
    """The input has unit variance; the output of the network, here ones, is scaled and added to a share of x."""
    denoiser = Denoiser(Recorder(), 1, (0.5, 0.25))
    x, sigma = normal(2, 3, 4, 5, seed=0), torch.tensor([[2.0, 0.1], [0.03, 40.0]])
    out = denoiser(x, sigma)
    assert out.dtype == torch.float64 and denoiser.network.x.dtype == torch.float32
    for b in range(2):
        for c in range(3):
            s, sd = (sigma[b, 0].item(), 0.5) if c == 0 else (sigma[b, 1].item(), 0.25)
            expected = sd**2 / (s**2 + sd**2) * x[b, c] + s * sd / math.sqrt(s**2 + sd**2)
            torch.testing.assert_close(out[b, c], expected, rtol=1e-5, atol=1e-6)
            scaled = (x[b, c] / math.sqrt(s**2 + sd**2)).float()
            torch.testing.assert_close(denoiser.network.x[b, c], scaled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spatial", [(6, 5), (2, 3, 4)])
def test_a_known_side_comes_back_unchanged(spatial):
    denoiser = Denoiser(Recorder(), 2, (0.4, 0.5))
    x = normal(2, 5, *spatial, seed=0).float()
    out = denoiser(x, torch.tensor([[0.0, 3.0], [3.0, 0.0]]))
    assert torch.equal(out[0, :2], x[0, :2]) and torch.equal(out[1, 2:], x[1, 2:])
    assert not torch.allclose(out[0, 2:], x[0, 2:]) and not torch.allclose(out[1, :2], x[1, :2])


def test_the_network_works_on_what_departs_from_the_mean():
    mean = (0.6, -0.4, 0.2)
    network = Recorder()
    about_zero, about_mean = Denoiser(network, 1, (0.5, 0.25)), Denoiser(network, 1, (0.5, 0.25), mean)
    x, sigma = normal(2, 3, 4, 5, seed=0), torch.tensor([[2.0, 0.1], [0.03, 40.0]])
    shift = torch.tensor(mean, dtype=torch.float64).reshape(1, 3, 1, 1)
    expected = about_zero(x, sigma) + shift
    seen = network.x
    torch.testing.assert_close(about_mean(x + shift, sigma), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.x, seen, rtol=1e-5, atol=1e-6)
    known = about_mean(x, torch.tensor([[0.0, 3.0], [3.0, 0.0]]))
    assert torch.equal(known[0, :1], x[0, :1]) and torch.equal(known[1, 1:], x[1, 1:])


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

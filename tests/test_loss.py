"""The denoising loss as a law: one for a network that says nothing, at every level and for both groups."""

import math

import pytest
import torch
from torch import nn

from jdm.diffusion.loss import denoising_loss
from jdm.diffusion.noise import Denoiser


class Zero(nn.Module):
    def forward(self, x, levels, condition):
        return torch.zeros_like(x)


SIGMA_DATA = (0.4, 0.5)


def data(seed: int = 0, count: int = 8) -> torch.Tensor:
    """Image channels of root mean square 0.4, and mask channels of +-0.5: (count, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.4 * torch.randn((count, 2, 64, 64), generator=generator)
    mask = 0.5 * torch.randn((count, 1, 64, 64), generator=generator).sign()
    return torch.cat([image, mask], dim=1)


@pytest.mark.parametrize("image_level", [0.01, 0.1, 0.5, 1.0, 5.0, 80.0])
@pytest.mark.parametrize("mask_level", [0.01, 0.7, 80.0])
def test_a_zero_network_has_unit_loss_at_every_level(image_level, mask_level):
    x0 = data()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([[image_level, mask_level]]).expand(len(x0), 2)
    loss = denoising_loss(Denoiser(Zero(), 2, SIGMA_DATA), x0, sigma, noise, 2, SIGMA_DATA)
    assert loss.shape == x0.shape
    assert loss[:, :2].mean().item() == pytest.approx(1, abs=0.02)
    assert loss[:, 2:].mean().item() == pytest.approx(1, abs=0.02)


def test_unit_loss_is_about_the_mean_of_the_data():
    """Small structures: mask channels of 5 % foreground, with their own mean and standard deviation."""
    generator = torch.Generator().manual_seed(4)
    foreground = torch.rand((8, 1, 64, 64), generator=generator) < 0.05
    x0 = torch.cat([0.4 * torch.randn((8, 1, 64, 64), generator=generator) + 0.3, foreground.float() - 0.5], dim=1)
    sigma_data, mean = (0.4, math.sqrt(0.05 * 0.95)), (0.3, -0.45)
    noise = torch.randn(x0.shape, generator=generator)
    for level in (0.02, 0.5, 20.0):
        sigma = torch.full((8, 2), level)
        loss = denoising_loss(Denoiser(Zero(), 1, sigma_data, mean), x0, sigma, noise, 1, sigma_data)
        assert loss.mean(dim=(0, 2, 3)).tolist() == pytest.approx([1, 1], abs=0.05)


def test_a_known_side_reaches_the_network_clean_and_weighs_nothing():
    x0 = data(count=2)
    noise = torch.randn_like(x0)
    seen = {}

    def denoise(x, sigma):
        seen["x"] = x
        return torch.full_like(x, 9.0)

    loss = denoising_loss(denoise, x0, torch.tensor([[0.0, 2.0], [2.0, 0.0]]), noise, 2, SIGMA_DATA)
    assert torch.equal(seen["x"][0, :2], x0[0, :2]) and torch.equal(seen["x"][1, 2:], x0[1, 2:])
    assert (loss[0, :2] == 0).all() and (loss[1, 2:] == 0).all()
    assert (loss[0, 2:] > 0).all() and (loss[1, :2] > 0).all()


def test_the_loss_of_a_stated_error_is_its_weighted_square():
    x0 = data(count=1)
    sigma = torch.tensor([[0.3, 2.0]])
    loss = denoising_loss(lambda x, s: x0 + 0.1, x0, sigma, torch.zeros_like(x0), 2, SIGMA_DATA)
    for channel, (s, sd) in enumerate([(0.3, 0.4), (0.3, 0.4), (2.0, 0.5)]):
        expected = (s**2 + sd**2) / (s * sd) ** 2 * 0.01
        torch.testing.assert_close(loss[0, channel], torch.full((64, 64), expected), rtol=1e-4, atol=0)


def test_gradients_are_finite_when_one_side_is_known():
    x0 = data(count=2)
    shift = torch.zeros((), requires_grad=True)
    sigma = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    denoising_loss(lambda x, s: x + shift, x0, sigma, torch.randn_like(x0), 2, SIGMA_DATA).mean().backward()
    assert shift.grad is not None and shift.grad.isfinite()

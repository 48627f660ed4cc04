"""The denoising losses as laws: about one for a network that says nothing, and those of stated errors."""

import math

import pytest
import torch
from torch import nn

from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.haar import haar, inverse_haar
from jdm.diffusion.loss import denoising_losses

WORDS = torch.tensor([[-0.5], [0.5]])
SHARES = (0.9, 0.1)
BANDS = (1.2, *(0.3,) * 3, *(0.1,) * 12)
"""Standard deviations of the two-level bands of `data`."""


class Fixed(nn.Module):
    """A network that answers with one value for the image, and one for the logit of the second class."""

    def __init__(self, image: float = 0.0, logit: float = 0.0) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor([image, 0.0, logit]))

    def forward(self, x, levels, condition):
        per_band = self.values.repeat_interleave(x.shape[1] // 2).reshape(1, -1, 1, 1)
        return per_band.expand(len(x), -1, *x.shape[2:])


def denoiser_of(network: nn.Module, haar_levels: int) -> Denoiser:
    return Denoiser(network, (0.3,), ((1.0,),), (BANDS,), WORDS, SHARES, haar_levels)


def data(count: int = 64) -> torch.Tensor:
    """An image with bands of the deviations BANDS about 0.3, and a mask of the stated shares: (count, 2, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    bands = torch.tensor(BANDS).reshape(1, 16, 1, 1) * torch.randn((count, 16, 8, 8), generator=generator)
    foreground = torch.rand((count, 1, 32, 32), generator=generator) < SHARES[1]
    return torch.cat([inverse_haar(bands, 2) + 0.3, foreground.float() - 0.5], dim=1)


def losses(denoiser: Denoiser, x0: torch.Tensor, image_level: float, mask_level: float) -> torch.Tensor:
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([[image_level, mask_level]]).expand(len(x0), 2)
    return denoising_losses(denoiser, x0, sigma, noise)


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5, 1.0, 5.0, 80.0])
@pytest.mark.parametrize("haar_levels", [0, 1, 2])
def test_a_zero_network_has_unit_image_loss_at_every_level(level, haar_levels):
    found = losses(denoiser_of(Fixed(), haar_levels), data(), level, 80.0)
    assert found.shape == (64, 2)
    assert found[:, 0].mean().item() == pytest.approx(1, abs=0.03)


def test_the_mask_loss_of_a_zero_network_is_one_where_noise_hides_the_mask_and_falls_to_zero():
    levels, denoiser = (80.0, 1.0, 0.2, 0.02), denoiser_of(Fixed(), 0)
    means = [losses(denoiser, data(), 1.0, level)[:, 1].mean().item() for level in levels]
    assert means[0] == pytest.approx(1, abs=0.03)
    assert means == sorted(means, reverse=True) and means[-1] < 1e-6


def test_the_mask_loss_of_a_stated_logit_is_its_cross_entropy():
    found = losses(denoiser_of(Fixed(logit=2.0), 0), data(), 1.0, 1e4)[:, 1].mean().item()
    odds = SHARES[1] / SHARES[0] * math.exp(2.0)
    p = odds / (1 + odds)
    entropy = -sum(share * math.log(share) for share in SHARES)
    expected = -(SHARES[0] * math.log(1 - p) + SHARES[1] * math.log(p)) / entropy
    assert found == pytest.approx(expected, rel=0.02)


def test_the_image_loss_of_a_stated_output_is_its_squared_distance_from_the_target():
    """Karras et al. 2022, Eq. 8: the loss is that of the network's output against (x0 - c_skip x) / c_out."""
    x0, level = data(4), 0.3
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    sigma = torch.full((4, 2), level)
    found = denoising_losses(denoiser_of(Fixed(image=0.5), 2), x0, sigma, noise)[:, 0]
    clean, noisy = haar(x0[:, :1] - 0.3, 2), haar(x0[:, :1] + level * noise[:, :1] - 0.3, 2)
    sd = torch.tensor(BANDS).reshape(1, 16, 1, 1)
    c_skip, c_out = sd**2 / (level**2 + sd**2), level * sd / (level**2 + sd**2).sqrt()
    expected = (0.5 - (clean - c_skip * noisy) / c_out).square().mean((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_known_side_has_no_loss_and_gradients_are_finite():
    network = Fixed(0.5, 0.5)
    x0 = data(2)
    sigma = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    found = denoising_losses(denoiser_of(network, 1), x0, sigma, torch.randn_like(x0))
    assert found[0, 0] == 0 and found[1, 1] == 0 and (found[0, 1] > 0) and (found[1, 0] > 0)
    found.mean().backward()
    assert network.values.grad is not None and network.values.grad.isfinite().all()

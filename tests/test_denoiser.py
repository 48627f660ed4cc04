"""The default preset's denoiser, against closed forms."""

import itertools
import math

import pytest
import torch
from closed_forms import normal
from torch import nn

from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.haar import MOST_LEVELS, band_stds, haar, inverse_haar

MEAN = (0.3, -0.2)
AXES = ((0.8, 0.6), (0.6, -0.8))
SHARES = (0.7, 0.2, 0.1)
WORDS = 0.5 * (2 * torch.eye(3) - 1)


class Constant(nn.Module):
    """A network that notes what it is given and answers with one value; outputs for 2 image channels and 3 classes."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, x, levels, condition):
        self.x, self.levels, self.condition = x, levels, condition
        return x.new_full((len(x), x.shape[1], *x.shape[2:]), self.value)


def denoiser_of(network: nn.Module, bands=(0.4,) * 16, haar_levels: int = 0) -> Denoiser:
    return Denoiser(network, MEAN, AXES, (bands, bands[::-1]), WORDS, SHARES, haar_levels)


def pixel_mean(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(MEAN, dtype=x.dtype).reshape(1, 2, *[1] * (x.ndim - 2))


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 1, 8, 4, 16)])
@pytest.mark.parametrize("levels", range(MOST_LEVELS + 1))
def test_haar_is_an_orthonormal_change_of_basis(shape, levels):
    x, axes = normal(*shape, seed=0), len(shape) - 2
    bands = haar(x, levels)
    assert bands.shape == (2, shape[1] * 2 ** (levels * axes), *(side >> levels for side in shape[2:]))
    torch.testing.assert_close(inverse_haar(bands, levels), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(bands.square().sum(), x.square().sum(), rtol=1e-12, atol=0)
    blocks = x
    for axis in range(axes):
        blocks = blocks.unflatten(2 + 2 * axis, (-1, 2**levels))
    mean = blocks.mean([3 + 2 * axis for axis in range(axes)])
    torch.testing.assert_close(bands[:, :: 2 ** (levels * axes)], mean * 2 ** (levels * axes / 2))
    if levels == 2:
        twice = haar(haar(x, 1), 1)  # the same bands, in another order
        sorted_bands = [b.unflatten(1, (shape[1], -1)).sort(2).values for b in (bands, twice)]
        torch.testing.assert_close(*sorted_bands)


def test_deviations_of_coarser_bands_follow_from_the_finest():
    x = normal(40, 1, 16, 16, seed=0).cumsum(3).cumsum(2)
    stds = {levels: haar(x, levels).square().mean((0, 2, 3)).sqrt() for levels in range(3)}
    for levels in range(3):
        assert band_stds(stds[2].tolist(), levels, axes=2) == pytest.approx(stds[levels].tolist(), rel=1e-6)


@pytest.mark.parametrize("haar_levels", [0, 1, 2])
def test_the_image_is_preconditioned_by_karras_table_1_in_each_band_of_each_axis(haar_levels):
    finest = tuple(0.1 * (k + 1) for k in range(16))
    denoiser = denoiser_of(Constant(1.0), finest, haar_levels)
    x, sigma = normal(2, 5, 8, 4, seed=0), torch.tensor([[2.0, 0.1], [0.03, 40.0]])
    image = denoiser(x, sigma)[:, :2]
    assert image.dtype == torch.float64 and denoiser.network.x.dtype == torch.float32
    stds = [*band_stds(finest, haar_levels, axes=2), *band_stds(finest[::-1], haar_levels, axes=2)]
    turned = [torch.einsum("ac,bchw->bahw", torch.tensor(AXES).double(), y - pixel_mean(x)) for y in (x[:, :2], image)]
    bands, made = (haar(y, haar_levels) for y in turned)
    for b, c in itertools.product(range(2), range(bands.shape[1])):
        s, sd = sigma[b, 0].item(), stds[c]
        expected = sd**2 / (s**2 + sd**2) * bands[b, c] + s * sd / math.sqrt(s**2 + sd**2)
        torch.testing.assert_close(made[b, c], expected, rtol=1e-5, atol=1e-6)
        scaled = (bands[b, c] / math.sqrt(s**2 + sd**2)).float()
        torch.testing.assert_close(denoiser.network.x[b, c], scaled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", [0.05, 0.5, 3.0, 80.0])
def test_without_context_the_mask_is_the_posterior_mean_of_each_pixel(level):
    """A network of zeros adds nothing to the shares, so Bayes' rule with Gaussian noise gives the mean code word."""
    x = level * normal(1, 5, 4, 4, seed=1) + 0.5
    made = denoiser_of(Constant())(x, torch.tensor([[1.0, level]]))[:, 2:]
    for i, j in itertools.product(range(4), range(4)):
        pixel = x[0, 2:, i, j]
        likely = torch.tensor(SHARES).double() * torch.exp(-(pixel - WORDS).square().sum(1) / (2 * level**2))
        expected = (likely / likely.sum()) @ WORDS.double()
        torch.testing.assert_close(made[0, :, i, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("haar_levels", [0, 1])
@pytest.mark.parametrize("spatial", [(6, 4), (2, 4, 4)])
def test_a_known_side_comes_back_unchanged(spatial, haar_levels):
    denoiser = denoiser_of(Constant(1.0), (0.4,) * 4 ** len(spatial), haar_levels)
    x = normal(2, 5, *spatial, seed=0).float()
    out = denoiser(x, torch.tensor([[0.0, 3.0], [3.0, 0.0]]))
    assert torch.equal(out[0, :2], x[0, :2]) and torch.equal(out[1, 2:], x[1, 2:])
    assert not torch.allclose(out[0, 2:], x[0, 2:]) and not torch.allclose(out[1, :2], x[1, :2])


def test_a_known_mask_reaches_the_network_clean_and_centred():
    denoiser = denoiser_of(Constant())
    x = torch.cat([normal(1, 2, 4, 4, seed=0), WORDS[1].double().reshape(1, 3, 1, 1).expand(1, 3, 4, 4)], dim=1)
    denoiser(x, torch.tensor([[1.0, 0.0]]))
    mean, std = denoiser.mask_moments
    torch.testing.assert_close(mean, torch.tensor(SHARES).double() @ WORDS.double(), rtol=1e-6, atol=1e-6)
    expected = ((WORDS[1] - mean) / std).float()
    torch.testing.assert_close(denoiser.network.x[0, 2:, 1, 2], expected, rtol=1e-5, atol=1e-6)

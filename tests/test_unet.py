"""The network: its size, what it hears, and its faster parts against plain ones."""

import itertools
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from closed_forms import normal
from torch import nn

from jdm.config.levels import even_levels
from jdm.config.settings import NetworkConfig
from jdm.diffusion.normalization import norm_silu
from jdm.diffusion.unet import SelfAttention, UNet, Upsample, sinusoids
from jdm.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)
SMALL = NetworkConfig(8, (1, 2), 1, (2,), 2)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def randomised(module: Module, scale: float = 0.1) -> Module:
    """The module with no weight left at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def test_sizes_are_those_of_the_papers_networks():
    with torch.device("meta"):
        thesis = UNet(4, 8, NetworkConfig(128, (1, 1, 2, 2, 4, 4), 2, (16, 32), 4), levels=1)
        small = UNet(4, 4, NetworkConfig(32, (1, 2, 2, 4), 2, (4, 8), 4), levels=1)
    assert parameters(thesis) == 124_060_168
    assert parameters(small) == 4_865_188


@pytest.mark.parametrize("dims", [2, 3])
def test_a_fresh_network_is_zero_and_a_trained_one_hears_levels_condition_and_class(dims):
    network = UNet(3, 5, SMALL, even_levels(dims, 1), levels=2, condition_features=4, classes=2)
    x, levels = torch.randn(2, 3, *(8, 4, 6)[:dims]), torch.tensor([[1.0, 30.0], [-50.0, 2.0]])
    assert torch.equal(network(x, levels), torch.zeros(2, 5, *x.shape[2:]))
    randomised(network).eval()
    with torch.no_grad():
        y = network(x, levels)
        assert y.std() > 0.01
        # Zeros, which mean "none"; an augmentation; two classes.
        conditions = [[0.0] * 5, [1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 2.0]]
        none, *told = (network(x, levels, torch.tensor([condition] * 2)) for condition in conditions)
        assert torch.allclose(none, y)
        assert not any(torch.allclose(a, b) for a, b in itertools.combinations([y, *told], 2))
        assert not torch.allclose(network(x, levels.flip(1)), y)  # which side has which level matters
        assert torch.allclose(network(x[1:], levels[1:]), y[1:], atol=1e-5)  # samples do not meet


def test_sides_that_do_not_fit_are_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"10x7 .* multiples of 2.*data\.patch_size") as error:
        UNet(2, 2, SMALL)(torch.zeros(1, 2, 10, 7), torch.zeros(1, 2))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"network\.base_channels is 10.* 4"):
        UNet(2, 2, NetworkConfig(10, (1,), 1, (), 1))
    with pytest.raises(ConfigError, match=r"network\.attention_heads is 3.* 8"):
        SelfAttention(8, 3)


def test_bf16_keeps_float32_at_the_door_and_stays_close():
    network = randomised(UNet(2, 2, SMALL), 0.05).eval()
    x, levels = torch.randn(1, 2, 8, 8), torch.zeros(1, 2)
    with torch.no_grad():
        exact = network(x, levels)
        network.bf16 = True
        rounded = network(x, levels)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("shape", [(2, 8, 32, 32), (3, 8, 8, 16, 16), (2, 8, 3, 5)])
@pytest.mark.parametrize("modulations", [0, 2])
def test_fast_normalisation_and_its_gradient_are_those_of_pytorchs_operations(shape, modulations):
    x, weight, *modulation = (normal(*s, seed=k) for k, s in enumerate([shape, shape, *[shape[:2]] * modulations]))
    if len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    found = []
    for ours in (True, False):
        norm = randomised(nn.GroupNorm(4, 8).double())
        leaves = [tensor.clone().requires_grad_() for tensor in (3 * x + 2, *modulation)]
        per_pixel = [leaf.reshape(*shape[:2], *[1] * (len(shape) - 2)) for leaf in leaves[1:]]
        scale, shift = per_pixel or (0, 0)
        y = norm_silu(norm, *leaves) if ours else F.silu(norm(leaves[0]) * (1 + scale) + shift)
        (y * weight).sum().backward()
        found.append([y, norm.weight.grad, norm.bias.grad, *[leaf.grad for leaf in leaves]])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("dims", "shape"), [(2, (2, 6, 5, 7)), (3, (2, 6, 3, 4, 5))])
def test_upsampling_is_nearest_neighbours_and_a_convolution(dims, shape):
    upsample = Upsample(6, (2,) * dims).double()
    x = torch.randn(shape, dtype=torch.float64)
    plain = upsample.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(upsample(x), plain)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_softmax_of_scaled_products(heads):
    width, positions = 8, 15
    attention = randomised(SelfAttention(width, heads))
    x = torch.randn(2, width, 3, 5, generator=torch.Generator().manual_seed(3))
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    qkv = attention.qkv(tokens).reshape(2, positions, heads, 3, width // heads)
    mixed = torch.zeros(2, positions, heads, width // heads)
    for h in range(heads):
        q, k, v = qkv[:, :, h].unbind(2)
        mixed[:, :, h] = (q @ k.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1) @ v
    expected = x + attention.out(mixed.flatten(2)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(attention(x), expected)


def test_sinusoids_are_cosines_then_sines_from_one_radian_per_step_down():
    table = sinusoids(torch.tensor([[0.0, 2.0]]), 6)
    assert table.shape == (1, 2, 6)
    torch.testing.assert_close(table[0, 0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    angles = 2.0 * torch.tensor([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)])
    torch.testing.assert_close(table[0, 1], torch.cat([angles.cos(), angles.sin()]))

"""The network: its size, its faster parts against plain ones, and weights from elsewhere."""

import json
from pathlib import Path
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from jdm.config.settings import NetworkConfig
from jdm.diffusion.normalization import norm_silu
from jdm.diffusion.unet import SelfAttention, UNet, Upsample, sinusoids
from jdm.errors import CheckpointError, ConfigError
from jdm.train.imported_weights import import_improved_diffusion

REFERENCE = json.loads((Path(__file__).parent / "reference" / "improved_diffusion.json").read_text(encoding="utf-8"))
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
def test_a_fresh_network_is_zero_and_a_trained_one_hears_levels_and_condition(dims):
    network = UNet(3, 5, SMALL, dims=dims, levels=2, condition_features=4)
    x, levels = torch.randn(2, 3, *(8, 4, 6)[:dims]), torch.tensor([[1.0, 30.0], [-50.0, 2.0]])
    assert torch.equal(network(x, levels), torch.zeros(2, 5, *x.shape[2:]))
    randomised(network).eval()
    with torch.no_grad():
        y = network(x, levels)
        assert y.std() > 0.01
        assert torch.allclose(network(x, levels, torch.zeros(2, 4)), y)  # zeros mean "none"
        assert not torch.allclose(network(x, levels, torch.ones(2, 4)), y)
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


def modulated(norm, x, scale, shift):
    """By PyTorch's own operations."""
    per_pixel = (*scale.shape, *[1] * (x.ndim - 2))
    return F.silu(norm(x) * (1 + scale.reshape(per_pixel)) + shift.reshape(per_pixel))


def test_gradient_of_the_fast_normalisation_is_the_derivative():
    norm = randomised(nn.GroupNorm(2, 4).double(), 1.0)
    x, scale, shift = (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
        for seed, shape in enumerate([(2, 4, 32, 32), (2, 4), (2, 4)])
    )
    inputs = (x.detach().to(memory_format=torch.channels_last).requires_grad_(), scale, shift, norm.weight, norm.bias)
    assert torch.autograd.gradcheck(lambda x, a, b, *_: norm_silu(norm, x, a, b), inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(2, 8, 32, 32), (3, 8, 8, 16, 16), (2, 8, 3, 5)])
@pytest.mark.parametrize("modulate", [True, False])
def test_fast_normalisation_is_group_norm_modulation_and_silu(shape, modulate):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 2).double()
    seed = torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()
    modulation = [torch.randn(shape[:2], generator=torch.Generator().manual_seed(k)).double() for k in (3, 4)]
    if not modulate:
        modulation = [torch.zeros_like(m) for m in modulation]
    found = []
    for ours in (True, False):
        norm = randomised(nn.GroupNorm(4, 8).double())
        leaves = [tensor.clone().requires_grad_() for tensor in (x, *modulation)]
        fast = norm_silu(norm, *(leaves if modulate else leaves[:1]))
        y = fast if ours else modulated(norm, *leaves)
        (y * seed).sum().backward()
        found.append([y, norm.weight.grad, norm.bias.grad, *[leaf.grad for leaf in leaves[: 3 if modulate else 1]]])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("dims", "shape"), [(2, (2, 6, 5, 7)), (3, (2, 6, 3, 4, 5))])
def test_upsampling_is_nearest_neighbours_and_a_convolution(dims, shape):
    upsample = Upsample(6, dims).double()
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


def formula_weights() -> dict[str, torch.Tensor]:
    """The state dict that the reference file describes in words."""
    state = {}
    for n, (name, shape) in enumerate(sorted(REFERENCE["shapes"].items())):
        i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        wave = torch.sin(0.01 * i * i + n)
        values = 1 + 0.1 * wave if len(shape) == 1 else 1.5 * wave / (len(i) / shape[0]) ** 0.5
        state[name] = values.reshape(shape).float()
    return state


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_imported_weights_compute_what_improved_diffusion_does(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    state = formula_weights()
    if ending == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    network = import_improved_diffusion(path)
    x = torch.sin(0.37 * torch.arange(2 * 3 * 8 * 12, dtype=torch.float64)).reshape(2, 3, 8, 12).float()
    with torch.no_grad():
        y = network(x, torch.tensor([[3.0], [741.0]]))
    assert list(y.shape) == REFERENCE["output_shape"]
    expected = torch.tensor(REFERENCE["values"])
    torch.testing.assert_close(y.flatten()[REFERENCE["indices"]], expected, rtol=1e-5, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    good = {name: torch.zeros(shape) for name, shape in REFERENCE["shapes"].items()}
    shape = REFERENCE["shapes"]["input_blocks.1.0.emb_layers.1.weight"]
    cases = {
        "label_emb": {**good, "label_emb.weight": torch.zeros(10, 512)},
        "out.2.bias|out_conv": {k: v for k, v in good.items() if k != "out.2.bias"},
        "emb_layers": {**good, "input_blocks.1.0.emb_layers.1.weight": torch.zeros(shape[0] // 2, shape[1])},
        "64 base channels": {
            name: torch.zeros([side // 2 if side % 64 == 0 else side for side in shape])
            for name, shape in REFERENCE["shapes"].items()
        },
        "": {"conv.weight": torch.zeros(3)},
        "tensors": {"state_dict": good},
    }
    for found, state in cases.items():
        torch.save(state, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match=rf"model\.pt.*({found})") as error:
            import_improved_diffusion(tmp_path / "model.pt")
        assert "\n" not in str(error.value)


class _Payload:
    """What a malicious file would run on loading."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_files_that_hold_no_tensors_are_refused_in_one_line_and_run_nothing(tmp_path):
    torch.save({"weight": _Payload(tmp_path / "ran")}, tmp_path / "code.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_bytes(b"no checkpoint")
    for name in ("code.pt", "empty.pt", "text.pt", "absent.safetensors"):
        with pytest.raises(CheckpointError, match=name) as error:
            import_improved_diffusion(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()

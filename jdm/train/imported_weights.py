"""Weights trained with improved-diffusion or guided-diffusion, in our network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from jdm.config.settings import NetworkConfig
from jdm.diffusion.unet import UNet
from jdm.errors import CheckpointError

# Names of one block's tensors there and here.
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "modulation",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "skip",
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
_RESAMPLE = {"op": "conv", "conv": "conv"}
_OUTSIDE = {
    "time_embed.0": "embedding.linear1",
    "time_embed.2": "embedding.linear2",
    "out.0": "out_norm",
    "out.2": "out_conv",
    "input_blocks.0.0": "down.0.blocks.0",
}
_STAGES = {"input_blocks": "down", "output_blocks": "up", "middle_block": "middle"}
_GROUPS = 32  # of every group normalisation there


def import_improved_diffusion(path: Path, heads: int = 4) -> UNet:
    """The network of improved-diffusion (Nichol & Dhariwal 2021) or guided-diffusion with its trained weights.

    Width, depth, channels and places of attention follow from the file's shapes; the number of attention heads
    leaves no trace there. Supported is what both train by default with learned scale and shift: no class labels, no
    residual resampling (`resblock_updown`), queries, keys and values per head (not `use_new_attention_order`, which
    cannot be told apart by shape).

    Args:
        path: a state dict saved by `torch.save` (tensors only; code in it is refused, not run) or .safetensors.
        heads: attention heads, `num_heads` there.
    Returns: a network with one level; its position is the step t of the thousand, shape (B, 1). In eval mode.
    Raises: CheckpointError naming the keys or shapes that do not fit.
    """
    state = _tensors(path)
    try:
        network, in_channels, out_channels = _architecture(state, heads)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise _refusal(path, f"its layout is not that of the U-Net ({error})") from None
    dims = state["input_blocks.0.0.weight"].ndim - 2
    unet = UNet(in_channels, out_channels, network, dims=dims, levels=1)
    if any(isinstance(module, nn.GroupNorm) and module.num_groups != _GROUPS for module in unet.modules()):
        raise _refusal(path, f"it has {network.base_channels} base channels, of which ours makes other groups than 32")
    wanted = unet.state_dict()
    renamed = {}
    for key, tensor in state.items():
        name = _our_name(key)
        if name not in wanted:
            raise _refusal(path, f"it holds {key!r}, for which there is no place")
        squeezed = tensor.squeeze(-1) if tensor.ndim == 3 and wanted[name].ndim == 2 else tensor
        if squeezed.shape != wanted[name].shape:
            raise _refusal(path, f"{key!r} has shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}")
        renamed[name] = squeezed.float()
    missing = sorted(set(wanted) - set(renamed))
    if missing:
        raise _refusal(path, f"it lacks {len(missing)} tensors, the first for {missing[0]!r}")
    unet.load_state_dict(renamed)
    return unet.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's state dict, and nothing else that it may hold."""
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not what it claims fails in a dozen ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refusal(path, f"it cannot be read as tensors: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _refusal(path, "it holds more than tensors by name")
    return {str(key): value for key, value in state.items()}


def _architecture(state: Mapping[str, Tensor], heads: int) -> tuple[NetworkConfig, int, int]:
    """Network settings, input and output channels, from shapes alone."""
    base = state["time_embed.0.weight"].shape[1]
    multipliers: list[int] = []
    blocks: list[int] = [0]
    attention: set[int] = set()
    count = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))
    for index in range(1, count):
        stage = f"input_blocks.{index}"
        if f"{stage}.0.op.weight" in state:
            blocks.append(0)
            continue
        width = state[f"{stage}.0.out_layers.3.weight"].shape[0]
        if blocks[-1] == 0:
            if width % base:
                raise ValueError(f"{width} channels are no multiple of {base}")
            multipliers.append(width // base)
        blocks[-1] += 1
        if f"{stage}.1.qkv.weight" in state:
            attention.add(2 ** (len(blocks) - 1))
    if len(set(blocks)) != 1:
        raise ValueError(f"levels have {blocks} blocks, expected equally many")
    network = NetworkConfig(base, tuple(multipliers), blocks[0], tuple(sorted(attention)), heads)
    return network, state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]


def _our_name(key: str) -> str:
    """Our name of one of their tensors; the key itself where there is none."""
    module, _, kind = key.rpartition(".")
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{kind}"
    found = re.fullmatch(r"(input_blocks|output_blocks|middle_block)((?:\.\d+)+)\.([a-z].*)", module)
    if found is None:
        return key
    part, numbers, inner = found[1], found[2].split(".")[1:], found[3]
    place = [_STAGES[part], *numbers[:-1], "blocks", numbers[-1]]
    ours = {**_RESIDUAL, **_ATTENTION, **_RESAMPLE}.get(inner)
    return key if ours is None else ".".join([*place, ours, kind])


def _refusal(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {found}; expected an unconditional improved-diffusion or guided-diffusion state dict with "
        "scale-shift norm; re-save it as a .safetensors file or choose another"
    )

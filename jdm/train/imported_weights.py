"""Import of weights trained with improved-diffusion or guided-diffusion."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from jdm.config.files import differences, to_dict
from jdm.config.settings import Config, NetworkConfig
from jdm.diffusion.unet import UNet
from jdm.errors import CheckpointError, ConfigError
from jdm.train.request import TrainRequest

# Tensor names in a block, theirs to ours.
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
_GROUPS = 32  # groups of all their group normalisations
_IMAGE_AXES = 4  # axes of a 2-D convolution's weight


@dataclass(frozen=True)
class ImportedWeights:
    """A network's settings, and its tensors under our names."""

    network: NetworkConfig
    in_channels: int
    out_channels: int
    weights: Mapping[str, Tensor]

    def unet(self) -> UNet:
        """The network in eval mode, with one level: the step t of 1000, shape (B, 1)."""
        unet = UNet(self.in_channels, self.out_channels, self.network, levels=1)
        unet.load_state_dict(dict(self.weights))
        return unet.eval()


def weights_of(request: TrainRequest) -> ImportedWeights | None:
    """The weights that --init-from names. Raises: ConfigError for flags that do not go together."""
    given = {"--init-heads": request.init_heads, "--init-attention-order": request.init_attention_order}
    if request.init_from is None:
        if extra := [flag for flag, value in given.items() if value is not None]:
            raise ConfigError(f"{extra[0]} is given without --init-from; expected both; name the file, or leave it out")
        return None
    if request.preset != "thesis":
        raise ConfigError(f"--init-from is given with preset {request.preset}; expected thesis; add --preset thesis")
    if missing := [flag for flag, value in given.items() if value is None]:
        raise ConfigError(
            f"{' and '.join(missing)} must be given with --init-from: the tensors of {request.init_from} do not tell; "
            "look up num_heads and use_new_attention_order of its training"
        )
    assert request.init_heads is not None and request.init_attention_order is not None
    if request.init_heads < 1:
        raise ConfigError(f"--init-heads is {request.init_heads}; expected at least 1; correct it")
    if request.classes is not None:
        raise ConfigError(
            "--init-from and --classes are both given, but imported weights know no classes; expected one of them; "
            "leave one out"
        )
    return import_improved_diffusion(request.init_from, request.init_heads, request.init_attention_order)


def check_weights(config: Config, imported: ImportedWeights, path: Path | None) -> None:
    """Raises: ConfigError if the weights are not those of the planned network."""
    wanted = replace(imported.network, dropout=config.network.dropout)
    if lines := differences(to_dict(config.network), to_dict(wanted), "network."):
        raise ConfigError(f"{path} is of another network: {'; '.join(lines)}; leave these settings out")
    channels = config.image_channels + config.mask_channels
    if (imported.in_channels, imported.out_channels) != (channels, 2 * channels):
        raise ConfigError(
            f"{path} has {imported.in_channels} input and {imported.out_channels} output channels; "
            f"expected {channels} ({config.image_channels} of the image, {config.mask_channels} of the mask) and "
            f"{2 * channels} (with learned variance); choose weights of such pairs"
        )


def import_improved_diffusion(
    path: Path, heads: int, attention_order: Literal["legacy", "new"] = "legacy"
) -> ImportedWeights:
    """The weights of a U-Net of improved-diffusion (Nichol & Dhariwal 2021) or guided-diffusion.

    Width, depth, channels and attention levels follow from the file's shapes; settings that the file does not show are
    arguments. Supports the default 2-D networks of both, with scale-shift norm.

    Args:
        path: a state dict saved by `torch.save` (tensors only; code in it is refused, not run) or .safetensors.
        heads: their `num_heads`, the same on every level; a different `num_heads_upsample` is not supported.
        attention_order: new for `use_new_attention_order`.
    Raises: CheckpointError naming the keys or shapes that do not fit.
    """
    state = _tensors(path)
    _refuse_unsupported(path, state)
    try:
        network, in_channels, out_channels = _architecture(state, heads)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise _refusal(path, f"its layout is not that of a supported U-Net ({error})") from None
    with torch.device("meta"):
        unet = UNet(in_channels, out_channels, network, levels=1)
    if any(isinstance(module, nn.GroupNorm) and module.num_groups != _GROUPS for module in unet.modules()):
        raise _refusal(path, f"it has {network.base_channels} base channels, which jdm cannot split into 32 groups")
    wanted = unet.state_dict()
    renamed = {}
    for key, tensor in state.items():
        name = _our_name(key)
        if name not in wanted:
            raise _refusal(path, f"it holds the unknown tensor {key!r}")
        squeezed = tensor.squeeze(-1) if tensor.ndim == 3 and wanted[name].ndim == 2 else tensor
        if squeezed.shape != wanted[name].shape:
            raise _refusal(path, f"{key!r} has shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}")
        new_order = attention_order == "new" and ".qkv." in f".{key}"
        renamed[name] = (_legacy_order(squeezed, heads) if new_order else squeezed).float()
    if missing := sorted(set(wanted) - set(renamed)):
        raise _refusal(path, f"it lacks {len(missing)} tensors, the first for {missing[0]!r}")
    return ImportedWeights(network, in_channels, out_channels, renamed)


def _legacy_order(qkv: Tensor, heads: int) -> Tensor:
    """Reorder a projection from layout (3, heads, width / heads) to (heads, 3, width / heads)."""
    return qkv.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's state dict; anything else in the file is refused."""
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file can raise many kinds of exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refusal(path, f"it cannot be read as tensors: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _refusal(path, "it holds something other than named tensors")
    return {str(key): value for key, value in state.items()}


def _refuse_unsupported(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse networks with options of theirs that ours does not have."""
    first = state.get("input_blocks.0.0.weight")
    if first is not None and first.ndim != _IMAGE_AXES:
        raise _refusal(path, f"it is a {first.ndim - 2}-D network, whose strides are not stored")
    if "label_emb.weight" in state:
        raise _refusal(path, "it is class-conditional (class_cond)")
    if any(re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\..*", key) for key in state):
        raise _refusal(path, "it was trained with resblock_updown")
    numbers = {int(key.split(".")[1]) for key in state if key.startswith("input_blocks.")}
    if numbers and numbers != set(range(max(numbers) + 1)):
        raise _refusal(path, "it was trained with conv_resample=False")


def _architecture(state: Mapping[str, Tensor], heads: int) -> tuple[NetworkConfig, int, int]:
    """Network settings, input channels and output channels, from shapes alone."""
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
                raise ValueError(f"{width} channels are not a multiple of {base}")
            multipliers.append(width // base)
        blocks[-1] += 1
        if f"{stage}.1.qkv.weight" in state:
            attention.add(2 ** (len(blocks) - 1))
    if len(set(blocks)) != 1:
        raise ValueError(f"levels have {blocks} blocks, expected the same number on each")
    network = NetworkConfig(base, tuple(multipliers), blocks[0], tuple(sorted(attention)), heads)
    return network, state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]


def _our_name(key: str) -> str:
    """Our name for one of their tensors; the key itself if we have none."""
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
        f"{path}: {found}; expected the state dict of an unconditional 2-D U-Net of improved-diffusion or "
        "guided-diffusion with scale-shift norm and conv_resample, without resblock_updown; choose another"
    )

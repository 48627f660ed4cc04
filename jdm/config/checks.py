"""Whether the settings of a plan have a meaning: each within its bounds, and all together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jdm.errors import ConfigError

if TYPE_CHECKING:
    from jdm.config.settings import Config

_TINY, _ANY = 1e-30, math.inf
_BOUNDS: dict[str, tuple[float, float]] = {  # of the numbers in lists one by one
    "codec.mask_amplitude": (_TINY, _ANY),
    "codec.classes": (2, 2**16),
    "data.slice_axis": (0, 2),
    "data.spacing": (_TINY, _ANY),
    "data.slice_spacing": (_TINY, _ANY),
    "data.case_std": (_TINY, _ANY),
    "augment.probability": (0, 1),
    "augment.mirror_axes": (0, 2),
    "augment.scale": (0, _ANY),
    "augment.rotation_degrees": (0, _ANY),
    "augment.translation": (0, _ANY),
    "augment.brightness": (0, _ANY),
    "augment.contrast": (0, _ANY),
    "network.base_channels": (1, 2**16),
    "network.channel_multipliers": (1, 2**10),
    "network.blocks_per_level": (1, 2**10),
    "network.attention_factors": (1, 2**16),
    "network.attention_heads": (1, 2**10),
    "network.dropout": (0, 0.999),
    "noise.sigma_data": (_TINY, _ANY),
    "noise.log_std": (_TINY, _ANY),
    "noise.equal": (0, 1),
    "noise.independent": (0, 1),
    "noise.known_mask": (0, 1),
    "noise.known_image": (0, 1),
    "diffusion.steps": (2, 10**6),
    "diffusion.vlb_weight": (0, _ANY),
    "train.steps": (1, _ANY),
    "train.batch_size": (1, _ANY),
    "train.learning_rate": (_TINY, _ANY),
    "train.warmup_steps": (0, _ANY),
    "train.gradient_clip": (_TINY, _ANY),
    "train.ema_decay": (0, 1),
    "train.class_dropout": (0, 0.999),
    "train.validate_every": (1, _ANY),
    "train.checkpoint_every": (1, _ANY),
    "train.sample_every": (1, _ANY),
    "train.budget_minutes": (_TINY, _ANY),
    "train.cache_bytes": (0, _ANY),
    "train.seed": (0, 2**63 - 1),
}
_NUMBER_TYPES = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)
_FILLED = ("codec.low", "data.patch_size", "network.channel_multipliers")


def check_bounds(values: dict[str, Any]) -> None:
    """Check nested plain values of a plan, those of `jdm.config.settings.to_dict`.

    Raises: ConfigError naming the setting, the value and its bounds.
    """
    for name in _FILLED:
        if not _found(values, name):
            raise ConfigError(f"setting {name} is empty; expected at least one number; correct it in the plan")
    for name, (least, most) in _BOUNDS.items():
        found = _found(values, name)
        for number in found if isinstance(found, list) else [found]:
            if number != "none" and not least <= number <= most:
                limits = "above 0" if least == _TINY else f"at least {least:g}"
                limits += "" if most == _ANY else f" and at most {most:g}"
                raise ConfigError(
                    f"setting {name} is {found}; expected {limits}; correct it in the plan or on the command line"
                )


def check_fit(config: Config) -> None:
    """Check that values of a plan, each within its bounds, go together.

    Raises: ConfigError naming the setting, the value and what it must be.
    """
    for holds, name, found, expected in (*_data_checks(config), *_model_checks(config)):
        if not holds:
            raise ConfigError(
                f"setting {name} is {found}; expected {expected}; correct it in the plan or on the command line"
            )


_Checks = list[tuple[bool, str, Any, str]]
"""What must hold, the setting, its value, and what is expected of it."""


def _data_checks(config: Config) -> _Checks:
    """Of settings that say what a training sample is."""
    network_multiple = 2 ** (len(config.network.channel_multipliers) - 1)
    data, codec, augment = config.data, config.codec, config.augment
    return [
        (data.dims in (2, 3), "data.dims", data.dims, "2 or 3"),
        (len(data.patch_size) == data.dims, "data.patch_size", data.patch_size, f"{data.dims} sides"),
        (len(data.spacing) == data.dims, "data.spacing", data.spacing, f"{data.dims} numbers"),
        (
            all(side % network_multiple == 0 and side > 0 for side in data.patch_size),
            "data.patch_size", data.patch_size, f"multiples of {network_multiple} (network.channel_multipliers)",
        ),
        (
            len(data.canvas_size) == data.dims
            and all(c >= p for c, p in zip(data.canvas_size, data.patch_size, strict=False)),
            "data.canvas_size", data.canvas_size, f"at least data.patch_size {data.patch_size}",
        ),
        (len(codec.low) == len(codec.high), "codec.low", codec.low, "as many as codec.high"),
        (
            all(low < high for low, high in zip(codec.low, codec.high, strict=False)),
            "codec.low", codec.low, f"less than codec.high {codec.high}",
        ),
        *(
            (len(found) in (0, len(codec.low)), name, found, f"empty, or {len(codec.low)} numbers as codec.low has")
            for name, found in (("data.case_mean", data.case_mean), ("data.case_std", data.case_std))
        ),
        (
            not (codec.zero_border and any(data.case_mean)),
            "data.case_mean", data.case_mean, "zeros with codec.zero_border, or the border would not stay zero",
        ),
        (len(data.case_mean) == len(data.case_std), "data.case_std", data.case_std, "as many as data.case_mean"),
        (codec.image_dtype in _NUMBER_TYPES, "codec.image_dtype", codec.image_dtype, ", ".join(_NUMBER_TYPES)),
        (
            codec.mask_code != "binary" or codec.classes == 2,
            "codec.mask_code", codec.mask_code, f"one-hot or bits for {codec.classes} classes",
        ),
        (
            max(augment.mirror_axes, default=0) < data.dims,
            "augment.mirror_axes", augment.mirror_axes, f"axes of 0 to {data.dims - 1}",
        ),
        (
            not augment.quarter_turns or len({*data.patch_size[-2:]}) == 1,
            "augment.quarter_turns", True, f"false where data.patch_size {data.patch_size} is not square",
        ),
    ]  # fmt: skip


def _model_checks(config: Config) -> _Checks:
    """Of settings that say what is learnt of samples."""
    noise, names = config.noise, config.network.class_names
    shares = noise.equal + noise.independent + noise.known_mask + noise.known_image
    return [
        (abs(shares - 1) < 1e-6, "noise.equal + independent + known_mask + known_image", shares, "a sum of 1"),
        (0 < noise.sigma_min < noise.sigma_max, "noise.sigma_min", noise.sigma_min, "between 0 and noise.sigma_max"),
        (
            len(noise.data_mean) in (0, config.image_channels + config.mask_channels),
            "noise.data_mean", noise.data_mean,
            f"empty, or a value for each of {config.image_channels} image and {config.mask_channels} mask channels",
        ),
        (
            len(names) != 1 and len({*names}) == len(names) and "" not in names,
            "network.class_names", names, "at least two different names, or none",
        ),
        (
            config.preset == "default" or config.augment.probability == 0,
            "augment.probability", config.augment.probability, "0 with preset thesis, whose network is not told of it",
        ),
        (
            not config.diffusion.zero_terminal_snr or config.diffusion.prediction == "v",
            "diffusion.prediction", config.diffusion.prediction,
            "v with diffusion.zero_terminal_snr: where there is no signal the noise says nothing of the image",
        ),
    ]  # fmt: skip


def _found(values: dict[str, Any], name: str) -> Any:
    part, _, key = name.partition(".")
    return values[part][key]

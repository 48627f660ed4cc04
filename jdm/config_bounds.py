"""Between which values each setting of a plan has a meaning; the numbers in lists one by one."""

from __future__ import annotations

import math
from typing import Any

from jdm.errors import ConfigError

_TINY, _ANY = 1e-30, math.inf
_BOUNDS: dict[str, tuple[float, float]] = {
    "codec.mask_amplitude": (_TINY, _ANY),
    "codec.classes": (2, 2**16),
    "data.slice_axis": (0, 2),
    "data.spacing": (_TINY, _ANY),
    "data.slice_spacing": (_TINY, _ANY),
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
_FILLED = ("codec.low", "data.patch_size", "network.channel_multipliers")


def check_bounds(values: dict[str, Any]) -> None:
    """Check nested plain values of a plan, those of `jdm.config.to_dict`.

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


def _found(values: dict[str, Any], name: str) -> Any:
    part, _, key = name.partition(".")
    return values[part][key]

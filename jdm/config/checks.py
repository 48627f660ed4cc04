"""Checks that the settings of a config are consistent; the bounds of single settings are in `settings`."""

from __future__ import annotations

from typing import Any

from jdm.config.files import from_dict, to_dict
from jdm.config.levels import multiples
from jdm.config.settings import Config, DiffusionConfig
from jdm.errors import ConfigError

_Checks = list[tuple[bool, str, Any, str]]
"""(condition, setting, value, expected)."""


def validate(config: Config) -> Config:
    """Return `config` if its settings are consistent.

    Raises: ConfigError naming the setting, its value and what was expected.
    """
    from_dict(Config, to_dict(config))
    for holds, name, found, expected in (*_data_checks(config), *_model_checks(config)):
        if not holds:
            raise ConfigError(f"setting {name} is {found}; expected {expected}; correct it, or leave it to the plan")
    return config


def _data_checks(config: Config) -> _Checks:
    """Checks of the settings that define a training sample."""
    data, codec, augment, classes = config.data, config.codec, config.augment, config.facts.classes
    sides = len(data.patch_size) == data.dims
    factors = multiples(config.levels) if sides else (1,) * len(data.patch_size)
    return [
        (sides, "data.patch_size", data.patch_size, f"{data.dims} sides"),
        (
            not data.previous_slice or (data.slice_axis is not None and config.preset == "default"),
            "data.previous_slice", data.previous_slice, "volumes trained as slices, with the default preset",
        ),
        (
            not data.position or (data.dims == 3 and config.preset == "default"),
            "data.position", data.position, "volumes trained in 3-D, with the default preset",
        ),
        (
            all(side % factor == 0 for side, factor in zip(data.patch_size, factors, strict=True)),
            "data.patch_size", data.patch_size,
            f"multiples of {' '.join(map(str, dict.fromkeys(factors) if len(set(factors)) == 1 else factors))} "
            "(network.channel_multipliers, network.haar_levels)",
        ),
        (
            len(data.canvas_size) == data.dims
            and all(c >= p for c, p in zip(data.canvas_size, data.patch_size, strict=False)),
            "data.canvas_size", data.canvas_size, f"at least data.patch_size {data.patch_size}",
        ),
        (
            data.slice_axis == config.facts.slice_axis,
            "data.slice_axis", data.slice_axis, f"{config.facts.slice_axis}, along which the cases were measured",
        ),
        (
            codec.mask_code != "binary" or classes == 2,
            "codec.mask_code", codec.mask_code, f"one-hot or bits for {classes} classes",
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
    """Checks of the settings of the network, the noise and the diffusion process."""
    noise, network = config.noise, config.network
    shares = noise.equal + noise.independent + noise.known_mask + noise.known_image
    factors = [2**level for level in range(len(network.channel_multipliers))]
    return [
        (bool(network.channel_multipliers), "network.channel_multipliers", (), "at least one number"),
        (
            config.preset == "default" or network.haar_levels == 0,
            "network.haar_levels", network.haar_levels, "0 with preset thesis",
        ),
        (
            set(network.attention_factors) <= set(factors),
            "network.attention_factors", network.attention_factors, f"some of {factors}, those of the network's levels",
        ),
        (abs(shares - 1) < 1e-6, "noise.equal + independent + known_mask + known_image", shares, "a sum of 1"),
        (noise.sigma_min < noise.sigma_max, "noise.sigma_min", noise.sigma_min, "less than noise.sigma_max"),
        (
            config.preset == "default" or config.augment.probability == 0,
            "augment.probability", config.augment.probability,
            "0 with preset thesis, whose network is not conditioned on it",
        ),
        (
            not config.diffusion.zero_terminal_snr or config.diffusion.prediction == "v",
            "diffusion.prediction", config.diffusion.prediction,
            "v with diffusion.zero_terminal_snr: without signal, the noise does not determine the image",
        ),
        (
            config.preset == "thesis" or config.diffusion == DiffusionConfig(),
            "diffusion", "changed", "as it is with preset default, which does not use it (--preset thesis does)",
        ),
    ]  # fmt: skip

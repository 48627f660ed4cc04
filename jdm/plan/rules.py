"""Self-configuration: the plan of a run, from a dataset's fingerprint."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Literal

from jdm.config.settings import (
    AugmentConfig,
    CodecConfig,
    Config,
    DataConfig,
    NetworkConfig,
    NoiseConfig,
    Preset,
    TrainConfig,
    validate,
)
from jdm.data.codec import PairCodec
from jdm.data.raw_dataset import RawDataset, nnunet_folder
from jdm.errors import ConfigError, TrainingError
from jdm.plan.fingerprint import Fingerprint

# Images of up to this many pixels are trained whole; the sides of larger ones' patches and canvases are below.
_WHOLE_PIXELS = 98_304
_PATCH_SIDE, _CPU_PATCH_SIDE = 128, 64
_CANVAS_SIDE = 512
MASK_AMPLITUDE = 0.5
# No smaller deviation of the mask is assumed: rarer foreground would weigh more than all else.
_LEAST_MASK_STD = 0.1
# The thesis's network is not told of augmentation, so that what it is shown is what it samples.
NO_AUGMENTATION = AugmentConfig(probability=0.0)
# From small to large. A budget buys the largest network that still gets this many steps in it.
_NETWORKS = (
    NetworkConfig(32, (1, 2, 2, 2), 1, (8,), 4),
    NetworkConfig(48, (1, 2, 2, 4), 2, (8,), 4),
    NetworkConfig(64, (1, 2, 2, 4), 2, (8,), 4),
    NetworkConfig(128, (1, 2, 2, 4), 2, (8,), 4),
)
_BUDGET_STEPS, _MOST_STEPS = 6_000, 60_000
_BUDGET_SHARE = 0.9  # of the wall clock goes to steps; the rest to held-out losses, checkpoints and sample grids


def plan(
    found: Fingerprint,
    *,
    preset: Preset = "default",
    budget_minutes: float | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["bf16", "fp32"] = "bf16",
    step_seconds: Callable[[Config], float] | None = None,
    canvas_limit: tuple[int, ...] | None = None,
    adjust: Callable[[Config], Config] = lambda config: config,
) -> Config:
    """The configuration that a fingerprint asks for.

    Args:
        budget_minutes: wall-clock minutes of training; None plans for quality.
        step_seconds: measures a training step of a plan on this machine; needed with a budget.
        canvas_limit: nnU-Net's patch for the dataset, where it is already planned.
        adjust: puts the user's settings over a plan; what is measured is what will be trained.
    """
    networks = _NETWORKS if preset == "default" else (NetworkConfig(128, (1, 1, 2, 2, 4, 4), 2, (16, 32), 4),)

    def planned(network: NetworkConfig, steps: int) -> Config:
        network = dataclasses.replace(network, dropout=_dropout(found, network))
        codec = _codec(found, preset)
        config = Config(
            preset=preset,
            codec=codec,
            data=_data(found, 2 ** (len(network.channel_multipliers) - 1), device, canvas_limit),
            augment=_augment(found) if preset == "default" else NO_AUGMENTATION,
            network=network,
            noise=_noise(found, codec),
            train=_train(preset, steps, budget_minutes, precision),
        )
        return validate(adjust(config))

    if budget_minutes is None:
        # Without a clock, the size follows the device, and the steps the amount of data.
        network = networks[min(len(networks) - 1, 2 if device == "cuda" else 0)]
        return planned(network, min(_MOST_STEPS, 10_000 + 100 * found.items) if preset == "default" else 60_000)
    if step_seconds is None:
        raise ConfigError("a budget needs a measured step time, found none; pass step_seconds")
    return _within_budget(networks, planned, step_seconds, budget_minutes)


def steps_within(budget_minutes: float, step_seconds: float) -> int:
    """Training steps that a wall-clock budget holds."""
    return max(1, min(_MOST_STEPS, int(_BUDGET_SHARE * budget_minutes * 60 / step_seconds)))


def _within_budget(
    networks: tuple[NetworkConfig, ...],
    planned: Callable[[NetworkConfig, int], Config],
    step_seconds: Callable[[Config], float],
    budget_minutes: float,
) -> Config:
    """The largest network that gets enough steps, or the smallest one with as many as there are."""
    chosen = None
    for network in networks:
        try:
            steps = steps_within(budget_minutes, step_seconds(planned(network, 1)))
        except TrainingError:  # does not fit into memory
            if chosen is None:
                raise
            break
        if chosen is None or steps >= _BUDGET_STEPS:
            chosen = planned(network, steps)
        if steps < _BUDGET_STEPS:
            break
    assert chosen is not None
    return chosen


def _data(found: Fingerprint, multiple: int, device: str, canvas_limit: tuple[int, ...] | None) -> DataConfig:
    whole_size = tuple(_round_up(side, multiple) for side in found.median_shape)
    whole = math.prod(whole_size) <= _WHOLE_PIXELS
    if whole:
        patch = canvas = whole_size
    else:
        side = _PATCH_SIDE if device == "cuda" else _CPU_PATCH_SIDE
        patch = tuple(min(side, size) for size in whole_size)
        limit = canvas_limit or tuple(_CANVAS_SIDE for _ in patch)
        # Not wider than the images: a window flush with the border needs no multiple of the network's.
        canvas = tuple(max(p, min(side, most)) for p, side, most in zip(patch, found.median_shape, limit, strict=True))
    return DataConfig(
        dims=len(patch),
        patch_size=patch,
        whole=whole,
        canvas_size=canvas,
        slice_axis=found.slice_axis,
        spacing=found.spacing,
        slice_spacing=found.slice_spacing,
        case_mean=found.case_mean,
        case_std=found.case_std,
    )


def _codec(found: Fingerprint, preset: Preset) -> CodecConfig:
    code = "binary" if found.classes == 2 else "one-hot" if found.classes <= 8 else "bits"
    return CodecConfig(
        mask_code=code,
        mask_amplitude=MASK_AMPLITUDE if preset == "default" else 1.0,  # the thesis's masks fill [-1, 1] as images do
        classes=found.classes,
        image_dtype=found.dtype,
        low=found.low,
        high=found.high,
        zero_border=found.zero_border,
    )


def _noise(found: Fingerprint, codec: CodecConfig) -> NoiseConfig:
    mask_mean, mask_std = PairCodec(codec).mask_moments(found.class_shares)
    sigma_data = (min(max(found.image_std, 0.05), 1.0), max(mask_std, _LEAST_MASK_STD))
    return NoiseConfig(
        sigma_data=(round(sigma_data[0], 4), round(sigma_data[1], 4)),
        data_mean=tuple(round(mean, 4) for mean in (*found.image_mean, *mask_mean)),
    )


def _dropout(found: Fingerprint, network: NetworkConfig) -> float:
    """A little for a large network on few images."""
    return 0.1 if network.base_channels >= 64 and found.items < 200 else 0.0


def _augment(found: Fingerprint) -> AugmentConfig:
    """Stronger the fewer the images; pictures are mirrored, unless something tells that they have a side."""
    mirrored = found.slice_axis is None and not found.sided
    few = min(1.0, 200 / max(found.items, 1))
    return AugmentConfig(
        probability=round(0.05 + 0.15 * few, 3),
        mirror_axes=tuple(range(len(found.median_shape))) if mirrored else (),
        quarter_turns=mirrored and found.median_shape[-1] == found.median_shape[-2],
    )


def _train(preset: Preset, steps: int, budget_minutes: float | None, precision: Literal["bf16", "fp32"]) -> TrainConfig:
    """Optimisation for about `steps` steps.

    The clock alone ends a run with a budget, and lowers its rate: a machine that was busy while it was measured does
    not cost the steps it has time for.
    """
    thesis = preset == "thesis"
    often = max(20, min(250, steps // 20))
    train = TrainConfig(
        steps=steps if thesis or budget_minutes is None else _MOST_STEPS,
        warmup_steps=min(200, steps // 10),
        validate_every=often,
        checkpoint_every=often,
        sample_every=max(often, min(2_000, steps // 4)),
        budget_minutes=budget_minutes,
        precision=precision,
    )
    if thesis:  # Zhou 2023, Table 4.1
        train = dataclasses.replace(train, batch_size=10, learning_rate=1e-4, warmup_steps=0)
    return train


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def planned_patch(dataset: RawDataset, slice_axis: int | None) -> tuple[int, ...] | None:
    """nnU-Net's 2d patch for the dataset, if it has been planned under nnUNet_preprocessed for slices along that axis.

    Args: slice_axis: None for pictures.
    """
    try:
        path = nnunet_folder("nnUNet_preprocessed") / dataset.name / "nnUNetPlans.json"
        plans = json.loads(path.read_text())
        same = slice_axis is None or plans["transpose_forward"][0] == slice_axis
        return tuple(plans["configurations"]["2d"]["patch_size"]) if same else None
    except (ConfigError, OSError, KeyError, ValueError):
        return None

"""Self-configuration: the decisions of a run, each with its reason, from a dataset's fingerprint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jdm.config.checks import validate
from jdm.config.facts import Fingerprint
from jdm.config.files import flat, from_dict, merged, to_dict
from jdm.config.levels import levels_of, multiples, padded
from jdm.config.settings import (
    AugmentConfig,
    CodecConfig,
    Config,
    DataConfig,
    NetworkConfig,
    NoiseConfig,
    Preset,
    Settings,
    TrainConfig,
)
from jdm.plan.samples import SAMPLE_VOXELS, data_of, sample_of
from jdm.system.progress import duration

_HAAR_SIDES = {2: (24, 80), 3: (16, 32)}  # a level of Haar wavelets from each of these sides on
_DEEPEST_SIDE = 8  # of the coarsest grid of the U-Net, where it attends
_NOISE_SIDE, _NORMAL_95 = (
    64,
    1.645,
)  # side of an image for which the usual levels are meant; 95th percentile of a normal
THESIS_NETWORK = NetworkConfig(128, (1, 1, 2, 2, 4, 4), 2, (16, 32), 4)
WIDTHS = ((48, 1), (64, 2), (128, 2))
"""Base channels and blocks per level of the networks, from small to large."""
LEAST_STEPS, MOST_STEPS = 1_000, 60_000
_BUDGET_SHARE = 0.9  # of the budget goes to steps; the rest to held-out losses, checkpoints and sample grids


@dataclass(frozen=True)
class Machine:
    """Properties of the machine that the plan depends on."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["bf16", "fp32"] = "bf16"


@dataclass(frozen=True)
class Size:
    """Size of a training step, chosen by the time budget."""

    base_channels: int
    blocks_per_level: int
    batch_size: int
    voxels: int | None = None
    """Of a volume's sample at most; None: `SAMPLE_VOXELS`."""
    recompute: bool = False


@dataclass(frozen=True)
class Plan:
    """A config, with the reason for each decision."""

    config: Config
    reasons: dict[str, str]
    """By dotted name of each decision."""
    seconds: float | None = None
    """Measured seconds of a training step; None: not measured."""

    @property
    def steps(self) -> int:
        """Estimated number of training steps."""
        train = self.config.train
        if train.budget_minutes is None or self.seconds is None:
            return train.steps
        return min(train.steps, steps_within(train.budget_minutes, self.seconds))

    @property
    def expectation(self) -> str:
        """One line with the time per step, the number of steps and the minutes of training."""
        if self.seconds is None:
            return f"at most {self.steps} steps"
        minutes = self.config.train.budget_minutes
        takes = self.steps * self.seconds if minutes is None else 60 * minutes
        line = f"{self.seconds:.2g} s per step on this machine: about {self.steps} steps in {duration(takes)}"
        if self.steps < LEAST_STEPS:
            enough = f"--budget-minutes {math.ceil(LEAST_STEPS * self.seconds / 60 / _BUDGET_SHARE)}"
            if self.steps == self.config.train.steps:
                enough = f"--train.steps {LEAST_STEPS}"
            line += f"; too few for usable pairs: give {enough} or more"
        return line


def sizes(preset: Preset) -> list[Size]:
    """Sizes of a training step, smallest first; a budget selects the largest one that gets enough steps."""
    if preset == "thesis":
        return [Size(THESIS_NETWORK.base_channels, THESIS_NETWORK.blocks_per_level, 10)]
    return [*(Size(*WIDTHS[0], batch_size) for batch_size in (4, 8)), *(Size(*width, 16) for width in WIDTHS)]


def usual_size(preset: Preset, machine: Machine) -> Size:
    """The size used without a budget, by device."""
    return sizes(preset)[-2 if preset == "default" and machine.device == "cuda" else 0 if preset == "thesis" else 2]


def steps_within(budget_minutes: float, step_seconds: float) -> int:
    """Number of training steps that fit in a budget."""
    return max(1, min(MOST_STEPS, int(_BUDGET_SHARE * budget_minutes * 60 / step_seconds)))


def plan(
    facts: Fingerprint, size: Size, machine: Machine, *, preset: Preset = "default", steps: int | None = None,
    budget_minutes: float | None = None, canvas_limit: tuple[int, ...] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Plan:  # fmt: skip
    """Derive the decisions from a fingerprint.

    Args:
        steps: number that fits the budget; None: plan for quality.
        canvas_limit: nnU-Net's patch size for the dataset, if it has been planned.
        settings: nested values given by the user; dependent decisions follow them.
    Raises: ConfigError if the settings are unknown, inconsistent, or do not fit the dataset.
    """
    given = settings or {}
    why: dict[str, str] = {"preset": "the default" if preset == "default" else "requested"}
    voxels = size.voxels or SAMPLE_VOXELS[machine.device]
    sample, whole = sample_of(facts, voxels, given.get("data", {}), why)
    network = _network(facts, preset, size, sample, given.get("network", {}), why)
    data = data_of(facts, sample, whole, network, canvas_limit, given.get("data", {}), why)
    data = dataclasses.replace(data, position=_position(preset, data, why))
    planned = Settings(
        preset=preset,
        codec=_codec(facts, preset, why),
        data=data,
        augment=_augment(facts, preset, data, why),
        network=network,
        noise=_noise(facts, preset, data.patch_size, why),
        train=_train(facts, preset, size, steps, budget_minutes, machine, why),
    )
    chosen = from_dict(Settings, merged(to_dict(planned), given))
    if given:
        planned = plan(
            facts, size, machine, preset=preset, steps=steps, budget_minutes=budget_minutes, canvas_limit=canvas_limit
        ).config
    before = flat(to_dict(planned))
    for name in flat(given):
        why[name] = f"given (planned: {before[name]})"
    return Plan(validate(Config(**vars(chosen), facts=facts)), why)


def _position(preset: Preset, data: DataConfig, why: dict[str, str]) -> bool:
    """Whether the network is given the coordinates of voxels in their volume."""
    if data.dims == 2 or preset == "thesis":
        why["data.position"] = "not volumes" if data.dims == 2 else "the thesis's network does not take it"
    elif data.whole:
        why["data.position"] = "whole volumes show where everything lies"
    else:
        why["data.position"] = "a patch does not show where in the volume it lies"
    return data.dims == 3 and not data.whole and preset == "default"


def _codec(facts: Fingerprint, preset: Preset, why: dict[str, str]) -> CodecConfig:
    code = "binary" if facts.classes == 2 else "one-hot" if facts.classes <= 8 else "bits"
    why["codec.mask_code"] = f"{facts.classes} classes"
    why["codec.mask_amplitude"] = (
        "decided at the noise levels of an image" if preset == "default" else "the thesis's masks fill [-1, 1]"
    )
    return CodecConfig(code, 0.5 if preset == "default" else 1.0)


def _network(
    facts: Fingerprint, preset: Preset, size: Size, sample: tuple[int, ...], given: Mapping[str, Any],
    why: dict[str, str],
) -> NetworkConfig:  # fmt: skip
    """The network: its width by the size, its wavelet levels and depth by the sides of a sample."""
    for name in ("base_channels", "blocks_per_level"):
        why[f"network.{name}"] = "network size: by the budget, or else the device"
    why["network.attention_heads"] = "usual"
    sides = "x".join(map(str, sample))
    for name in ("haar_levels", "channel_multipliers", "attention_factors"):
        why[f"network.{name}"] = f"samples of {sides} pixels"
    network = THESIS_NETWORK
    if preset == "default":
        side = math.prod(sample) ** (1 / len(sample))
        haar_levels = given.get("haar_levels", sum(side >= least for least in _HAAR_SIDES[len(sample)]))
        depth = min(4, max(2, 1 + round(math.log2(side / 2**haar_levels / _DEEPEST_SIDE))))
        if len(sample) == 3:
            depth = _depth_for_attention(facts, sample, haar_levels)
        multipliers = tuple(given.get("channel_multipliers", (1, 2, 2, 2, 2)[:depth]))
        network = NetworkConfig(
            size.base_channels, multipliers, size.blocks_per_level, (2 ** (len(multipliers) - 1),),
            haar_levels=haar_levels,
        )  # fmt: skip
    if size.recompute:
        why["network.recompute"] = "two samples do not fit the memory otherwise"
        network = dataclasses.replace(network, recompute=True)
    network = from_dict(NetworkConfig, merged(to_dict(network), given))
    few = network.base_channels >= 64 and facts.items < 200
    why["network.dropout"] = f"{facts.items} images for {network.base_channels} channels"
    return dataclasses.replace(network, dropout=given.get("dropout", 0.1 if few else 0.0))


def _depth_for_attention(facts: Fingerprint, sample: tuple[int, ...], haar_levels: int) -> int:
    """Levels of a network of volumes that attends only where it has at most 8 x 8 x 8 places."""

    def places(depth: int) -> int:
        halvings = haar_levels + depth - 1
        factors = multiples(levels_of(facts.spacing, sample, halvings))
        sides = padded(facts.spacing, sample, halvings)
        return math.prod(side // factor for side, factor in zip(sides, factors, strict=True))

    return next((depth for depth in range(2, 5) if places(depth) <= _DEEPEST_SIDE**3), 5)


def _augment(facts: Fingerprint, preset: Preset, data: DataConfig, why: dict[str, str]) -> AugmentConfig:
    """Augmentation, stronger for fewer images."""
    square = len({*data.patch_size}) == 1
    why["augment.mirror_axes"] = facts.symmetry
    turned = len(facts.mirror_axes) < 2 or facts.quarter_turns
    layout = facts.symmetry if turned else "rotated masks differ from real ones, or images are not square"
    why["augment.quarter_turns"] = layout if square else "patches are not square"
    if preset == "thesis":
        why["augment.probability"] = "the thesis's network is not conditioned on augmentation"
        return AugmentConfig(probability=0.0)
    why["augment.probability"] = f"{facts.items} images"
    few = min(1.0, 200 / max(facts.items, 1))
    return AugmentConfig(round(0.1 + 0.3 * few, 3), facts.mirror_axes, facts.quarter_turns and square)


def _noise(facts: Fingerprint, preset: Preset, patch: tuple[int, ...], why: dict[str, str]) -> NoiseConfig:
    """Levels of training and sampling, higher for larger samples.

    Volumes count as images of as many pixels. The mean of n pixels has 1 / sqrt(n) of the noise of one, so what a large
    sample has in common, such as its light or stain, is decided at levels that grow with its side (larger images need
    more noise: Chen 2023, arXiv:2301.10972). Single pixels are decided at the same levels whatever the side, so the
    levels' 5th percentile stays where it is.
    """
    usual, side = NoiseConfig(), math.sqrt(math.prod(patch))
    growth = math.log(max(1.0, side / _NOISE_SIDE))
    if preset == "default":
        for name in ("log_mean", "log_std", "sigma_max"):
            why[f"noise.{name}"] = f"samples of {'x'.join(map(str, patch))} pixels"
    else:
        growth = 0.0
    if facts.classes == 1:
        usual = dataclasses.replace(usual, equal=1.0, independent=0.0, known_mask=0.0, known_image=0.0)
        why["noise.equal"] = "images without masks have one level"
    return dataclasses.replace(
        usual,
        log_mean=round(usual.log_mean + growth / 2, 3),
        log_std=round(usual.log_std + growth / 2 / _NORMAL_95, 3),
        sigma_max=round(usual.sigma_max * math.exp(growth), 1),
    )


def _train(
    facts: Fingerprint, preset: Preset, size: Size, steps: int | None, budget_minutes: float | None,
    machine: Machine, why: dict[str, str],
) -> TrainConfig:  # fmt: skip
    """Optimisation settings for about `steps` steps.

    With a budget, only elapsed time lowers the learning rate and ends the run, so that a machine that was busy during
    the measurement still uses its full time.
    """
    thesis = preset == "thesis"
    if steps is None:
        steps = MOST_STEPS if thesis else min(MOST_STEPS, 10_000 + 100 * facts.items)
        why["train.steps"] = "as in the thesis" if thesis else f"{facts.items} images"
    else:
        why["train.steps"] = "an upper limit: the budget ends training" if not thesis else "as many as fit the budget"
    often = max(20, min(250, steps // 20))
    why["train.batch_size"] = (
        "as in the thesis" if thesis else "usual" if size.batch_size == 16 else "by the budget, or memory"
    )
    why["train.learning_rate"] = "as in the thesis" if thesis else "usual for AdamW and these networks"
    why["train.warmup_steps"] = "a tenth of the steps, at most 200" if not thesis else "as in the thesis"
    why["train.validate_every"] = "a twentieth of the steps, 20 to 250"
    why["train.sample_every"] = "a quarter of the steps, at most 2000"
    why["train.budget_minutes"] = "no limit" if budget_minutes is None else "given"
    why["train.precision"] = "fast on this processor" if machine.precision == "bf16" else "bf16 is not fast here"
    return TrainConfig(
        steps=steps if thesis or budget_minutes is None else MOST_STEPS,
        batch_size=size.batch_size,
        learning_rate=1e-4 if thesis else 1e-3,  # Zhou 2023, Table 4.1
        warmup_steps=0 if thesis else min(200, steps // 10),
        validate_every=often,
        sample_every=max(often, min(2_000, steps // 4)),
        budget_minutes=budget_minutes,
        precision=machine.precision,
    )

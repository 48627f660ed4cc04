"""An experiment's options, and its settings with all defaults resolved. Does not import nnU-Net."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from jdm.errors import ConfigError

ArmName = Literal[
    "real", "synthetic", "pretrain-finetune", "mix", "real-long", "real-cutmix", "ensemble-2", "ensemble-jdm"
]
ALL_ARMS: tuple[ArmName, ...] = get_args(ArmName)
ARMS = ALL_ARMS[:5]
"""The arms of a plain call; the others are rivals that need no synthetic cases to train on."""
DESCRIPTIONS = {
    "real": "real cases only",
    "synthetic": "synthetic cases only",
    "pretrain-finetune": "synthetic cases, then real ones",
    "mix": "both in every batch",
    "real-long": "real cases only, for the total updates of pretrain-finetune and mix",
    "real-cutmix": "real cases only, mixed by CutMix, for that total",
    "ensemble-2": "real cases only; two networks of different seeds, averaged",
    "ensemble-jdm": "real cases only; one network and the generator as a segmenter, averaged",
}


def _shown(metavar: str | None, default: str | None = None) -> Any:
    """Command-line placeholder of a setting, and the text for a default that depends on others."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=None if default is None else f"(default: {default})")


@dataclass(frozen=True)
class ExperimentOptions:
    """Measure whether synthetic pairs help nnU-Net. A killed run continues.

    Arms: real; synthetic; pretrain-finetune (synthetic, then real); mix (both together); and the control real-long
    (real only, for as many updates as the last two). On request also rivals: real-cutmix (real only, with CutMix),
    ensemble-2 (two networks) and ensemble-jdm (a network and the generator as a segmenter).
    """

    real: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="REAL")]
    """Id or name of the real dataset."""
    synthetic: Annotated[tuple[str, ...], _shown("ID ...")]
    """Synthetic dataset of each --fold, by id or name."""
    fold: Annotated[tuple[str, ...], _shown("F ...")] = ("0",)
    """Folds to train on, 0 to 4 or all. Their validation cases are scored if there is no labelled test set."""
    arms: Annotated[tuple[ArmName, ...], _shown("ARM ...", "the first five")] = ARMS
    """Arms to train."""
    seeds: Annotated[tuple[int, ...], _shown("N ...")] = (0, 1, 2)
    """One training per arm and seed."""
    iterations: Annotated[int | None, _shown("N", "5000, CPU 2000")] = None
    """Updates on real cases in real, pretrain-finetune and mix."""
    pretrain_iterations: Annotated[int | None, _shown("N", "--iterations")] = None
    """Updates on synthetic cases."""
    epochs: Annotated[int, _shown("N")] = 20
    """Epochs that --iterations is divided into; the learning rate changes after each."""
    synthetic_share: Annotated[float | None, _shown("X", "equal updates")] = None
    """Share of synthetic cases in mix."""
    until_plateau: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Give every arm --iterations in total, then twice that, and so on, until real gains less than 0.003 Dice."""
    most_iterations: Annotated[int | None, _shown("N", "16 times --iterations")] = None
    """Longest of these lengths."""
    ratios: Annotated[tuple[float, ...], _shown("X ...", "all pairs")] = ()
    """Amounts of synthetic cases to compare, in amounts of real ones: first parts of --synthetic."""
    train_fraction: Annotated[float, _shown("X")] = 1.0
    """Use this share of the training cases, as the generator did."""
    test: Annotated[tuple[str, ...], _shown("NAME=PATH ...", "none")] = ()
    """More test sets: folders with images/ and labels/, or raw datasets with imagesTs and labelsTs."""
    shard: Annotated[str, _shown("i/n")] = "0/1"
    """Share the trainings among n processes."""
    quick: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Try the command: two lengths of a few updates, a small network, one seed."""
    configuration: Annotated[str | None, _shown("NAME", "2d, or 3d_fullres")] = None
    """nnU-Net configuration of all arms; 3d_fullres for a generator of whole volumes."""
    plans: Annotated[str, _shown("NAME")] = "nnUNetPlans"
    """The real dataset's plans."""
    patch_size: Annotated[tuple[int, ...] | None, _shown("N ...", "planned, CPU up to 128")] = None
    """Patch size in pixels."""
    batch_size: Annotated[int | None, _shown("N", "planned, CPU 8")] = None
    """Patches per update."""
    network_features: Annotated[tuple[int, ...] | None, _shown("N ...", "planned, CPU 16 to 128")] = None
    """Channels per stage."""
    learning_rate: Annotated[float, _shown("X")] = 1e-2
    """Initial learning rate."""
    keep_head: Annotated[bool, tyro.conf.arg(help="Finetune with a new segmentation head.", help_behavior_hint="")] = (
        True
    )
    """Finetune with the pretrained segmentation head."""
    mirroring: Annotated[bool | None, _shown("{True,False}", "GPU only")] = None
    """Test-time mirroring."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], _shown("NAME")] = "auto"
    """auto, cpu, cuda or mps."""
    threads: Annotated[int | None, _shown("N", "fastest")] = None
    """Torch threads on a CPU."""
    workers: Annotated[int | None, _shown("N", "0, GPU up to 12")] = None
    """Augmentation processes; with 0, runs are exactly repeatable."""
    out: Annotated[Path | None, _shown("PATH", "in jdm_results")] = None
    """Output folder."""
    overwrite: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Discard an experiment with other settings in --out."""


@dataclass(frozen=True)
class Resolved:
    """An experiment's settings with all defaults resolved; saved with the results and compared when continuing."""

    real: str
    synthetic: str
    cases_sha256: str
    """SHA-256 of the synthetic dataset's provenance and all case ids, so that another export is another experiment."""
    fold: int | str
    iterations_per_epoch: int
    epochs: int
    pretrain_epochs: int
    mix_epochs: int
    synthetic_share: float
    configuration: str
    plans: str
    patch_size: tuple[int, ...]
    batch_size: int
    network_features: tuple[int, ...]
    learning_rate: float
    keep_head: bool
    mirroring: bool
    device: str
    threads: int
    workers: int
    split_sha256: str
    """SHA-256 of the ids trained on and scored, so that another split or test set is another experiment."""

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class Schedule:
    """Training lengths in epochs; an epoch has the same number of updates in every arm."""

    iterations_per_epoch: int
    epochs: int
    pretrain_epochs: int
    mix_epochs: int
    synthetic_share: float


def schedule(iterations: int, pretrain_iterations: int, epochs: int, share: float | None) -> Schedule:
    """Divide updates into epochs; real, pretrain-finetune and mix get equally many updates on real cases.

    Args:
        iterations, pretrain_iterations: wanted updates on real and on synthetic cases.
        share: share of synthetic cases in arm mix; None: mix has as many updates as pretraining and finetuning.
    Raises: ConfigError naming the flag that is out of range.
    """
    for flag, value in (("--iterations", iterations), ("--pretrain-iterations", pretrain_iterations)):
        if value < 1:
            raise ConfigError(f"{flag} is {value}; expected at least 1; give a larger number")
    if not 1 <= epochs <= iterations:
        raise ConfigError(f"--epochs is {epochs}; expected 1 to --iterations ({iterations}); correct it")
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"--synthetic-share is {share}; expected a number between 0 and 1; correct it")
    per_epoch = max(1, round(iterations / epochs))
    pretrain_epochs = max(1, round(pretrain_iterations / per_epoch))
    if share is None:
        mix_epochs = epochs + pretrain_epochs
        share = pretrain_epochs / mix_epochs
    else:
        mix_epochs = max(1, round(epochs / (1 - share)))
    return Schedule(per_epoch, epochs, pretrain_epochs, mix_epochs, share)

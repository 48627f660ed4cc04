"""An experiment's settings, its arms, and the trainings behind them. Does not import nnU-Net."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from jdm.errors import ConfigError

ArmName = Literal["real", "synthetic", "pretrain-finetune", "mix", "real-long"]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
DESCRIPTIONS = {
    "real": "real cases only",
    "synthetic": "synthetic cases only",
    "pretrain-finetune": "synthetic cases, then real ones",
    "mix": "both in every batch",
    "real-long": "real cases only, for the total updates of pretrain-finetune and mix",
}


def _shown(metavar: str | None, default: str | None = None) -> Any:
    """Command-line placeholder of a setting, and the text for a default that depends on others."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=None if default is None else f"(default: {default})")


@dataclass(frozen=True)
class ExperimentOptions:
    """Measure whether synthetic pairs help nnU-Net. A killed run continues.

    Arms: real; synthetic; pretrain-finetune (synthetic, then real); mix (both together); and the control real-long
    (real only, for as many updates as the last two).
    """

    real: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="REAL")]
    """Id or name of the real dataset."""
    synthetic: Annotated[str, _shown("ID")]
    """Id or name of the synthetic dataset."""
    fold: Annotated[str, _shown("F")] = "0"
    """Fold to train on, 0 to 4 or all. Its validation cases are scored if there is no labelled test set."""
    arms: Annotated[tuple[ArmName, ...], _shown("ARM ...", "all")] = ARMS
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


@dataclass(frozen=True)
class Training:
    """One nnU-Net training; some arms share one."""

    name: str
    trainer: str
    synthetic_set: bool
    """Whether it trains on the whole synthetic dataset; otherwise on the real dataset's fold."""
    epochs: int
    after: str | None = None
    """Name of the training that provides its initial weights."""


def trainings(settings: Resolved) -> dict[ArmName, Training]:
    """The training whose network is scored, by arm."""
    return {
        "real": Training("real", "nnUNetTrainerJDM", False, settings.epochs),
        "synthetic": pretraining(settings),
        "pretrain-finetune": Training("finetune", "nnUNetTrainerJDMFinetune", False, settings.epochs, after="pretrain"),
        "mix": Training("mix", "nnUNetTrainerJDMMix", False, settings.mix_epochs),
        "real-long": Training("real-long", "nnUNetTrainerJDM", False, settings.epochs + settings.pretrain_epochs),
    }


def pretraining(settings: Resolved) -> Training:
    """Training on synthetic cases: the arm synthetic, and the start of pretrain-finetune."""
    return Training("pretrain", "nnUNetTrainerJDMPretrain", True, settings.pretrain_epochs)


def needed_trainings(settings: Resolved, arms: tuple[ArmName, ...]) -> list[Training]:
    """All required trainings, each once; pretraining comes before the trainings that use it."""
    of_arm = trainings(settings)
    chosen = [of_arm[arm] for arm in arms]
    if any(training.after for training in chosen):
        chosen = [pretraining(settings), *chosen]
    return list(dict.fromkeys(sorted(chosen, key=lambda training: training.after is not None)))


def updates(settings: Resolved, arm: ArmName) -> tuple[float, float]:
    """Updates on real and on synthetic cases; for arm mix these are expected values."""
    per_epoch = settings.iterations_per_epoch
    real, synthetic = settings.epochs * per_epoch, settings.pretrain_epochs * per_epoch
    mixed = settings.mix_epochs * per_epoch
    return {
        "real": (real, 0.0),
        "synthetic": (0.0, synthetic),
        "pretrain-finetune": (real, synthetic),
        "mix": (mixed * (1 - settings.synthetic_share), mixed * settings.synthetic_share),
        "real-long": (real + synthetic, 0.0),
    }[arm]


def padding_of_arm(settings: Resolved, arm: ArmName, real: float, synthetic: float) -> float:
    """Share of padding in an arm's training patches.

    Args:
        real, synthetic: share of padding in patches of real and of synthetic cases.
    """
    on_real, on_synthetic = updates(settings, arm)
    return (on_real * real + on_synthetic * synthetic) / (on_real + on_synthetic)

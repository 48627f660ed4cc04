"""What an experiment compares: its settings, its arms, and the trainings behind them. No nnU-Net in here."""

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
    "real-long": "real cases only, also for the updates that others spend on synthetic ones",
}


@dataclass(frozen=True)
class ExperimentOptions:
    """Measure whether synthetic pairs help: train nnU-Net with and without them, score all on the same test set.

    Every arm has the same plans and the same initial network per seed. The arms real, pretrain-finetune and mix have
    equally many updates on real cases, synthetic has none, and real-long as many as pretrain-finetune in total.
    Writes results.json, results.md and pictures; a killed run continues where it stopped.
    """

    real: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="REAL")]
    """Id or name of the real dataset, for instance 11."""
    synthetic: str
    """Id or name of the synthetic dataset, for instance 511."""
    fold: str = "0"
    """Fold whose training cases are used, 0 to 4, or all. Without a labelled test set its validation cases test."""
    arms: tuple[ArmName, ...] = ARMS
    """What to compare; real-long spends the pretraining's updates on real cases."""
    seeds: tuple[int, ...] = (0, 1, 2)
    iterations: int | None = None
    """Updates on real cases in the arms real, pretrain-finetune and mix. Default: 5000 on a GPU, 2000 on a CPU."""
    pretrain_iterations: int | None = None
    """Updates on synthetic cases before finetuning. Default: as many as --iterations."""
    epochs: int = 20
    """Epochs into which --iterations are divided: steps of the learning rate, points of nnU-Net's curves."""
    synthetic_share: float | None = None
    """Arm mix: share of synthetic cases. Default: such that it takes as many updates as pretrain-finetune."""
    configuration: str = "2d"
    """nnU-Net configuration from which that of all arms is derived."""
    plans: str = "nnUNetPlans"
    """Name of the real dataset's plans."""
    patch_size: tuple[int, ...] | None = None
    """Pixels per side, for all arms. Default: the plans', or the synthetic pairs' where smaller; on a CPU up to 128."""
    batch_size: int | None = None
    """For all arms. Default: the plans' on a GPU; 8 on a CPU."""
    network_features: tuple[int, ...] | None = None
    """Channels per resolution stage, for all arms. Default: the plans' on a GPU; 16 32 64 128 on a CPU."""
    learning_rate: float = 1e-2
    keep_head: bool = True
    """Finetuning goes on with the pretrained segmentation head; nnU-Net itself would restart it."""
    mirroring: bool | None = None
    """Average predictions over mirrored inputs, at four times the cost. Default: on a GPU only."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None
    """Torch threads on a CPU. Default: measured once, 1 or all cores, whichever is faster."""
    workers: int | None = None
    """Augmentation processes; 0 works in this one and repeats exactly. Default: 0 on a CPU, up to 12 on a GPU."""
    out: Path | None = None
    """Default: experiment_fold_F in the dataset's folder under jdm_results."""
    overwrite: bool = False
    """Discard what an experiment with other settings left in --out."""


@dataclass(frozen=True)
class Resolved:
    """An experiment's settings with nothing left open; kept beside the results and compared when continuing."""

    real: str
    synthetic: str
    cases_sha256: str
    """Of the synthetic set's provenance and all case ids: another export is another experiment."""
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
    """Of the ids that are trained on and scored: another split or test set is another experiment."""

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class Schedule:
    """Lengths in epochs; an epoch has the same number of updates in every arm."""

    iterations_per_epoch: int
    epochs: int
    pretrain_epochs: int
    mix_epochs: int
    synthetic_share: float


def schedule(iterations: int, pretrain_iterations: int, epochs: int, share: float | None) -> Schedule:
    """Divide updates into epochs so that real, pretrain-finetune and mix have as many on real cases, to whole epochs.

    Args:
        iterations, pretrain_iterations: wanted updates on real and on synthetic cases.
        share: of synthetic cases in arm mix; None: such that it has as many updates as pretraining and finetuning.
    Raises: ConfigError naming the flag that is out of range.
    """
    for flag, value in (("--iterations", iterations), ("--pretrain-iterations", pretrain_iterations)):
        if value < 1:
            raise ConfigError(f"{flag} is {value}; expected at least 1; give a larger number")
    if not 1 <= epochs <= iterations:
        raise ConfigError(f"--epochs is {epochs}; expected 1 to --iterations ({iterations}); choose one of these")
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
    """Trains on the synthetic dataset, all of it; otherwise on the real one's fold."""
    epochs: int
    after: str | None = None
    """Training whose weights it starts from."""


def trainings(settings: Resolved) -> dict[ArmName, Training]:
    """The training whose network each arm is scored with."""
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
    """Each training once, those that others start from first."""
    of_arm = trainings(settings)
    chosen = [of_arm[arm] for arm in arms]
    if any(training.after for training in chosen):
        chosen = [pretraining(settings), *chosen]
    return list(dict.fromkeys(sorted(chosen, key=lambda training: training.after is not None)))


def updates(settings: Resolved, arm: ArmName) -> tuple[float, float]:
    """Updates on real and on synthetic cases; those of arm mix in expectation."""
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
    """Share of padding in what an arm was trained on.

    Args:
        real, synthetic: the share in a patch of a real and of a synthetic case.
    """
    on_real, on_synthetic = updates(settings, arm)
    return (on_real * real + on_synthetic * synthetic) / (on_real + on_synthetic)

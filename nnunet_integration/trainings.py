"""The trainings behind each arm, at each point of a study. Does not import nnU-Net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jdm.errors import ConfigError
from nnunet_integration.arms import ArmName, ExperimentOptions, Resolved

PAIR_ARMS: tuple[ArmName, ...] = ("synthetic", "pretrain-finetune", "mix")
"""The arms that train on synthetic cases."""
LONGEST = 16
"""Times --iterations up to which --until-plateau doubles by default."""


@dataclass(frozen=True)
class Point:
    """Where a study compares the arms; by default as --iterations and --pretrain-iterations say, on all cases."""

    epochs: int | None = None
    """Epochs of every arm in total; None: the arms' own, which differ."""
    ratio: float | None = None
    """Amount of synthetic cases, in amounts of real ones; None: the whole synthetic dataset."""

    def folder(self, per_epoch: int) -> str:
        """Name for its results; empty for the default. Args: per_epoch: updates of an epoch."""
        updates = "" if self.epochs is None else f"updates_{self.epochs * per_epoch}"
        ratio = "" if self.ratio is None else f"ratio_{self.ratio:g}"
        return "_".join(filter(None, (updates, ratio)))


PLAIN = Point()


@dataclass(frozen=True)
class Training:
    """One nnU-Net training; some arms and some points share one."""

    name: str
    """Name of its folder: equal names are the same training."""
    trainer: str
    share: float
    """Share of synthetic cases: 0 on the real dataset's fold, 1 on the synthetic dataset."""
    epochs: int
    after: Training | None = None
    """The training that provides its initial weights."""
    ratio: float | None = None
    """Amount of synthetic cases, in amounts of real ones, the first of the export; None: all."""

    def chain(self) -> Iterator[Training]:
        """The trainings to do in this order, the last of which is this one."""
        if self.after is not None:
            yield from self.after.chain()
        yield self


def networks(settings: Resolved, arm: ArmName, point: Point = PLAIN) -> tuple[Training, ...]:
    """The trainings whose networks an arm averages; almost always one. Equal ones differ in their seed.

    At a point with a length, each arm has that many epochs in total: half on synthetic and half on real cases in
    pretrain-finetune, half for each network of ensemble-2.
    """
    plain = point.epochs is None
    total = point.epochs or settings.epochs + settings.pretrain_epochs
    before = settings.pretrain_epochs if plain else total // 2
    after = settings.epochs if plain else total - before

    def training(name: str, trainer: str, epochs: int, share: float = 0.0, start: Training | None = None) -> Training:
        updates = "" if plain else f"_{epochs * settings.iterations_per_epoch}"
        amount = point.ratio if share or start else None
        ratio = "" if amount is None else f"_ratio_{amount:g}"
        return Training(f"{name}{updates}{ratio}", f"nnUNetTrainerJDM{trainer}", share, epochs, start, amount)

    def pretraining(epochs: int) -> Training:
        return training("pretrain", "Pretrain", epochs, share=1.0)

    def real(epochs: int) -> Training:
        return training("real", "", epochs)

    long = training("real-long", "", total) if plain else real(total)
    match arm:
        case "real":
            return (real(after if plain else total),)
        case "synthetic":
            return (pretraining(before if plain else total),)
        case "pretrain-finetune":
            return (training("finetune", "Finetune", after, start=pretraining(before)),)
        case "mix":
            return (training("mix", "Mix", settings.mix_epochs if plain else total, settings.synthetic_share),)
        case "real-cutmix":
            return (training("real-cutmix", "CutMix", total),)
        case "ensemble-2":
            return (real(after), real(after))
        case _:
            return (long,)


def needed_trainings(settings: Resolved, arms: Iterable[ArmName], point: Point = PLAIN) -> list[Training]:
    """All required trainings, each once; pretraining comes before the trainings that use it."""
    chosen = [training for arm in arms for training in networks(settings, arm, point)]
    chosen.sort(key=lambda training: training.after is not None)
    return list(dict.fromkeys(each for training in chosen for each in training.chain()))


def updates(settings: Resolved, arm: ArmName, point: Point = PLAIN) -> tuple[float, float]:
    """Updates on real and on synthetic cases, over all networks of an arm; for arm mix these are expected values."""
    done = [each for training in networks(settings, arm, point) for each in training.chain()]
    real = sum(each.epochs * (1 - each.share) for each in done)
    synthetic = sum(each.epochs * each.share for each in done)
    return real * settings.iterations_per_epoch, synthetic * settings.iterations_per_epoch


def padding_of_arm(settings: Resolved, arm: ArmName, padding: tuple[float, float], point: Point = PLAIN) -> float:
    """Share of padding in an arm's training patches.

    Args:
        padding: share of padding in patches of real and of synthetic cases.
    """
    on_real, on_synthetic = updates(settings, arm, point)
    return (on_real * padding[0] + on_synthetic * padding[1]) / (on_real + on_synthetic)


def doubled(options: ExperimentOptions, epochs: int, per_epoch: int) -> list[int]:
    """The lengths of --until-plateau in epochs, each twice the one before.

    Raises: ConfigError if --most-iterations does not allow two.
    """
    most = options.most_iterations or LONGEST * epochs * per_epoch
    if most < 2 * epochs * per_epoch:
        raise ConfigError(
            f"--most-iterations is {most}; expected at least {2 * epochs * per_epoch}, twice --iterations; enlarge it"
        )
    lengths = [epochs]
    while 2 * lengths[-1] * per_epoch <= most:
        lengths.append(2 * lengths[-1])
    return lengths

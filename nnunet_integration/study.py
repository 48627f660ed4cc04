"""The trainings of an experiment in order: at one length and amount, or until a plateau, and by amount."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from jdm.errors import ConfigError, DataError
from jdm.export.request import shard_of
from nnunet_integration import host
from nnunet_integration.arms import ArmName, ExperimentOptions
from nnunet_integration.case_sets import CaseSet
from nnunet_integration.claims import fold_of, locks_folder
from nnunet_integration.comparison import read_cells
from nnunet_integration.plans import padding_share
from nnunet_integration.preparation import Experiment
from nnunet_integration.trainings import PAIR_ARMS, Point, doubled
from nnunet_integration.verdict import NOT_LEARNED
from nnunet_integration.work import Job, finish, read_scores

RISE = 0.003
"""A length is the plateau if an arm gained less Dice than this over half the length."""


@dataclass(frozen=True)
class Lengths:
    """What training for longer brought."""

    judged: Mapping[int, Mapping[ArmName, float | None]]
    """Mean Dice on the judging cases by epochs and arm, shortest first; None without cells."""
    plateaus: Mapping[ArmName, int | None]
    """Epochs at each arm's plateau; None: not reached."""

    @property
    def longest(self) -> int:
        return max(self.judged)

    @property
    def compared(self) -> int:
        """Epochs at which the arms are compared: real's plateau, or the longest."""
        return self.plateaus["real"] or self.longest

    def own(self, arm: ArmName) -> int:
        """Epochs at an arm's own plateau, or the longest."""
        return self.plateaus[arm] or self.longest


@dataclass(frozen=True)
class Study:
    """An experiment on one or several folds."""

    options: ExperimentOptions
    folder: Path
    experiments: tuple[Experiment, ...]
    """One per fold."""

    @property
    def per_epoch(self) -> int:
        """Updates of an epoch."""
        return self.experiments[0].settings.iterations_per_epoch

    @cached_property
    def padding(self) -> tuple[float, float]:
        """Share of padding in the first fold's patches of real and of synthetic cases."""
        first, patch = self.experiments[0], self.experiments[0].settings.patch_size
        real = host.preprocessed_shapes(first.preprocessed(first.real), first.training_ids)
        synthetic = host.preprocessed_shapes(first.preprocessed(first.synthetic), first.synthetic.cases)
        return padding_share(real, patch), padding_share(synthetic, patch)

    @property
    def main_ratio(self) -> float | None:
        """The amount that lengths are measured and the verdict is given at: the largest one asked for."""
        return max(self.options.ratios, default=None)

    def jobs(self, point: Point, arms: Sequence[ArmName]) -> list[Job]:
        """All arms with all seeds on all folds."""
        seeds = self.options.seeds
        return [
            Job(experiment, locks_folder(self.folder), arm, seed, seeds, point)
            for seed in seeds
            for experiment in self.experiments
            for arm in arms
        ]

    def scores(self, point: Point, arm: ArmName, of: Callable[[Experiment], CaseSet]) -> dict[Any, Any] | None:
        """The evaluations of an arm; None if some are missing.

        Those of folds that score different cases are joined by seed; else each fold's network is one more replicate.
        Args: of: the case set of a fold.
        """
        jobs = self.jobs(point, (arm,))
        if not all(job.score_file(of(job.experiment)).is_file() for job in jobs):
            return None
        found = [(job, read_scores(job, of(job.experiment))) for job in jobs]
        if len(self.experiments) == 1:
            return {job.seed: scores for job, scores in found}
        if len({tuple(of(experiment).ids) for experiment in self.experiments}) == 1:
            return {f"fold {job.experiment.settings.fold}, seed {job.seed}": scores for job, scores in found}
        joined: dict[Any, Any] = {}
        for job, scores in found:
            before = joined.get(job.seed, {"cases": []})
            joined[job.seed] = {**scores, "cases": [*before["cases"], *scores["cases"]]}
        return joined

    def groups(self, of: Callable[[Experiment], CaseSet]) -> dict[str, str]:
        """Group of each case of all folds."""
        return {case: group for experiment in self.experiments for case, group in of(experiment).group_of.items()}

    def mean_dice(self, point: Point, arm: ArmName, of: Callable[[Experiment], CaseSet]) -> float | None:
        """Mean Dice over the cells whose reference has the class; None without such cells."""
        scores = self.scores(point, arm, of)
        assert scores is not None  # all jobs are done
        cells = read_cells({arm: scores}, self.groups(of))
        mean = cells.mean(arm, "dice", cells.present)
        return None if mean is None else mean["mean"]


def judging(experiment: Experiment) -> CaseSet:
    """The cases that judge lengths: the validation cases, or, if those are scored or there are none, the scored."""
    return experiment.judged or experiment.scored


def checked(options: ExperimentOptions) -> ExperimentOptions:
    """The options, with those that --quick replaces. Raises: ConfigError for options that do not go together."""
    shard_of(options.shard)
    if options.quick:
        options = replace(
            options, iterations=4, epochs=2, pretrain_iterations=None, until_plateau=True, most_iterations=8,
            seeds=options.seeds[:1], batch_size=2, network_features=(8, 16, 32),
        )  # fmt: skip
    if len(options.synthetic) != len(options.fold) or len({*map(fold_of, options.fold)}) != len(options.fold):
        raise ConfigError(
            f"--fold has {' '.join(options.fold)} and --synthetic {' '.join(options.synthetic)}; expected different "
            "folds and one synthetic dataset for each, made by a generator that was trained on that fold"
        )
    if not options.seeds or not options.arms or len({*options.seeds}) != len(options.seeds):
        raise ConfigError("--seeds and --arms: expected at least one of each, each seed once; correct them")
    if not options.until_plateau:
        if options.most_iterations is not None:
            raise ConfigError("--most-iterations is given without --until-plateau; expected both; add the latter")
        return options
    if "real" not in options.arms:
        raise ConfigError("--arms lacks real, whose plateau --until-plateau looks for; expected it; add it")
    if options.pretrain_iterations is not None:
        raise ConfigError(
            "--pretrain-iterations is given with --until-plateau, which gives all arms equal totals; expected one; "
            "remove either"
        )
    if options.epochs % 2:
        raise ConfigError(
            f"--epochs is {options.epochs}; expected an even number with --until-plateau, because pretrain-finetune "
            "halves it"
        )
    return options


def plateau(dice: Mapping[int, float | None]) -> int | None:
    """The first length over whose second half less than RISE was gained; None if there is none.

    Args: dice: by length, each twice the one before. Below NOT_LEARNED nothing has been learned yet.
    """
    lengths = list(dice)
    for before, length in pairwise(lengths):
        first, second = dice[before], dice[length]
        if first is not None and second is not None and second >= NOT_LEARNED and second - first < RISE:
            return length
    return None


def train_lengths(study: Study) -> Lengths:
    """Train all arms at doubling lengths, until the plateau of real."""
    arms, judged = arms_at_lengths(study.options), {}
    settings = study.experiments[0].settings
    for epochs in doubled(study.options, settings.epochs, study.per_epoch):
        point = Point(epochs, study.main_ratio)
        finish(study.jobs(point, arms), shard_of(study.options.shard))
        judged[epochs] = {arm: study.mean_dice(point, arm, judging) for arm in arms}
        if plateau({length: dice["real"] for length, dice in judged.items()}) is not None:
            break
    return Lengths(judged, {arm: plateau({n: dice[arm] for n, dice in judged.items()}) for arm in arms})


def arms_at_lengths(options: ExperimentOptions) -> tuple[ArmName, ...]:
    """The arms without real-long, which is real where all totals are equal."""
    return tuple(arm for arm in options.arms if arm != "real-long")


def points(study: Study, lengths: Lengths | None) -> list[Point]:
    """The points to compare at besides lengths, the main one first: the other amounts of synthetic cases."""
    epochs = None if lengths is None else lengths.compared
    others = sorted({*study.options.ratios} - {study.main_ratio}, key=float)
    return [Point(epochs, study.main_ratio), *(Point(epochs, ratio) for ratio in others)]


def train_points(study: Study, lengths: Lengths | None) -> bool:
    """Train what the points need beyond the lengths. Returns: False if other processes are still at it."""
    main, *others = points(study, lengths)
    arms = study.options.arms if lengths is None else ()
    pairs: list[ArmName] = [arm for arm in study.options.arms if arm in PAIR_ARMS]
    jobs = [*study.jobs(main, arms), *(job for point in others for job in study.jobs(point, pairs))]
    return finish(jobs, shard_of(study.options.shard), wait=False)


def check_folds(experiments: Sequence[Experiment]) -> None:
    """Raises: DataError if a case is a validation case of several folds, which would count it several times."""
    seen: dict[str, Any] = {}
    for experiment in experiments:
        for case in [] if experiment.on_test_set else experiment.scored.ids:
            if case in seen and len(experiments) > 1:
                raise DataError(f"{case} is scored on folds {seen[case]} and {experiment.settings.fold}; expected once")
            seen[case] = experiment.settings.fold

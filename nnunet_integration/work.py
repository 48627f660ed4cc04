"""The trainings and scores of a study, each done once, by this process or by another one that shares the work."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jdm.evaluation.metrics import evaluate_folders
from jdm.system.files import write_json
from jdm.system.locks import locked
from nnunet_integration import host
from nnunet_integration.arms import ArmName
from nnunet_integration.case_sets import CaseSet
from nnunet_integration.generator import segmented
from nnunet_integration.preparation import Experiment
from nnunet_integration.settings import TrainerSettings
from nnunet_integration.trainings import PLAIN, Point, Training, networks

_POLL = 2.0
"""Seconds between looks at what other processes have finished."""


@dataclass(frozen=True)
class Job:
    """One arm with one seed at one point, on one fold: its trainings, predictions and scores."""

    experiment: Experiment
    locks: Path
    """Folder of the locks that exclude other processes."""
    arm: ArmName
    seed: int
    seeds: tuple[int, ...]
    """All seeds of the study; the second network of an ensemble has the next one."""
    point: Point = PLAIN

    @property
    def sets(self) -> list[CaseSet]:
        """The case sets that the arm is scored on; lengths are judged only at a point with a length."""
        judged = self.experiment.judged if self.point.epochs is not None else None
        return [self.experiment.scored, *self.experiment.tests, *([judged] if judged else [])]

    @property
    def networks(self) -> list[tuple[Training, int]]:
        """The trainings whose networks are averaged, each with its seed."""
        place, found = self.seeds.index(self.seed), []
        for number, training in enumerate(networks(self.experiment.settings, self.arm, self.point)):
            following = self.seeds[(place + number) % len(self.seeds)]
            found.append((training, following if len(self.seeds) > 1 else self.seed + number))
        return found

    def lock(self, what: str) -> Path:
        return self.locks / f"{self.experiment.folder.name}_{what}.lock"

    def score_file(self, cases: CaseSet) -> Path:
        return cases.folder / "scores" / self._place / f"{self.arm}_seed_{self.seed}.json"

    def predictions(self, cases: CaseSet) -> Path:
        return cases.folder / "predictions" / self._place / self.arm / f"seed_{self.seed}"

    @property
    def done(self) -> bool:
        return all(self.score_file(cases).is_file() for cases in self.sets)

    @property
    def _place(self) -> str:
        return self.point.folder(self.experiment.settings.iterations_per_epoch)


def finish(jobs: Sequence[Job], shard: tuple[int, int], *, wait: bool = True) -> bool:
    """Do all jobs that are not done: first this shard's, then those that no other process has begun.

    Args:
        shard: (index, count).
        wait: for jobs that other processes are doing; otherwise return while they do them.
    Returns: whether all are done.
    Raises: DataError as `host.train`.
    """
    index, count = shard
    own = list(range(index, len(jobs), count))
    # from the end, where the others come last
    order = [jobs[n] for n in [*own, *sorted({*range(len(jobs))} - {*own}, reverse=True)]]
    with tqdm(total=_epochs(jobs), unit="epoch", file=sys.__stderr__, disable=None) as bar:
        counted, waiting = set[tuple[Path, int]](), False
        while missing := [job for job in order if not job.done]:
            idle = True
            for job in missing:
                what = "_".join(filter(None, (job.arm, str(job.seed), job._place)))
                with locked(job.lock(f"score_{what}"), wait=False) as free:
                    if free:
                        bar.set_description(f"{job.arm}, seed {job.seed}")
                        _do(job, bar, counted)
                        idle = False
            if idle and not wait:
                return False
            if idle and not waiting:
                print(f"waiting for {len(missing)} scores that other shards are making", file=sys.stderr, flush=True)
            waiting = idle
            if idle:
                time.sleep(_POLL)
    return True


def _epochs(jobs: Iterable[Job]) -> int:
    """Epochs of all trainings behind the jobs, each counted once."""
    found = {
        (job.experiment.folder, each.name, seed): each.epochs
        for job in jobs
        for training, seed in job.networks
        for each in training.chain()
    }
    return sum(found.values())


def _do(job: Job, bar: tqdm, counted: set[tuple[Path, int]]) -> None:
    for training, seed in job.networks:
        for each in training.chain():
            run = host_run(job.experiment, each, seed)
            fresh = (run.results, seed) not in counted
            counted.add((run.results, seed))
            with locked(job.lock(f"train_{each.name}_{seed}")):  # several arms may need it
                _train(job.experiment, run, bar.update if fresh else lambda *_: None)
    for cases in job.sets:
        _score(job, cases)


def _train(experiment: Experiment, run: host.HostRun, on_epoch: Callable[..., object]) -> None:
    if run.checkpoint.is_file():
        on_epoch(run.settings.epochs)
        return
    start = time.perf_counter()
    host.train(run, experiment.device, experiment.settings.workers, on_epoch, experiment.log)
    minutes = (time.perf_counter() - start) / 60
    write_json(run.results / "training.json", {"minutes": minutes, "epochs": run.settings.epochs})


def host_run(experiment: Experiment, training: Training, seed: int) -> host.HostRun:
    """A training as nnU-Net's host runs it."""
    settings, on_synthetic = experiment.settings, training.share == 1
    dataset = experiment.synthetic if on_synthetic else experiment.real
    weights = None
    if training.after is not None:
        weights = str(host_run(experiment, training.after, seed).checkpoint)
    return host.HostRun(
        trainer=training.trainer,
        fold="all" if on_synthetic else settings.fold,
        settings=TrainerSettings(
            epochs=training.epochs,
            iterations=settings.iterations_per_epoch,
            val_iterations=max(1, settings.iterations_per_epoch // 25),
            learning_rate=settings.learning_rate,
            seed=seed,
            synthetic=experiment.synthetic.name,
            synthetic_share=settings.synthetic_share,
            synthetic_count=None if training.ratio is None else experiment.counts[training.ratio],
            train_fraction=1.0 if on_synthetic else experiment.train_fraction,
            keep_head=settings.keep_head,
            pretrained_weights=weights,
        ),
        plans=experiment.plans[dataset.name],
        configuration=experiment.configuration,
        dataset_json=json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8")),
        results=experiment.folder / "runs" / training.name / f"seed_{seed}",
        training_ids=None if on_synthetic else experiment.training_ids,
    )


def _score(job: Job, cases: CaseSet) -> None:
    """Predict cases and score them at native size, unless this has been done."""
    file = job.score_file(cases)
    if file.is_file():
        return
    experiment, folder = job.experiment, job.predictions(cases)
    runs = [host_run(experiment, training, seed) for training, seed in job.networks]
    where = (experiment.device, experiment.settings.mirroring, experiment.log)
    if len(runs) == 1 and job.arm != "ensemble-jdm":
        host.predict(runs[0], cases.images, folder, *where)
    else:
        members = [folder / "members" / str(number) for number in range(len(runs))]
        for run, member in zip(runs, members, strict=True):
            host.predict(run, cases.images, member, *where, probabilities=True)
        if job.arm == "ensemble-jdm":
            assert experiment.generator is not None  # checked when prepared
            members.append(segmented(experiment.generator, cases, experiment.settings.device))
        host.average(runs[0], cases.ids, members, folder)
        shutil.rmtree(folder / "members")
    references = cases.copy_references(experiment.real.file_ending)
    scores = evaluate_folders(folder, references, "nnunet", labels=experiment.real.labels)
    write_json(file, scores.to_dict())


def read_scores(job: Job, cases: CaseSet) -> dict[str, Any]:
    """The scores of a finished job, `Evaluation.to_dict()`."""
    return json.loads(job.score_file(cases).read_text(encoding="utf-8"))

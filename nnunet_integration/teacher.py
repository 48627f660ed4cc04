"""Networks that judge synthetic pairs: nnU-Nets of a fold's real training cases, each trained on one part of them.

A real case is judged by the network that did not see it, which calibrates what is said of synthetic pairs. Validation
and test cases take no part, so that pairs chosen by these networks are no leak.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, nnunet_folder
from jdm.data.splits import fold_split
from jdm.draw.run import Run
from jdm.errors import DataError, ExistsError
from jdm.evaluation.agreement import Agreement, agreement, averaged, least
from jdm.evaluation.planes import training_groups
from jdm.system.files import strict, write_json
from jdm.system.locks import held
from jdm.system.processes import device_name
from jdm.train.checkpoint import run_folder
from nnunet_integration import host
from nnunet_integration.plans import resolve, stage_strides, with_experiment_configuration
from nnunet_integration.preparation import CPU_BATCH, CPU_FEATURES, available_cores, default_patch, median_shape
from nnunet_integration.register import (
    STOCK_PLANS,
    alone,
    chatter_to,
    check_masks,
    check_same_kind,
    plan_dataset,
    preprocess,
    progress,
)
from nnunet_integration.segmenter import Segmenter
from nnunet_integration.settings import TrainerSettings

PARTS, UPDATES, EPOCHS = 2, 2000, 20
"""Parts of the training cases, and the updates of each network in so many epochs. After 1000, one of the two networks
of 12 hippocampus volumes had just begun to learn a class."""
_UNEQUAL = 0.2
"""Difference in mean agreement with real cases above which one network has learned too little to judge."""
CONFIGURATION, SETTINGS, SCORES = "2d", "teacher.json", "agreement.json"


@dataclass(frozen=True)
class Teacher:
    """The trained networks of one fold, and their agreement with the real cases that each did not see."""

    folder: Path
    checkpoints: tuple[Path, ...]
    """Folder of each network."""
    sha256: str
    """Of all networks."""
    labels: Mapping[str, int]
    device: str
    threads: int
    real: Mapping[str, Agreement]
    """By training case of the fold."""

    @functools.cached_property
    def networks(self) -> list[Segmenter]:
        return [Segmenter(folder, self.device, self.folder / "nnunet.log") for folder in self.checkpoints]

    def least(self, share: float) -> float:
        """See `jdm.evaluation.agreement.least`."""
        return least(self.real, share)

    def score(self, images: Sequence[Path], label: Path, by: Sequence[int] = range(PARTS)) -> Agreement:
        """Agreement with one case, mean over networks. Args: images: a file per channel. by: the networks."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            reader = self.networks[0].predictor.plans_manager.image_reader_writer_class()
            with chatter_to(self.folder / "nnunet.log"):
                image, properties = reader.read_images([str(file) for file in images])
                mask = reader.read_seg(str(label))[0][0]
            found = []
            for number in by:
                softmax, features = self.networks[number].probabilities(image, properties["spacing"])
                found.append(replace(agreement(softmax, mask, self.labels), features=features))
            return averaged(found)
        finally:
            torch.set_num_threads(threads)


def agreement_of(synthetic: RawDataset, real: RawDataset, device: str) -> tuple[dict[str, Agreement], Teacher]:
    """Agreement with every pair of a synthetic dataset, and the teacher of its generator's fold.

    Raises: DataError if the datasets do not fit, or as `open_teacher`.
    """
    check_same_kind(real, synthetic)
    teacher = open_teacher(real, read_generator(synthetic).get("fold", "all"), device)
    cases = progress(synthetic.cases, "agreement")
    return {case: teacher.score(synthetic.image_files(case), synthetic.label_file(case)) for case in cases}, teacher


def judge_of(run: Run) -> Teacher:
    """The teacher of a generator's fold. Raises: ConfigError if its real cases are not here; as `open_teacher`."""
    return open_teacher(run.real_for("--gate or --select"), run.checkpoint.metadata["fold"], device_name())


def open_teacher(real: RawDataset, fold: int | str, device: str) -> Teacher:
    """The teacher of a fold, in $jdm_results/DatasetNNN_Name/teacher_fold_F; what is missing of it is trained.

    Raises: DataError for images without masks or too few cases; ExistsError if it was trained on other cases, or
        another process is training it.
    """
    check_masks(real)
    folder = run_folder(real.name, fold).with_name(f"teacher_fold_{fold}").resolve()
    parts = halves(real, fold_split(real, fold)[0])
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder.with_name(f".{folder.name}.lock"), folder):
        settings, runs = _prepared(real, fold, parts, folder)
        threads = torch.get_num_threads()
        torch.set_num_threads(settings["threads"])
        try:
            _train(runs, torch.device(device), folder)
        finally:
            torch.set_num_threads(threads)
        places = tuple(run.checkpoint.parent for run in runs)
        digest = hashlib.sha256(b"".join(run.checkpoint.read_bytes() for run in runs)).hexdigest()
        teacher = Teacher(folder, places, digest, real.labels, device, settings["threads"], {})
        found = _calibrated(teacher, real, parts)
    if warning := unequal(found, parts):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return replace(teacher, real=found)


def unequal(found: Mapping[str, Agreement], parts: Sequence[Sequence[str]]) -> str:
    """What to say of networks of which one has learned much less than another; empty if none has."""
    means = [float(np.mean([found[case].mean for case in part])) for part in parts]
    if max(means) - min(means) <= _UNEQUAL:
        return ""
    shown = " and ".join(f"{mean:.2f}" for mean in means)
    return (
        f"the networks that judge pairs agree very unequally with real cases of the other half (mean Dice {shown}): "
        "one has learned too little, or the halves are of different kinds, and the gate says little"
    )


def halves(real: RawDataset, cases: Sequence[str]) -> list[tuple[str, ...]]:
    """The cases in `PARTS` parts, a patient in one of them. Raises: DataError for fewer than two cases."""
    if len(cases) < PARTS:
        raise DataError(
            f"{real.name} has {len(cases)} training case; expected at least {PARTS}, so that networks can judge cases "
            "that they have not seen; leave agreement, --gate and --select out"
        )
    group_of = training_groups(real, cases)
    groups = sorted(set(group_of.values()))
    part_of = {group: number % PARTS for number, group in enumerate(groups)}
    return [tuple(sorted(case for case in cases if part_of[group_of[case]] == part)) for part in range(PARTS)]


def _prepared(
    real: RawDataset, fold: int | str, parts: list[tuple[str, ...]], folder: Path
) -> tuple[dict[str, Any], list[host.HostRun]]:
    """Plan and preprocess; the settings, which are those of an earlier call, and the trainings.

    Raises: ExistsError if the earlier call had other settings.
    """
    base = nnunet_folder("nnUNet_preprocessed") / real.name
    with alone(real.name), chatter_to(folder / "nnunet.log"):
        plan_dataset(real)
        preprocessed = preprocess(real, STOCK_PLANS, CONFIGURATION, owned=False)
    plans = host.read_plans(base, STOCK_PLANS)
    median = median_shape(preprocessed, real)
    patch = default_patch(resolve(plans, CONFIGURATION), median, CPU_FEATURES, True)[0]
    assert patch is not None  # on a small network it never is the plans'
    features = CPU_FEATURES[: len(stage_strides(patch))]
    plans, configuration = with_experiment_configuration(plans, CONFIGURATION, patch, CPU_BATCH, features)
    settings = {
        "real": real.name, "fold": fold, "parts": parts, "patch_size": patch, "batch_size": CPU_BATCH,
        "network_features": features, "updates": UPDATES, "epochs": EPOCHS,
        "cases_sha256": _digest(real, sum(parts, ())),
    }  # fmt: skip
    settings = json.loads(json.dumps(strict(settings)))
    settings = _kept(folder / SETTINGS, settings, resolve(plans, configuration), len(real.channel_names))
    trainer = TrainerSettings(epochs=EPOCHS, iterations=UPDATES // EPOCHS, val_iterations=1)
    description = json.loads((real.folder / "dataset.json").read_text(encoding="utf-8"))
    splits = [(part, tuple(sorted({*sum(parts, ())} - {*part}))) for part in parts]
    return settings, [
        host.HostRun(
            "nnUNetTrainerJDM", number, replace(trainer, seed=number), plans, configuration, description, folder,
            split=split,
        )
        for number, split in enumerate(splits)
    ]  # fmt: skip


def _digest(real: RawDataset, cases: Sequence[str]) -> str:
    """Of the cases' images, by size, and their labels."""
    digest = hashlib.sha256()
    for case in cases:
        sizes = [file.stat().st_size for file in real.image_files(case)]
        digest.update(f"{case} {sizes} {hashlib.sha256(real.label_file(case).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _kept(file: Path, settings: dict[str, Any], configuration: dict[str, Any], channels: int) -> dict[str, Any]:
    """The settings with a number of threads, measured once. Raises: ExistsError if the file has others."""
    if not file.is_file():
        threads = host.fastest_threads(configuration, channels, available_cores())
        write_json(file, {**settings, "threads": threads})
    kept = json.loads(file.read_text(encoding="utf-8"))
    other = [name for name, value in settings.items() if kept.get(name) != value]
    if other:
        raise ExistsError(
            f"{file.parent} holds networks trained with other {', '.join(other)}; expected the dataset and settings of "
            "now; remove the folder to train them again"
        )
    return kept


def _train(runs: Sequence[host.HostRun], device: torch.device, folder: Path) -> None:
    missing = [run for run in runs if not run.checkpoint.is_file()]
    if not missing:
        return
    print(f"training {len(missing)} networks that judge pairs, in {folder}", file=sys.stderr, flush=True)
    with tqdm(total=len(missing) * EPOCHS, unit="epoch", file=sys.__stderr__, disable=None) as bar:
        for run in missing:
            host.train(run, device, 0, bar.update, folder / "nnunet.log")


def _calibrated(teacher: Teacher, real: RawDataset, parts: list[tuple[str, ...]]) -> dict[str, Agreement]:
    """Agreement with each real case of the network that was not trained on it, kept on disk."""
    file = teacher.folder / SCORES
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["teacher_sha256"] == teacher.sha256:
            return {case: Agreement.from_dict(one) for case, one in kept["cases"].items()}
    found = {}
    for number, part in enumerate(parts):
        for case in progress(part, "agreement with real cases"):
            found[case] = teacher.score(real.image_files(case), real.label_file(case), by=[(number + 1) % PARTS])
    cases = {case: one.to_dict() for case, one in found.items()}
    write_json(file, {"teacher_sha256": teacher.sha256, "cases": cases})
    return {case: Agreement.from_dict(one) for case, one in cases.items()}

"""Prepare an experiment: open, check, plan and preprocess the datasets, and resolve all settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jdm.data.provenance import read_generator, usual_configuration
from jdm.data.raw_dataset import RawDataset, nnunet_folder, open_dataset
from jdm.data.raw_layout import few
from jdm.data.splits import fold_split, train_fraction
from jdm.errors import ConfigError, DataError
from nnunet_integration import host
from nnunet_integration.amounts import ratio_counts
from nnunet_integration.arms import ExperimentOptions, Resolved, schedule
from nnunet_integration.case_sets import CaseSet, cases_of, external_sets, labelled_test_ids
from nnunet_integration.claims import check_folder, fold_of, kept_settings, work_folder
from nnunet_integration.generator import generator_run
from nnunet_integration.plans import fitting_patch, resolve, stage_strides, with_experiment_configuration
from nnunet_integration.provenance import check_generator, test_ids
from nnunet_integration.register import check_masks, register
from nnunet_integration.trainings import doubled

CPU_PATCH, CPU_BATCH, CPU_FEATURES = 128, 8, (16, 32, 64, 128)


@dataclass(frozen=True)
class Experiment:
    """Everything fixed before the first update."""

    real: RawDataset
    synthetic: RawDataset
    settings: Resolved
    training_ids: tuple[str, ...]
    scored: CaseSet
    """Labelled cases of imagesTs; without any, the fold's validation cases; without those, the first external set."""
    on_test_set: bool
    """Whether imagesTs is scored."""
    judged: CaseSet | None
    """The fold's validation cases if others are scored: they judge how long to train. None: there are none."""
    tests: tuple[CaseSet, ...]
    """External test sets."""
    train_fraction: float
    """Share of the fold's training cases that `training_ids` are."""
    counts: Mapping[float, int]
    """Synthetic cases by ratio."""
    generator: Path | None
    """Folder of the generator's run, for ensemble-jdm; None without that arm."""
    plans: dict[str, dict[str, Any]]
    """Plans with the experiment's configuration, by dataset name."""
    configuration: str
    folder: Path
    """Folder of this fold's networks and scores: the experiment's, or one in it if there are several folds."""
    patch_note: str
    """Reason why the default patch is smaller than the plans'; else empty."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device)

    @property
    def log(self) -> Path:
        return self.folder / "nnunet.log"

    @property
    def stock(self) -> dict[str, Any]:
        """Patch, batch and channels of the unchanged plans."""
        return sizes(resolve(self.plans[self.real.name], self.settings.configuration))

    @property
    def transductive(self) -> list[str]:
        """Scored cases whose images, without masks, the generator was trained on (`jdm-train --transductive`)."""
        unlabelled = read_generator(self.synthetic).get("unlabelled") or {}
        return list(unlabelled.get("evaluated") or [])

    @property
    def chose_generator(self) -> list[str]:
        """Scored cases whose held-out loss selected the generator's weights."""
        same = set(test_ids(self.real)) if self.on_test_set else set(self.real.cases)
        held_out = read_generator(self.synthetic).get("held_out_ids") or []
        return sorted(same.intersection(self.scored.ids, held_out))

    def preprocessed(self, dataset: RawDataset) -> Path:
        """Folder of a dataset's preprocessed cases."""
        identifier = resolve(self.plans[dataset.name], self.configuration)["data_identifier"]
        return nnunet_folder("nnUNet_preprocessed") / dataset.name / identifier


def prepare(options: ExperimentOptions, number: int = 0) -> Experiment:
    """Open, check, plan and preprocess both datasets of one fold, and resolve all settings.

    Args:
        number: place of the fold in the options.
    Raises: JdmError for unusable options, datasets that do not fit, or a generator that was trained on test cases.
    """
    real, synthetic = open_dataset(options.real), open_dataset(options.synthetic[number])
    asked = options.configuration or usual_configuration(synthetic)
    options = replace(options, configuration=asked)
    check_masks(real)
    fold = fold_of(options.fold[number])
    training_ids, validation_ids = fold_split(real, fold)
    training_ids = train_fraction(real, training_ids, options.train_fraction)
    folder = work_folder(options, number)
    scored, judged, tests = _case_sets(options, real, fold, validation_ids, folder)
    on_test_set = bool(labelled_test_ids(real))
    _check_generator(options, f"fold {fold} of {real.name}", real, synthetic, (training_ids, validation_ids))
    known = _known(options, real, synthetic, fold)
    known["split_sha256"] = _split_digest(training_ids, scored.ids, on_test_set)
    if options.until_plateau:
        doubled(options, known["epochs"], known["iterations_per_epoch"])
    counts = ratio_counts(options.ratios, synthetic)
    generator = generator_run(real, synthetic) if "ensemble-jdm" in options.arms else None
    check_folder(folder, known, options.overwrite)
    registered = register(synthetic, real, asked, options.plans)
    median = median_shape(registered.preprocessed, synthetic)
    settings, plans, configuration, note = _settle(options, real, known, median, folder)
    moved = host.read_plans(nnunet_folder("nnUNet_preprocessed") / synthetic.name, registered.plans_name)
    moved["configurations"] = {**moved["configurations"]}
    if configuration != asked:
        moved["configurations"][configuration] = plans["configurations"][configuration]
    return Experiment(
        real, synthetic, settings, tuple(training_ids), scored, on_test_set, judged, tests, options.train_fraction,
        counts, generator, {real.name: plans, synthetic.name: moved}, configuration, folder, note,
    )  # fmt: skip


def _case_sets(
    options: ExperimentOptions, real: RawDataset, fold: int | str, validation_ids: list[str], folder: Path
) -> tuple[CaseSet, CaseSet | None, tuple[CaseSet, ...]]:
    """The cases that are scored, those that judge lengths, and the external test sets; see `Experiment`."""
    tests = external_sets(options.test, real, folder)
    validation = None
    if validation_ids:
        title = f"validation cases of fold {fold}"
        validation = cases_of(real, validation_ids, False, title, folder / "validation")
    if labelled := labelled_test_ids(real):
        return cases_of(real, labelled, True, "imagesTs", folder), validation, tuple(tests)
    if validation:
        return replace(validation, folder=folder), None, tuple(tests)
    if tests:
        return replace(tests[0], folder=folder), None, tuple(tests[1:])
    raise DataError(
        f"{real.name} has no labelled test set (labelsTs) and --fold all has no validation cases; expected cases "
        "to score; choose --fold 0 to 4, or add --test"
    )


def _check_generator(
    options: ExperimentOptions, what: str, real: RawDataset, synthetic: RawDataset, ids: tuple[list[str], list[str]]
) -> None:
    """Check what the generator was trained on.

    Args:
        what: name of the fold, for the message.
        ids: training and validation cases.
    Raises: DataError if it is a scored case, or more than --train-fraction keeps.
    """
    generator, (training, validation) = read_generator(synthetic), ids
    check_generator(generator, real.name, validation, what)
    others = sorted(set(generator["training_ids"]) - set(training))
    if options.train_fraction < 1 and others:
        raise DataError(
            f"{synthetic.name}: the generator was trained on {few(others, 5)}, outside the {len(training)} cases of "
            f"--train-fraction {options.train_fraction:g}; expected none; train it with jdm-train --train-fraction "
            f"{options.train_fraction:g}, and export from it"
        )


def _known(options: ExperimentOptions, real: RawDataset, synthetic: RawDataset, fold: int | str) -> dict[str, Any]:
    """The settings that do not depend on plans, by name in `Resolved`."""
    device = _device(options.device)
    small = device == "cpu"
    iterations = options.iterations or (2000 if small else 5000)
    times = schedule(iterations, options.pretrain_iterations or iterations, options.epochs, options.synthetic_share)
    asked = {
        "patch_size": options.patch_size, "batch_size": options.batch_size,
        "network_features": options.network_features, "threads": options.threads,
    }  # fmt: skip
    return {
        "real": real.name,
        "synthetic": synthetic.name,
        "cases_sha256": _fingerprint(real, synthetic),
        "fold": fold,
        "iterations_per_epoch": times.iterations_per_epoch,
        "epochs": times.epochs,
        "pretrain_epochs": times.pretrain_epochs,
        "mix_epochs": times.mix_epochs,
        "synthetic_share": times.synthetic_share,
        "configuration": options.configuration,
        "plans": options.plans,
        "learning_rate": options.learning_rate,
        "keep_head": options.keep_head,
        "mirroring": options.mirroring if options.mirroring is not None else not small,
        "device": device,
        "workers": options.workers if options.workers is not None else (0 if small else min(12, available_cores())),
        **{name: value for name, value in asked.items() if value is not None},
    }


def _settle(
    options: ExperimentOptions, real: RawDataset, known: dict[str, Any], median: tuple[int, ...], folder: Path
) -> tuple[Resolved, dict[str, Any], str, str]:
    """All settings, the real dataset's plans with the experiment's configuration, its name, and the patch note."""
    small = known["device"] == "cpu"
    plans = host.read_plans(nnunet_folder("nnUNet_preprocessed") / real.name, options.plans)
    batch, features, note = options.batch_size, options.network_features, ""
    if small:
        batch, features = batch or CPU_BATCH, features or CPU_FEATURES
    patch = options.patch_size
    if patch is None:
        patch, note = default_patch(resolve(plans, known["configuration"]), median, features, small)
    if patch is not None and options.network_features is None and features is not None:
        features = features[: len(stage_strides(patch))]
    plans, configuration = with_experiment_configuration(plans, known["configuration"], patch, batch, features)
    values = resolve(plans, configuration)
    threads = options.threads or kept_settings(folder).get("threads")
    if threads is None:
        threads = host.fastest_threads(values, len(real.channel_names), available_cores()) if small else 1
    return Resolved(**{**known, **sizes(values), "threads": threads}), plans, configuration, note


def default_patch(
    values: dict[str, Any], median: tuple[int, ...], features: tuple[int, ...] | None, small: bool
) -> tuple[tuple[int, ...] | None, str]:
    """The patch size of all arms (None: the plans'), and the reason if the size of synthetic pairs reduced it."""
    planned = tuple(int(side) for side in values["patch_size"])
    wanted = tuple(min(side, CPU_PATCH) for side in planned) if small else planned
    steps = np.prod(values["architecture"]["arch_kwargs"]["strides"], axis=0)
    halvings = [int(step).bit_length() - 1 for step in steps]
    if features is not None:
        halvings = [len(features) - 1] * len(planned)
    sides = median[-len(planned) :]
    patch = fitting_patch(wanted, sides, halvings)
    follows = f"The patch follows the synthetic pairs' median size, {'x'.join(map(str, sides))}."
    return (patch if small or patch != planned else None), (follows if patch != wanted else "")


def median_shape(preprocessed: Path, dataset: RawDataset) -> tuple[int, ...]:
    """Median spatial shape of preprocessed cases, in whole pixels."""
    shapes = host.preprocessed_shapes(preprocessed, dataset.cases)
    return tuple(int(side) for side in np.median(shapes, axis=0))


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sizes(configuration: dict[str, Any]) -> dict[str, Any]:
    """Patch, batch and channels of a resolved nnU-Net configuration."""
    return {
        "patch_size": tuple(int(side) for side in configuration["patch_size"]),
        "batch_size": int(configuration["batch_size"]),
        "network_features": tuple(configuration["architecture"]["arch_kwargs"]["features_per_stage"]),
    }


def _device(wanted: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[wanted]:
        raise ConfigError(f"--device is {wanted}, which torch does not find; expected cpu; choose cpu or auto")
    return wanted


def _fingerprint(real: RawDataset, synthetic: RawDataset) -> str:
    digest = hashlib.sha256((synthetic.folder / "provenance.json").read_bytes())
    for cases in (synthetic.cases, real.cases, real.test_cases):
        digest.update("\n".join([*cases, ""]).encode())
    return digest.hexdigest()


def _split_digest(training_ids: Sequence[str], evaluated_ids: Sequence[str], on_test_set: bool) -> str:
    content = json.dumps([sorted(training_ids), sorted(evaluated_ids), on_test_set])
    return hashlib.sha256(content.encode()).hexdigest()

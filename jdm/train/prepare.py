"""Preparation of a training run: cases, plan and folder."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jdm.config.checks import validate
from jdm.config.facts import Fingerprint
from jdm.config.files import from_dict, merged, read_toml
from jdm.config.settings import Config, Settings
from jdm.data.classes import FILE_NAME, class_names, read_classes
from jdm.data.groups import read_groups
from jdm.data.raw_dataset import RawDataset, check_dataset, open_dataset
from jdm.data.splits import fold_split, train_fraction
from jdm.errors import ConfigError, DataError, ExistsError, TrainingError
from jdm.plan.fingerprint import WIDEST_SPACING, fingerprint, planned_patch
from jdm.plan.rules import Machine, Plan, Size, plan, sizes, steps_within, usual_size
from jdm.plan.samples import slices_instead
from jdm.system.locks import held
from jdm.system.processes import decided_by_first, rank
from jdm.train.checkpoint import FINGERPRINT, PLAN, WEIGHTS, has_resume_state, run_folder
from jdm.train.imported_weights import ImportedWeights, check_weights, weights_of
from jdm.train.measures import with_measures
from jdm.train.memory import fitted, memory_target
from jdm.train.objective import measure_step_seconds
from jdm.train.replaced_run import settle
from jdm.train.request import TrainRequest
from jdm.train.unlabelled import Unlabelled, asked_for, check_plan

_BATCH_STEPS, _WIDTH_STEPS = 2_500, 6_000
"""Steps that must fit the budget to choose a larger batch, and a larger network."""


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for training."""

    plan: Plan
    dataset: RawDataset
    fold: str
    training_ids: list[str]
    held_out_ids: list[str]
    """Cases that are never trained on; they measure the loss."""
    out_dir: Path
    classes: Mapping[str, str] | None
    """Class by case, for a model conditioned on it; empty if a case has none."""
    imported: ImportedWeights | None
    """Initial weights, if imported."""
    train_fraction: float | None = None
    """Share of the fold's training cases that are used; None: all."""
    unlabelled: Unlabelled | None = None
    """Images without masks that are trained on too."""

    @property
    def config(self) -> Config:
        return self.plan.config


def prepare(request: TrainRequest) -> Prepared:
    """Choose the cases and the plan; writes nothing.

    Raises: ConfigError, DataError, CheckpointError or ExistsError if the run cannot be trained.
    """
    from_dict(Settings, request.settings)  # refused before anything is read
    if request.resume and request.overwrite:
        raise ConfigError("--resume and --overwrite are both given; expected one: continue the run, or start again")
    dataset = open_dataset(request.dataset)
    _refuse_synthetic(dataset)
    training_ids, held_out_ids = training_and_held_out(dataset, request.fold, request.train_fraction)
    out_dir = run_folder(dataset.name, request.run)

    unlabelled = asked_for(request, dataset, held_out_ids, out_dir)

    def prepared(plan: Plan, classes: Mapping[str, str] | None, imported: ImportedWeights | None = None) -> Prepared:
        cases, fraction = (training_ids, held_out_ids), request.train_fraction
        if unlabelled is not None:
            check_plan(plan.config)
        return Prepared(plan, dataset, request.fold, *cases, out_dir, classes, imported, fraction, unlabelled)

    if request.resume and (out_dir / PLAN).is_file():
        config = _resumed(request, out_dir)
        classes = read_classes(out_dir / FILE_NAME, dataset) if config.facts.class_names else None
        return prepared(Plan(config, {}), classes)
    if request.resume and rank() == 0:
        print(f"jdm-train: note: there is no run to resume in {out_dir}; starting a new one", file=sys.stderr)
    trained = has_resume_state(out_dir) or (out_dir / WEIGHTS).exists()  # else it failed before its first checkpoint
    if trained and not (request.overwrite or request.resume or request.dry_run):
        raise ExistsError(f"{out_dir} holds a run already; expected none; add --resume or --overwrite")
    classes = None if request.classes is None else read_classes(_classes_file(request.classes, dataset), dataset)
    imported = weights_of(request)
    ids = training_ids, held_out_ids
    found = decided_by_first(lambda: _planned(request, dataset, ids, classes, imported))
    if rank() == 0 and not request.dry_run:
        cases = f"{len(training_ids)} cases to train on, {len(held_out_ids)} held out"
        if unlabelled is not None:
            cases += f", {len(unlabelled.images.cases)} images without masks"
        print(f"jdm-train: {dataset.name}: {cases}; {found.expectation}", file=sys.stderr, flush=True)
    return prepared(found, classes, imported)


@contextlib.contextmanager
def alone(prepared_for: TrainRequest) -> Iterator[None]:
    """Lock the run's folder, after cleaning up what a killed process left there.

    Raises: ExistsError if another process is using it.
    """
    dataset = open_dataset(prepared_for.dataset)
    # no folder is made for a fold or a fraction that there is not
    training_and_held_out(dataset, prepared_for.fold, prepared_for.train_fraction)
    folder = run_folder(dataset.name, prepared_for.run)
    with contextlib.ExitStack() as stack:

        def begin() -> bool:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # The lock is beside the folder, which --overwrite moves away.
            stack.enter_context(held(folder.with_name(f".{folder.name}.lock"), folder))
            return settle(folder)

        decided_by_first(begin)
        yield


def training_and_held_out(dataset: RawDataset, fold: str, fraction: float | None = None) -> tuple[list[str], list[str]]:
    """Case ids to train on and to hold out: the two parts of a fold; for "all", a seeded random tenth is held out.

    That tenth consists of whole patients or sequences, if known.
    Args: fraction: share of the training cases to use, see `train_fraction`; None: all.
    """
    training, held_out = fold_split(dataset, fold)
    if fraction is not None:
        training = train_fraction(dataset, training, fraction)
    if not held_out:
        group_of = read_groups(dataset)
        groups = sorted({group_of[case] for case in training})
        wanted, chosen, count = max(1, len(training) // 10), set(), 0
        for index in np.random.default_rng(0).permutation(len(groups)) if len(groups) > 1 else ():
            size = sum(group_of[case] == groups[index] for case in training)
            if count < wanted and count + size < len(training):
                chosen.add(groups[index])
                count += size
        held_out = [case for case in training if group_of[case] in chosen]
        training = [case for case in training if group_of[case] not in chosen]
    if not training:
        raise DataError(
            f"{dataset.name} fold {fold} has no training cases; expected at least one; check splits_final.json"
        )
    return training, held_out


def _refuse_synthetic(dataset: RawDataset) -> None:
    """Refuse to train on synthetic cases: their provenance would not list the real cases, so leaks would be hidden."""
    if (dataset.folder / "provenance.json").is_file():
        raise DataError(
            f"{dataset.name} is a synthetic dataset (it has a provenance.json); expected a real one; train on the "
            "dataset that it was generated from"
        )


def _classes_file(path: Path, dataset: RawDataset) -> Path:
    """The file named by --classes: a path, or a file beside dataset.json."""
    beside = dataset.folder / path
    return beside if not path.exists() and beside.is_file() else path


def _planned(
    request: TrainRequest, dataset: RawDataset, ids: tuple[list[str], list[str]], classes: Mapping[str, str] | None,
    imported: ImportedWeights | None,
) -> Plan:  # fmt: skip
    """The plan for the dataset on this machine, with the user's settings applied."""
    training_ids, _ = ids
    if classes is not None:
        class_names(classes, training_ids, request.classes or "--classes")
    for finding in check_dataset(dataset):
        print(f"jdm-train: note: {finding}", file=sys.stderr)
    request, given = _settled(request)
    if imported is not None:
        given = merged({"network": vars(imported.network)}, given)
    found = _timed_plan(request, dataset, training_ids, classes, given)
    budget = found.config.train.budget_minutes
    if reason := slices_instead(found.config.data, found.steps, budget, given):
        if rank() == 0:
            print(f"jdm-train: note: {reason}; they are trained as slices", file=sys.stderr)
        told = request.unlabelled is None  # of the slice before the mask must be known
        given = merged({"data": {"dims": 2, "previous_slice": told}}, given)
        found = _timed_plan(request, dataset, training_ids, classes, given)
        why = {"data.dims": reason, **({"data.previous_slice": "so that neighbouring slices match"} if told else {})}
        found = replace(found, reasons={**found.reasons, **why})
    found = replace(found, config=with_measures(found.config, dataset, ids))
    if imported is not None:
        check_weights(found.config, imported, request.init_from)
    return found


def _timed_plan(
    request: TrainRequest, dataset: RawDataset, training_ids: list[str], classes: Mapping[str, str] | None,
    given: Mapping[str, Any],
) -> Plan:  # fmt: skip
    """The plan for the dataset, whose steps are timed on this machine."""
    # Sizes and spacing depend on the slice axis, so it must be known first.
    data = given.get("data", {})
    # The thesis's network would be too large for volumes.
    sliced = "slice_axis" in data or data.get("previous_slice") or request.preset == "thesis"
    dims = data.get("dims", 2 if sliced else None)
    axis = data.get("slice_axis", "none" if dims == 3 else WIDEST_SPACING)
    facts = fingerprint(dataset, training_ids, None if axis == "none" else axis, classes, dims)
    if rank() == 0:
        print("jdm-train: measuring the time of training steps on this machine", file=sys.stderr, flush=True)
    patch = planned_patch(dataset, facts.slice_axis, len(facts.median_size))
    return fitting_plan(request, facts, machine(), given, patch)


def _settled(request: TrainRequest) -> tuple[TrainRequest, dict[str, Any]]:
    """The request with the preset and the budget that its settings give, unless it has its own, and the other settings.

    Raises: ConfigError if the plan file cannot be read, or is of another preset.
    """
    given = merged(read_toml(request.plan) if request.plan else {}, request.settings)
    preset = given.pop("preset", request.preset)
    if request.preset not in (TrainRequest.preset, preset):
        raise ConfigError(
            f"--preset is {request.preset} with the preset {preset} of {request.plan}; expected one of them; leave "
            "--preset out, or the file"
        )
    train = dict(given.get("train", {}))
    budget = train.pop("budget_minutes", None)
    if request.budget_minutes is not None or budget == "none":
        budget = request.budget_minutes
    return replace(request, preset=preset, budget_minutes=budget), {**given, "train": train}


def fitting_plan(
    request: TrainRequest, facts: Fingerprint, machine: Machine, given: Mapping[str, Any],
    canvas_limit: tuple[int, ...] | None = None,
) -> Plan:  # fmt: skip
    """The plan with the largest step size of which enough steps fit the budget; without a budget, the usual size.

    If the budget is too small for the smallest network at its usual size, the batch is made smaller. Each size is timed
    on this machine. A step on volumes is first made to fit the memory.
    """

    def at(size: Size, steps: int | None = None, patch_kept: bool = True) -> Plan:
        return plan(
            facts, size, machine, preset=request.preset, steps=steps, budget_minutes=request.budget_minutes,
            canvas_limit=canvas_limit, settings=given if patch_kept else _without_patch(given),
        )  # fmt: skip

    def fitting(size: Size) -> Size:
        target = memory_target(at(size, 1).config, _device())
        return fitted(size, lambda smaller, patch_kept: at(smaller, 1, patch_kept), target)

    if request.budget_minutes is None:
        usual = at(fitting(usual_size(request.preset, machine)))
        return replace(usual, seconds=measure_step_seconds(usual.config, _device()))
    ladder = sizes(request.preset)
    chosen, trial, seconds = None, None, 0.0
    for size in map(fitting, ladder):
        before, trial = trial, at(size, 1)
        if before is None or before.config != trial.config:
            try:
                seconds = measure_step_seconds(trial.config, _device())
            except TrainingError:  # out of memory
                if chosen is None:
                    raise
                break
        steps = steps_within(request.budget_minutes, seconds)
        wanted = _BATCH_STEPS if size.base_channels == ladder[0].base_channels else _WIDTH_STEPS
        if chosen is None or steps >= wanted:
            chosen = replace(at(size, steps), seconds=seconds)
        if steps < wanted:
            break
    assert chosen is not None
    return chosen


def _without_patch(given: Mapping[str, Any]) -> dict[str, Any]:
    sides = ("patch_size", "canvas_size", "whole")
    return {**given, "data": {name: value for name, value in given.get("data", {}).items() if name not in sides}}


def machine() -> Machine:
    """Properties of this machine that the plan depends on."""
    device = _device()
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        fast = cpuinfo.is_file() and "avx512_bf16" in cpuinfo.read_text()
    return Machine("cuda" if device.type == "cuda" else "cpu", "bf16" if fast else "fp32")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _resumed(request: TrainRequest, out_dir: Path) -> Config:
    """The saved plan, with a longer budget or more steps if requested."""
    if request.plan or request.classes or request.init_from or request.preset != TrainRequest.preset:
        raise ConfigError(
            "--plan, --classes, --preset or --init-from is given with --resume; expected the saved plan; leave it out"
        )
    changes = dict(request.settings)
    if request.budget_minutes is not None:
        changes = merged(changes, {"train": {"budget_minutes": request.budget_minutes}})
    try:
        facts = from_dict(Fingerprint, json.loads((out_dir / FINGERPRINT).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{out_dir / FINGERPRINT} cannot be read ({error}); start again with --overwrite") from None
    settings = from_dict(Settings, merged(read_toml(out_dir / PLAN), changes))
    return validate(Config(**vars(settings), facts=facts))

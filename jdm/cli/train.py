"""jdm-train: plan a run from the dataset, and train."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jdm.cli import run_command
from jdm.config.settings import Config, Preset, dumps, load, validate
from jdm.errors import ConfigError, DataError, ExistsError

if TYPE_CHECKING:
    from jdm.data.raw_dataset import RawDataset


_FEW_STEPS = 500
"""After about a hundred steps masks are full of specks, after some hundreds they are not (seen on nuclei)."""


@dataclass(frozen=True)
class TrainCommand:
    """Train a joint image-mask diffusion model on one fold of an nnU-Net raw dataset.

    The run configures itself from the dataset and writes what it chose to plan.toml. Every value of that plan is
    also a flag, e.g. --train.steps 5000 or --network.base-channels 64; --dry-run prints them all.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """nnU-Net dataset id or name, under $nnUNet_raw."""
    fold: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLD")]
    """0 to 4 as nnU-Net splits, or "all". Cases outside the fold's training part only measure the held-out loss."""
    budget_minutes: float | None = None
    """Wall-clock minutes that training may take; the network and the number of steps are chosen to fit."""
    preset: Preset = "default"
    """default: EDM preconditioning with two noise levels. thesis: the process of Zhou 2023."""
    plan: Path | None = None
    """TOML file with settings that replace planned ones; a saved plan.toml or a part of it."""
    classes: Path | None = None
    """CSV file with the columns case and class, such as benign, to sample by class; a class may be empty. Looked for
    beside dataset.json too, where jdm-convert writes classes.csv for datasets with classes."""
    resume: bool = False
    """Go on where a killed run of this fold stopped."""
    overwrite: bool = False
    """Replace an existing run of this fold, which is kept until the new one has passed its first checkpoint."""
    dry_run: bool = False
    """Print the plan and stop."""


def main() -> None:
    run_command(_run)


def _run() -> None:
    started = time.monotonic()
    command, rest = tyro.cli(TrainCommand, prog="jdm-train", return_unknown_args=True)
    from jdm.data.raw_dataset import open_dataset
    from jdm.system.processes import processes, rank
    from jdm.train.loop import train
    from jdm.train.replaced_run import replacing

    if command.resume and command.overwrite:
        raise ConfigError("--resume and --overwrite are both given; expected one of them: go on, or start anew")
    dataset = open_dataset(command.dataset)
    _refuse_synthetic(dataset)
    ids = training_and_held_out(dataset, command.fold)
    with processes(), _alone(command, dataset):
        config, out_dir, classes = _prepared(command, rest, dataset, ids[0])
        if command.dry_run:
            print(dumps(config), end="")
            return
        if rank() == 0:
            print(summary(config, dataset, ids, classes), file=sys.stderr)
        with replacing(out_dir) if command.overwrite and rank() == 0 else contextlib.nullcontext():
            checkpoint = train(config, dataset, command.fold, ids, out_dir, command.resume, started, classes)
        if rank() > 0:
            return
    held_out = checkpoint.metadata["held_out_loss"]
    measured = "not measured" if held_out is None else f"{held_out:.4f}"
    _draw_curves(out_dir, checkpoint.metadata["step"])
    print(f"weights of step {checkpoint.metadata['step']} (held-out loss {measured}) are in {out_dir}")
    if (done := _steps_done(out_dir)) < _FEW_STEPS:
        more = "train anew with more --train.steps" if config.train.steps <= done else "train on with --resume and"
        more += " --overwrite" if config.train.steps <= done else " a larger --budget-minutes"
        print(f"jdm-train: note: {done} steps are few: masks may be full of specks; {more}", file=sys.stderr)
    print(f"next: jdm-export {command.dataset} {command.fold} --ratio 5.0 --id NEW_ID")


def _refuse_synthetic(dataset: RawDataset) -> None:
    """What is generated from generated cases names none of the real ones behind them, so no leak could be seen."""
    if (dataset.folder / "provenance.json").is_file():
        raise DataError(
            f"{dataset.name} is a synthetic dataset (it has a provenance.json); expected a real one; train on the "
            "dataset that it was generated from"
        )


@contextlib.contextmanager
def _alone(command: TrainCommand, dataset: RawDataset) -> Iterator[None]:
    """Keep other commands out of the run's folder, after settling what a killed one left there.

    Raises: ExistsError if one is at work in it.
    """
    from jdm.system.locks import held
    from jdm.system.processes import decided_by_first, rank
    from jdm.train.checkpoint import run_folder
    from jdm.train.replaced_run import settle

    folder = run_folder(dataset.name, command.fold)
    if command.dry_run:
        yield
        return
    if rank() == 0:
        folder.parent.mkdir(parents=True, exist_ok=True)
    # The lock is beside the folder, which --overwrite moves away.
    with held(folder.with_name(f".{folder.name}.lock"), folder) if rank() == 0 else contextlib.nullcontext():
        decided_by_first(lambda: settle(folder))
        yield


def _prepared(
    command: TrainCommand, rest: list[str], dataset: RawDataset, training_ids: list[str]
) -> tuple[Config, Path, dict[str, str] | None]:
    """The plan to train by, the folder to train in, and the classes."""
    from jdm.data.classes import FILE_NAME, read_classes
    from jdm.system.processes import decided_by_first, rank
    from jdm.train.checkpoint import WEIGHTS, has_resume_state, run_folder

    out_dir = run_folder(dataset.name, command.fold)
    saved = out_dir / "plan.toml"
    if command.resume and saved.is_file():
        config = _resumed(command, rest, load(saved))
        return config, out_dir, read_classes(out_dir / FILE_NAME, dataset) if config.network.class_names else None
    if command.resume and rank() == 0:
        print(f"jdm-train: note: there is no run to resume in {out_dir}; a new one begins", file=sys.stderr)
    trained = has_resume_state(out_dir) or (out_dir / WEIGHTS).exists()  # else it failed before its first checkpoint
    if trained and not (command.overwrite or command.resume or command.dry_run):
        raise ExistsError(f"{out_dir} holds a run already; expected none; add --resume or --overwrite")
    classes = None if command.classes is None else read_classes(_classes_file(command.classes, dataset), dataset)
    config = decided_by_first(lambda: planned(command, rest, dataset, training_ids, classes))
    return config, out_dir, classes


def _classes_file(path: Path, dataset: RawDataset) -> Path:
    """The file that --classes names: a path, or a file beside dataset.json."""
    beside = dataset.folder / path
    return beside if not path.exists() and beside.is_file() else path


def _resumed(command: TrainCommand, rest: list[str], config: Config) -> Config:
    """The saved plan, with more time or steps where the user gives them."""
    if command.plan is not None or command.classes is not None or command.preset not in ("default", config.preset):
        raise ConfigError(
            "--plan, --classes or --preset was given with --resume; expected the saved plan; leave them out"
        )
    if command.budget_minutes is not None:
        rest = [*rest, "--train.budget-minutes", str(command.budget_minutes)]
    asked = _trainable(_overridden(config, rest))
    if asked.data.slice_axis != config.data.slice_axis:  # patch and spacings are planned along it
        raise ConfigError(
            f"setting data.slice_axis is {asked.data.slice_axis} with --resume; expected {config.data.slice_axis} of "
            "the saved plan; leave it out, or start anew with --overwrite"
        )
    return asked


def training_and_held_out(dataset: RawDataset, fold: str) -> tuple[list[str], list[str]]:
    """Case ids to train on and to hold out: a fold's two parts; of "all", a seeded tenth is held out."""
    import numpy as np

    from jdm.data.splits import fold_split

    training, held_out = fold_split(dataset, fold)
    if not held_out and len(training) > 1:
        order = np.random.default_rng(0).permutation(len(training))
        chosen = set(order[: max(1, len(training) // 10)].tolist())
        held_out = [case for index, case in enumerate(training) if index in chosen]
        training = [case for index, case in enumerate(training) if index not in chosen]
    if not training:
        raise DataError(
            f"{dataset.name} fold {fold} has no training cases; expected at least one; check splits_final.json"
        )
    return training, held_out


def planned(
    command: TrainCommand, rest: list[str], dataset: RawDataset, training_ids: list[str],
    classes: Mapping[str, str] | None = None,
) -> Config:  # fmt: skip
    """The plan for the dataset on this machine, with the user's settings over it."""
    import torch

    from jdm.data.classes import class_names
    from jdm.data.raw_dataset import check_dataset
    from jdm.plan.fingerprint import WIDEST_SPACING, fingerprint
    from jdm.plan.rules import plan, planned_patch
    from jdm.train.objective import measure_step_seconds

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = () if classes is None else class_names(classes, training_ids, command.classes or "--classes")
    for finding in check_dataset(dataset):
        print(f"jdm-train: note: {finding}", file=sys.stderr)

    if command.budget_minutes is not None:
        print("jdm-train: measuring the time of training steps on this machine", file=sys.stderr, flush=True)

    def adjust(config: Config) -> Config:
        config = _trainable(_with_settings(command, rest, config))
        if config.network.class_names not in ((), names):
            raise ConfigError(
                f"setting network.class_names is {config.network.class_names}, but the training cases have "
                f"{names or 'no classes'}; expected those of --classes; leave the setting out, or give its file"
            )
        return replace(config, network=replace(config.network, class_names=names))

    # Patch and spacings follow from the slice axis, so it has to be known before the rest of the plan.
    unplanned = Config(data=replace(Config().data, slice_axis=WIDEST_SPACING))
    found = fingerprint(dataset, training_ids, _with_settings(command, rest, unplanned).data.slice_axis)
    return plan(
        found,
        preset=command.preset,
        budget_minutes=command.budget_minutes,
        device="cuda" if device.type == "cuda" else "cpu",
        precision="bf16" if supports_bf16(device) else "fp32",
        step_seconds=lambda config: measure_step_seconds(config, device),
        canvas_limit=planned_patch(dataset, found.slice_axis),
        adjust=adjust,
    )


def supports_bf16(device) -> bool:
    """Whether bfloat16 is faster than float32 on the device."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "avx512_bf16" in cpuinfo.read_text()


def _with_settings(command: TrainCommand, rest: list[str], config: Config) -> Config:
    """The plan with the user's file and command-line values over it, not validated."""
    return _overridden(load(command.plan, config) if command.plan else config, rest)


def _trainable(config: Config) -> Config:
    """The plan, if its values fit together and training can do it."""
    if config.data.dims != 2:
        raise ConfigError(
            f"setting data.dims is {config.data.dims}; expected 2: there is no training in 3-D yet, and volumes are "
            "trained as slices; leave it out"
        )
    return validate(config)


def _overridden(config: Config, arguments: list[str]) -> Config:
    """The plan with command-line values in it, not validated."""
    if not arguments:
        return config
    known = {a.split("=")[0].split(".")[0].lstrip("-") for a in arguments if a.startswith("--")}
    parts = {"codec", "data", "augment", "network", "noise", "diffusion", "train"}
    if not known <= parts or not arguments[0].startswith("--"):
        raise ConfigError(
            f"unknown argument {arguments[0]!r}; expected a flag of jdm-train --help or of its plan "
            f"(--{', --'.join(sorted(parts))} followed by .NAME); see jdm-train DATASET FOLD --dry-run"
        )
    return tyro.cli(Config, default=config, args=arguments)


def summary(
    config: Config, dataset: RawDataset, ids: tuple[list[str], list[str]], classes: Mapping[str, str] | None = None
) -> str:
    """What will be trained, for the user to read before it starts."""
    data = config.data
    kind = "whole images" if data.whole else "patches"
    minutes = "" if config.train.budget_minutes is None else f" or {config.train.budget_minutes:g} minutes"
    counts = Counter((classes or {}).get(case, "") for case in ids[0])
    axes = " and ".join(map(str, config.augment.mirror_axes))
    told = "".join(f", {counts[name]} {name}" for name in config.network.class_names)
    told += f"; mirrored along axes {axes}" if axes and config.augment.probability else ""
    return (
        f"{dataset.name}: {len(ids[0])} cases to train on, {len(ids[1])} held out; {kind} of "
        f"{'x'.join(map(str, data.patch_size))}, exported as {'x'.join(map(str, data.canvas_size))}; "
        f"{config.network.base_channels} channels x {config.network.channel_multipliers}; "
        f"at most {config.train.steps} steps of {config.train.batch_size}{minutes}, {config.train.precision}{told}"
    )


def _steps_done(out_dir: Path) -> int:
    from jdm.train.log import read_log

    return int(read_log(out_dir / "log.csv")[-1]["step"])


def _draw_curves(out_dir: Path, selected: int) -> None:
    from jdm.evaluation.figures import curves

    curves(out_dir / "log.csv", out_dir / "curves.png", selected)

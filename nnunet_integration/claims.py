"""The folder of an experiment: its place, and the record that keeps two experiments apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jdm.data.raw_dataset import open_dataset
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.system.files import write_json
from jdm.system.locks import is_held
from jdm.train.checkpoint import run_folder
from nnunet_integration.arms import ExperimentOptions

SETTINGS_FILE = "experiment.json"


def output_folder(options: ExperimentOptions) -> Path:
    """Folder of the experiment's results. Raises: ConfigError or DataError for an unusable dataset or fold."""
    if options.out is not None:
        return options.out
    folds = [str(fold_of(text)) for text in options.fold]
    name = "_".join(["experiment", "fold" if len(folds) == 1 else "folds", *folds])
    name += f"_of_{options.train_fraction:g}" if options.train_fraction != 1 else ""
    name += "_quick" if options.quick else ""
    return run_folder(open_dataset(options.real).name, folds[0]).with_name(name)


def work_folder(options: ExperimentOptions, number: int) -> Path:
    """Folder of one fold's networks and scores. Args: number: place of the fold in the options."""
    folder = output_folder(options).resolve()
    return folder if len(options.fold) == 1 else folder / f"fold_{fold_of(options.fold[number])}"


def fold_of(text: str) -> int | str:
    """A fold as nnU-Net takes it. Raises: ConfigError for other text."""
    if text == "all":
        return text
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"--fold is {text!r}; expected 0 to 4 or all; choose one of these")
    return int(text)


def locks_folder(folder: Path) -> Path:
    """Locks of single trainings. They lie beside the experiment's folder, because --overwrite removes that."""
    return folder.with_name(f".{folder.name}.locks")


def claim(folder: Path, settings: dict[str, Any], overwrite: bool, locks: Path | None = None) -> None:
    """Claim a folder for the experiment with these settings.

    Args: locks: see `locks_folder`.
    Raises: ExistsError if it holds another experiment (with the first difference) or other files, or if the experiment
        to be discarded is still being run.
    """
    check_folder(folder, settings, overwrite)
    before = kept_settings(folder)
    if overwrite and before and differing(before, settings):
        if locks is not None and any(is_held(lock) for lock in locks.glob("*.lock")):
            raise ExistsError(f"{folder} is being written by another shard; expected none; wait for it, or end it")
        shutil.rmtree(folder)
    write_json(folder / SETTINGS_FILE, settings)


def check_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Raises: ExistsError if `folder` holds files of another kind, or an experiment that differs in `settings`."""
    before = kept_settings(folder)
    if not before and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExistsError(f"{folder} exists and is not an experiment's folder; expected none; choose another --out")
    if not before or overwrite:
        return
    for name in differing(before, settings):
        raise ExistsError(
            f"{folder} holds an experiment with {name} = {before.get(name)}, but now it is {_plain(settings[name])}; "
            "expected equal settings to continue; choose another --out, or add --overwrite"
        )


def differing(before: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Names of the settings that have changed since an experiment was started."""
    return [name for name, value in settings.items() if before.get(name) != _plain(value)]


def _plain(value: Any) -> Any:
    """The value as read back from JSON."""
    return list(value) if isinstance(value, tuple) else value


def kept_settings(folder: Path) -> dict[str, Any]:
    """The settings of the experiment in this folder; empty if there is none.

    Raises: DataError if the file is damaged.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{file} is not JSON; expected an experiment's settings; choose another --out") from None

"""Folders of images without masks, named as nnU-Net names them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from jdm.data.labels import NO_MASKS
from jdm.data.raw_layout import RawDataset, few, folder_cases, listed
from jdm.errors import DataError


def image_folder(dataset: RawDataset, folder: Path) -> RawDataset:
    """A folder of images `<case>_0000<ending>`, as a dataset without masks whose training cases they are.

    Raises: DataError if the folder is missing, empty, or of another dataset, or a channel is missing.
    """
    check_folder(dataset, folder, "channel_names")
    folder = folder.absolute()
    files = {
        case: dataclasses.replace(found, label=None)
        for case, found in folder_cases(folder.parent, folder.name, "", dataset.file_ending).items()
    }
    return dataclasses.replace(
        dataset, folder=folder, name=folder.name, labels=dict(NO_MASKS), cases=tuple(files), training_files=files,
        test_cases=(), test_files={},
    )  # fmt: skip


def check_folder(dataset: RawDataset, folder: Path, key: str) -> None:
    """Raises: DataError if a folder is missing, has no file in the dataset's format, or is part of another dataset.

    Args: key: entry that must agree with the dataset's, if a dataset.json is in the folder or beside it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with {dataset.file_ending} files; correct the path")
    if not listed(folder, dataset.file_ending):
        found = sorted({path.suffix for path in folder.iterdir() if path.is_file()})
        raise DataError(
            f"{folder} has no {dataset.file_ending} files, found {few(found) or 'no files'}; expected the format of "
            f"{dataset.name}; convert them"
        )
    expected = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channel_names)},
        "labels": dict(dataset.labels),
    }
    for path in (folder / "dataset.json", folder.parent / "dataset.json"):
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read ({error}); expected JSON; correct or remove it") from None
        if isinstance(found, dict) and key in found and found[key] != expected[key]:
            raise DataError(
                f"{folder} is of another dataset: its {key} are {found[key]}, expected {expected[key]} of "
                f"{dataset.name}; give files of {dataset.name}, or train on the other dataset"
            )
        return

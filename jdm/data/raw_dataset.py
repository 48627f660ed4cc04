"""nnU-Net raw datasets on disk: the only reader and writer of images and labels.

Format: documentation/dataset_format.md of nnU-Net v2. A dataset is opened without reading any image; cases are read
one at a time and not cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdm.data.case_io import (
    Pair,
    read_case,
    read_image,
    slice_axis,
    validate_labels,
    write_case,
    write_image,
)
from jdm.data.checks import Finding, check_dataset
from jdm.data.labels import parse_labels
from jdm.data.raster import FILE_ENDINGS, NATURAL_ENDINGS, VOLUME_ENDINGS, Geometry
from jdm.data.raw_layout import (
    NAME,
    RawDataset,
    dataset_name,
    few,
    find_cases,
    nnunet_folder,
    parse_channel_names,
    used_ids,
)
from jdm.data.readers import AUTOMATIC, KEY, reader_of
from jdm.errors import ConfigError, DataError
from jdm.system.files import write_json

__all__ = [
    "FILE_ENDINGS", "NATURAL_ENDINGS", "VOLUME_ENDINGS", "Finding", "Geometry", "Pair", "RawDataset",
    "check_dataset", "dataset_folder", "dataset_name", "nnunet_folder", "open_dataset", "read_case", "read_dataset",
    "read_description", "read_image", "slice_axis", "used_ids", "validate_labels", "write_case", "write_dataset_json",
    "write_image", "write_json_like",
]  # fmt: skip


def open_dataset(dataset: str | int) -> RawDataset:
    """Open a dataset under $nnUNet_raw by id (11), name ("MoNuSeg") or full name ("Dataset011_MoNuSeg").

    Raises: ConfigError as `dataset_folder`; DataError as `read_dataset`.
    """
    return read_dataset(dataset_folder(dataset))


def dataset_folder(dataset: str | int) -> Path:
    """Folder of a dataset under $nnUNet_raw, by id or name as for `open_dataset`.

    Raises: ConfigError if it does not exist or is ambiguous, listing the datasets found.
    """
    raw = nnunet_folder("nnUNet_raw")
    names = sorted(f.name for f in raw.iterdir() if f.is_dir() and NAME.fullmatch(f.name))
    text = str(dataset).strip()
    matches = [n for n in names if matches_dataset(n, text)]
    if len(matches) != 1:
        state = "is ambiguous" if matches else "is not there"
        raise ConfigError(
            f"dataset {text!r} {state} in {raw}: expected one of {few(matches or names) or 'none, it is empty'}; "
            f"give {'its full name' if matches else 'one of these, or make it with jdm-convert'}"
        )
    number = int(matches[0][7:10])
    others = sorted({f.name for f in used_ids()[number]} - {matches[0]})
    if others:
        raise ConfigError(
            f"dataset id {number} belongs to {matches[0]} and to {', '.join(others)} in nnU-Net's folders, which "
            "nnU-Net refuses; rename or remove one of them"
        )
    return raw / matches[0]


def matches_dataset(folder_name: str, text: str) -> bool:
    """Whether a folder belongs to the dataset of an id, name or full name."""
    match = NAME.fullmatch(folder_name)
    return match is not None and (
        text in (folder_name, match[2]) or (text.isascii() and text.isdigit() and int(text) == int(match[1]))
    )


def read_dataset(folder: Path, name: str = "") -> RawDataset:
    """Read a dataset's dataset.json and file names, and the header of its first image.

    Args: name: of a dataset that is not in its place yet, such as Dataset011_MoNuSeg; empty: the folder's.
    Raises: DataError if dataset.json is missing or wrong, uses regions or an ignore label, names a reader that cannot
        open its files or files outside the folder and $nnUNet_raw, or if images or labels are missing (all listed).
    """
    folder = Path(folder)
    match = NAME.fullmatch(name or folder.name) or NAME.fullmatch(folder.resolve().name)
    if not match:
        raise DataError(f"{folder}: expected a folder named like Dataset011_MoNuSeg; rename it")
    path = folder / "dataset.json"
    content = read_description(folder)
    ending = content.get("file_ending")
    if not isinstance(ending, str) or ending not in AUTOMATIC:
        raise DataError(f"{path}: file_ending is {ending!r}; expected one of {' '.join(AUTOMATIC)}; convert it")
    channel_names = parse_channel_names(path, content)
    labels = parse_labels(path, content)
    training, test = find_cases(folder, content, ending)
    if content.get("numTraining") != len(training):
        raise DataError(
            f"{path}: numTraining is {content.get('numTraining')!r}, found {len(training)} training cases; "
            "expected them equal; correct the number or restore the files"
        )
    example = next((files.images[0] for files in (*training.values(), *test.values())), None)
    return RawDataset(
        folder, int(match[1]), match[0], channel_names, labels, ending,
        tuple(sorted(training)), tuple(sorted(test)), training, test, reader_of(path, content, ending, example),
    )  # fmt: skip


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a folder's dataset.json. Raises: DataError if it is missing or not a JSON object."""
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: has no dataset.json; expected an nnU-Net raw dataset; make one with jdm-convert"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected JSON; correct it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected a JSON object; correct it")
    return content


def write_dataset_json(
    folder: Path, *, channel_names: tuple[str, ...] | list[str], labels: Mapping[str, int], file_ending: str,
    num_training: int, reader: str = "",
) -> None:  # fmt: skip
    """Write `dataset.json`, complete or not at all.

    Args: reader: name of the nnU-Net reader to use; empty: nnU-Net chooses it by the files.
    Raises: DataError if the labels are not background 0 and consecutive.
    """
    path = folder / "dataset.json"
    content: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(channel_names)},
        "labels": dict(labels),
        "numTraining": num_training,
        "file_ending": file_ending,
    }
    parse_labels(path, content)
    if reader:
        content[KEY] = reader
    write_json(path, content)


def write_json_like(folder: Path, dataset: RawDataset, num_training: int) -> None:
    """Write the `dataset.json` of a folder whose files have the same format and reader as another dataset's."""
    write_dataset_json(
        folder, channel_names=dataset.channel_names, labels=dataset.labels, file_ending=dataset.file_ending,
        num_training=num_training, reader=dataset.reader,
    )  # fmt: skip

"""nnU-Net raw datasets on disk: the only reader and writer of images and labels.

Format: documentation/dataset_format.md of nnU-Net v2. A dataset is opened without reading any image; cases
are read one at a time, and nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.case_io import Pair, read_case, read_image, validate_labels, write_case, write_image
from jdm.data.image_io import read_raster
from jdm.data.labels import parse_labels
from jdm.data.raster import FILE_ENDINGS, NATURAL_ENDINGS, VOLUME_ENDINGS, Geometry
from jdm.data.raw_layout import (
    NAME,
    RawDataset,
    dataset_name,
    few,
    find_cases,
    inside,
    listed,
    nnunet_folder,
    parse_channel_names,
    used_ids,
)
from jdm.errors import ConfigError, DataError
from jdm.system.files import write_json

__all__ = [
    "FILE_ENDINGS", "NATURAL_ENDINGS", "VOLUME_ENDINGS", "Geometry", "Pair", "RawDataset", "check_dataset",
    "dataset_folder", "dataset_name", "nnunet_folder", "open_dataset", "read_case", "read_dataset",
    "read_description", "read_image", "used_ids", "validate_labels", "write_case", "write_dataset_json", "write_image",
]  # fmt: skip


def open_dataset(dataset: str | int) -> RawDataset:
    """Open a dataset under $nnUNet_raw by id (11), name ("MoNuSeg") or full name ("Dataset011_MoNuSeg").

    Raises: ConfigError as `dataset_folder`; DataError as `read_dataset`.
    """
    return read_dataset(dataset_folder(dataset))


def dataset_folder(dataset: str | int) -> Path:
    """Folder of a dataset under $nnUNet_raw, by id or name as for `open_dataset`.

    Raises: ConfigError if it is not there or not unique, listing what is.
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
            f"dataset id {number} belongs to {matches[0]} and to {', '.join(others)} in nnU-Net's folders; nnU-Net "
            "stops at that; rename or remove one of them"
        )
    return raw / matches[0]


def matches_dataset(folder_name: str, text: str) -> bool:
    """Whether a folder is that of the dataset of an id, name or full name."""
    match = NAME.fullmatch(folder_name)
    return match is not None and (
        text in (folder_name, match[2]) or (text.isascii() and text.isdigit() and int(text) == int(match[1]))
    )


def read_dataset(folder: Path) -> RawDataset:
    """Read a dataset's dataset.json and file names; no image is opened.

    Raises: DataError if dataset.json is missing or wrong, uses regions or an ignore label, names files
        outside the folder and $nnUNet_raw, or if images or labels are missing (all are listed).
    """
    folder = Path(folder)
    match = NAME.fullmatch(folder.name) or NAME.fullmatch(folder.resolve().name)
    if not match:
        raise DataError(f"{folder}: expected a folder named like Dataset011_MoNuSeg; rename it")
    path, content = folder / "dataset.json", read_description(folder)
    ending = content.get("file_ending")
    if ending not in FILE_ENDINGS:
        raise DataError(f"{path}: file_ending is {ending!r}; expected one of {' '.join(FILE_ENDINGS)}; convert it")
    channel_names = parse_channel_names(path, content)
    labels = parse_labels(path, content)
    training, test = find_cases(folder, content, ending)
    if content.get("numTraining") != len(training):
        raise DataError(
            f"{path}: numTraining is {content.get('numTraining')!r}, found {len(training)} training cases; "
            "expected them equal; correct the number or restore the files"
        )
    return RawDataset(
        folder, int(match[1]), match[0], channel_names, labels, ending,
        tuple(sorted(training)), tuple(sorted(test)), training, test,
    )  # fmt: skip


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a folder's dataset.json. Raises: DataError if it is missing or no JSON object."""
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
    num_training: int, extra: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write `dataset.json`, complete or not at all; `extra` is added to nnU-Net's own keys and may not
    replace them.

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
    content = {**(extra or {}), **content}
    write_json(path, content)


def check_dataset(dataset: RawDataset) -> list[str]:
    """Findings that nnU-Net's `--verify_dataset_integrity` misses, one line each; reads every file once.

    Unreadable or disagreeing cases, multi-channel, palette or all-empty labels, labels without images, test
    images without labels where others have one, images equal in content (also across training and test), ids
    that differ in case only, and files that lie outside the dataset and $nnUNet_raw.
    """
    findings: list[str] = []
    seen: dict[bytes, str] = {}
    ids: dict[str, str] = {}
    for test, cases in ((False, dataset.cases), (True, dataset.test_cases)):
        for case in cases:
            where = f"{'test' if test else 'training'} case {case}"
            if not test and ids.setdefault(case.lower(), case) != case:
                findings.append(
                    f"{where}: its id differs from {ids[case.lower()]} in upper and lower case only; rename one"
                )
            findings += _leaving(dataset, case, test)
            try:
                image, found = _check_case(dataset, case, test)
            except DataError as error:
                findings.append(str(error))
                continue
            findings += [f"{where}: {finding}" for finding in found]
            digest = hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()
            if seen.setdefault(digest, where) != where:
                findings.append(f"{where}: its image equals that of {seen[digest]}; remove one")
    return findings + _unpaired(dataset)


def _leaving(dataset: RawDataset, case: str, test: bool) -> list[str]:
    files = (dataset.test_files if test else dataset.training_files)[case]
    findings = []
    for path in [*files.images, *([files.label] if files.label else [])]:
        try:
            inside(dataset.folder, str(path.absolute()), dataset.folder)
        except DataError as error:
            findings.append(str(error))
    return findings


def _check_case(dataset: RawDataset, case: str, test: bool) -> tuple[np.ndarray, list[str]]:
    """A case's image and the findings about its label. Raises: DataError as `read_case`."""
    path = (dataset.test_files if test else dataset.training_files)[case].label
    if path is None:
        return read_image(dataset, case, test)[0], []
    pair, stored = read_case(dataset, case, test), read_raster(path, label=True)
    findings = []
    if stored.array.shape[0] != 1 or stored.dropped_alpha:
        findings.append(f"its label {path.name} has several channels, which stops nnU-Net's training; store one")
    if stored.palette:
        findings.append(f"its label {path.name} has a palette, which nnU-Net reads as colours; store plain indices")
    if not pair.label.any():
        findings.append("its label is empty (background only); annotate it, or leave it if nothing is there")
    if stored.geometry is not None and pair.geometry is not None:
        found, expected = (np.array(g.origin + g.direction) for g in (stored.geometry, pair.geometry))
        if not np.allclose(found, expected, atol=1e-3):
            findings.append(f"its label {path.name} has another origin or direction than the image; align them")
    return pair.image, findings


def _unpaired(dataset: RawDataset) -> list[str]:
    findings = []
    for name, cases in (("labelsTr", dataset.cases), ("labelsTs", dataset.test_cases)):
        labels = [f[: -len(dataset.file_ending)] for f in listed(dataset.folder / name, dataset.file_ending)]
        extra = sorted(set(labels) - set(cases))
        if extra and not (name == "labelsTr" and _is_explicit(dataset)):
            findings.append(
                f"{len(extra)} labels in {name} have no image: {few(extra)}; remove them, or restore the images"
            )
        lacking = sorted(set(cases) - set(labels))
        if lacking and labels and name == "labelsTs":
            findings.append(
                f"{len(lacking)} test images have no label in {name}: {few(lacking)}; add them, or remove all"
            )
    return findings


def _is_explicit(dataset: RawDataset) -> bool:
    """Whether dataset.json names the files of each case, so that labelsTr needs no counterpart in
    imagesTr."""
    named = {files.label for files in dataset.training_files.values()}
    return any(dataset.folder / "labelsTr" / (case + dataset.file_ending) not in named for case in dataset.cases)

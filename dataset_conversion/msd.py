"""A task of the Medical Segmentation Decathlon -> nnU-Net raw dataset.

Layout: imagesTr, labelsTr, imagesTs (and labelsTs in some copies) with equal file names, dataset.json with
`modality` and `labels`. Source: Antonelli et al. 2022, "The Medical Segmentation Decathlon".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dataset_conversion.archives import bare_name
from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import MsdOptions
from dataset_conversion.rules import pair_by_stem, plain_name
from dataset_conversion.source import find_with, missing_layout
from dataset_conversion.target import Conversion
from dataset_conversion.volumes import ENDING, inferred_labels, list_volumes, valid_labels, volume_items
from jdm.errors import ConfigError, DataError


@dataclass(frozen=True)
class TaskNames:
    """Channel and class names in a task's dataset.json."""

    channels: tuple[str, ...] | None
    labels: dict[str, int] | None
    """None: to be inferred from the values in the labels."""


def convert_msd(options: MsdOptions) -> Conversion:
    """Convert a task.

    Raises: DataError for missing counterparts, unusable names, nothing left to train on or, with `strict`, any refusal
        or duplicate; ExistsError, ConfigError as `new_dataset`.
    """
    if options.max_cases is not None and options.max_cases < 1:
        raise ConfigError(f"--max-cases {options.max_cases}: expected at least 1; correct it")

    def gather(root: Path, ledger: Ledger) -> Content:
        source = task_folder(root)
        names = read_names(source)
        training, test = _files(source, "Tr", ledger), _files(source, "Ts", ledger)
        if options.max_cases is not None and len(training) > options.max_cases:
            ledger.notes.append(f"only the first {options.max_cases} of {len(training)} training cases were converted")
            training = dict(list(training.items())[: options.max_cases])
        labels, decode = names.labels, valid_labels(names.labels or {})
        if labels is None:
            labels, decode = inferred_labels([label for _, label in training.values() if label], ledger)
        cases = [
            (split, stem, [image], label)
            for split, files in (("train", training), ("test", test))
            for stem, (image, label) in files.items()
        ]
        return Content(volume_items(cases, decode), labels, ENDING, names.channels)

    name = default_name(options.source)
    return convert(options, "msd", name, gather, {"max cases": str(options.max_cases)})


def default_name(source: Path) -> str:
    """Default dataset name of a task: the name of its folder or archive, without TaskNN_."""
    return plain_name(re.sub(r"^Task\d+_", "", bare_name(source.resolve())))


def task_folder(root: Path) -> Path:
    """The task's folder at or below `root`. Raises: DataError if none or several have imagesTr and labelsTr."""
    found = [images.parent for images, _ in find_with(root, ("imagesTr",), ("labelsTr",))]
    if not found:
        raise missing_layout(root, "a task folder with imagesTr and labelsTr")
    if len(found) > 1 and found[0] != root:
        raise DataError(f"{root}: holds {len(found)} tasks; expected one; name one of them, such as {found[0]}")
    return found[0]


def read_names(source: Path) -> TaskNames:
    """Channel and class names in the task's dataset.json; None for missing ones."""
    path = source / "dataset.json"
    if not path.is_file():
        return TaskNames(None, None)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if "channel_names" in content:
            raise DataError(
                f"{path}: is already of nnU-Net v2; expected a task of v1 or of the Decathlon; it needs no conversion, "
                "copy its folder to $nnUNet_raw"
            )
        modality, labels = content["modality"], content["labels"]
        channels = tuple(str(modality[str(i)]) for i in range(len(modality)))
        ordered = [str(labels[str(i)]) for i in range(len(labels))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be used ({type(error).__name__}: {error}); expected the task's modality and labels, each "
            'as {"0": name, "1": ...}; correct it, or remove it to have the labels inferred'
        ) from None
    if len(ordered) < 2 or len(set(ordered)) < len(ordered):
        raise DataError(f"{path}: labels are {ordered}; expected background and at least one class, each name once")
    return TaskNames(channels, {"background" if i == 0 else label: i for i, label in enumerate(ordered)})


def _files(source: Path, suffix: str, ledger: Ledger) -> dict[str, tuple[Path, Path | None]]:
    """(image, label) files of imagesTr or imagesTs by stem, sorted; the folder of test labels may be missing."""
    folders = source / f"images{suffix}", source / f"labels{suffix}"
    split = "train" if suffix == "Tr" else "test"
    images, labels = (list_volumes(folder, split, ledger) for folder in folders)
    if suffix == "Ts" and not labels:
        return {stem: (images[stem], None) for stem in sorted(images)}
    if suffix == "Tr" and not images:
        raise DataError(
            f"{folders[0]}: holds no NIfTI images; expected a Decathlon task folder; correct the path, or read other "
            "volumes with jdm-convert pairs"
        )
    return {stem: (images[stem], labels[stem]) for stem in pair_by_stem(images, labels, folders)}

"""A task folder of the Medical Segmentation Decathlon -> nnU-Net raw dataset.

Layout: imagesTr, labelsTr, imagesTs (and labelsTs in some copies) with equal file names, dataset.json with
`modality` and `labels`. Source: Antonelli et al. 2022, "The Medical Segmentation Decathlon".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset_conversion.ledger import Ledger
from dataset_conversion.options import MsdOptions
from dataset_conversion.rules import case_ids, pair_by_stem, plain_name
from dataset_conversion.target import Conversion, finish, new_dataset
from jdm.data.image_io import read_raster
from jdm.data.raster import Raster, ending_of
from jdm.data.raw_dataset import Pair, validate_labels, write_case, write_dataset_json, write_image
from jdm.errors import ConfigError, DataError

ENDING = ".nii.gz"


@dataclass(frozen=True)
class _Names:
    channels: tuple[str, ...] | None
    labels: dict[str, int] | None
    """None: to be inferred from the values in the labels."""


def convert_msd(options: MsdOptions) -> Conversion:
    """Convert, and return what was made.

    Raises: DataError for missing counterparts, unusable names, nothing left to train on, or, with `strict`, any refusal
        or duplicate; ExistsError, ConfigError as `new_dataset`.
    """
    source = options.source
    if options.max_cases is not None and options.max_cases < 1:
        raise ConfigError(f"--max-cases {options.max_cases}: expected at least 1; correct it")
    name = options.name or _default_name(source)
    names = _read_names(source)
    ledger = Ledger({"converter": "msd", "source": str(source), "max cases": str(options.max_cases)})
    with new_dataset(options.id, name, options.overwrite) as (partial, final):
        training = _files(source, "Tr", ledger)
        test = _files(source, "Ts", ledger)
        if options.max_cases is not None and len(training) > options.max_cases:
            ledger.notes.append(f"only the first {options.max_cases} of {len(training)} training cases were converted")
            training = training[: options.max_cases]
        labels = names.labels or _infer_labels([label for _, label in training if label], ledger)
        channels, foreground = names.channels, 0
        for case in tqdm(_cases(training, test), desc="converting", unit="case", disable=None):
            count, filled = _convert_case(partial, case, labels, channels, ledger)
            foreground += filled
            if channels is None and count:
                channels = ("image",) if count == 1 else tuple(f"channel_{i}" for i in range(count))
                ledger.notes.append(f"no channel names were given: {', '.join(channels)} assumed")
        kept = sum(e.status in ("accepted", "repaired") and e.split == "train" for e in ledger.entries)
        write_dataset_json(
            partial, channel_names=channels or ("image",), labels=labels, file_ending=ENDING, num_training=kept
        )
        return finish(partial, final, ledger, foreground, options.strict)


def _default_name(source: Path) -> str:
    return plain_name(re.sub(r"^Task\d+_", "", source.resolve().name))


def _read_names(source: Path) -> _Names:
    """Channel and class names of the task's dataset.json; None for what is not there."""
    if not source.is_dir():
        raise DataError(
            f"{source}: no such folder; expected a task folder with imagesTr and labelsTr; correct the path"
        )
    path = source / "dataset.json"
    if not path.is_file():
        return _Names(None, None)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        modality, labels = content["modality"], content["labels"]
        channels = tuple(str(modality[str(i)]) for i in range(len(modality)))
        ordered = [str(labels[str(i)]) for i in range(len(labels))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be used ({type(error).__name__}: {error}); expected the task's modality and labels, each "
            'as {"0": name, "1": ...}; correct it, or remove it to have the labels inferred'
        ) from None
    if len(ordered) < 2 or len(set(ordered)) < len(ordered):
        raise DataError(f"{path}: labels are {ordered}; expected background and at least one class, each name once")
    return _Names(channels, {"background" if i == 0 else label: i for i, label in enumerate(ordered)})


def _files(source: Path, suffix: str, ledger: Ledger) -> list[tuple[Path, Path | None]]:
    """(image, label) files of imagesTr or imagesTs, sorted by id; test labels may be absent as a whole."""
    folders = source / f"images{suffix}", source / f"labels{suffix}"
    split = "train" if suffix == "Tr" else "test"
    found: list[dict[str, Path]] = []
    for folder in folders:
        stems: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith("."):
                ledger.add("ignored", split, None, [path], ["hidden file"])
            elif ending_of(path) not in (".nii.gz", ".nii"):
                ledger.add("ignored", split, None, [path], ["not NIfTI"])
            else:
                stem = _stem(path)
                if stems.setdefault(stem, path) != path:
                    raise DataError(f"{folder}: {stem} is there as .nii and .nii.gz; expected it once; remove one")
        found.append(stems)
    images, labels = found
    if suffix == "Ts" and not labels:
        return [(images[stem], None) for stem in sorted(images)]
    if suffix == "Tr" and not images:
        raise DataError(f"{folders[0]}: holds no NIfTI images; expected a Decathlon task folder; correct the path")
    return [(images[stem], labels[stem]) for stem in pair_by_stem(images, labels, folders)]


def _infer_labels(paths: list[Path], ledger: Ledger) -> dict[str, int]:
    """background, label_1, label_2, ... up to the highest value in the labels; unreadable ones are refused later."""
    highest = 0
    for path in tqdm(paths, desc="reading labels", unit="case", disable=None):
        try:
            highest = max(highest, int(read_raster(path, label=True).array.max()))
        except DataError:
            continue
    if not 1 <= highest <= 255:
        raise DataError(
            f"{paths[0].parent}: the highest label value is {highest}; expected 1 to 255 so that class names can "
            "be inferred; add the task's dataset.json"
        )
    labels = {"background": 0} | {f"label_{i}": i for i in range(1, highest + 1)}
    ledger.notes.append(f"no dataset.json: class names inferred from the labels' values: {', '.join(labels)}")
    return labels


def _cases(
    training: list[tuple[Path, Path | None]], test: list[tuple[Path, Path | None]]
) -> list[tuple[str, str, Path, Path | None]]:
    """(split, case id, image, label) of every case."""
    taken: set[str] = set()
    cases = []
    for split, files in (("train", training), ("test", test)):
        ids = case_ids([_stem(image) for image, _ in files], split, taken)
        cases += [(split, ids[_stem(image)], image, label) for image, label in files]
    return cases


def _stem(path: Path) -> str:
    return path.name[: -len(ending_of(path))]


def _convert_case(
    partial: Path, case: tuple[str, str, Path, Path | None], labels: dict[str, int], channels: tuple[str, ...] | None,
    ledger: Ledger,
) -> tuple[int, bool]:  # fmt: skip
    """Write a case (split, id, image, label), or enter it as refused; its channels and whether it has foreground."""
    split, case_id, image_path, label_path = case
    suffix = "Tr" if split == "train" else "Ts"
    files = [image_path, *([label_path] if label_path else [])]
    notes = [f"{_stem(image_path)!r} renamed {case_id!r}"] if case_id != _stem(image_path) else []
    filled = False
    try:
        image = read_raster(image_path)
        if channels is not None and image.array.shape[0] != len(channels):
            raise DataError(
                f"{image_path}: has {image.array.shape[0]} channels; expected {len(channels)} ({', '.join(channels)})"
            )
        if label_path is None:
            write_image(partial / f"images{suffix}", case_id, image, ENDING)
        else:
            label, repairs = _label(label_path, image, labels)
            notes += repairs
            filled = bool(label.any()) and split == "train"
            pair = Pair(case_id, image.array, label, image.spacing, image.geometry)
            write_case(partial, pair, ENDING, f"labels{suffix}", f"images{suffix}")
    except DataError as error:
        ledger.add("refused", split, case_id, files, [str(error)])
        return 0, False
    ledger.see(image.array, split, case_id)
    ledger.add("repaired" if notes else "accepted", split, case_id, files, notes)
    return image.array.shape[0], filled


def _label(path: Path, image: Raster, labels: dict[str, int]) -> tuple[np.ndarray, list[str]]:
    """The label on the image's grid, uint8, and the repairs. Raises: DataError if it does not lie on that grid."""
    raster = read_raster(path, label=True)
    label = raster.array[0]
    validate_labels(label, labels, str(path))
    if raster.array.shape[0] != 1 or label.shape != image.array.shape[1:]:
        raise DataError(
            f"{path}: the label's size is {raster.array.shape}, the image's {image.array.shape[1:]}; expected them "
            "equal; jdm never resizes, correct the file"
        )
    assert raster.geometry is not None and image.geometry is not None
    if not np.allclose(raster.spacing, image.spacing, rtol=1e-3):
        raise DataError(f"{path}: spacing {raster.spacing}, but the image's is {image.spacing}; expected them equal")
    if not np.allclose(raster.geometry.direction, image.geometry.direction, atol=1e-3):
        raise DataError(
            f"{path}: direction {raster.geometry.direction}, but the image's is {image.geometry.direction}; "
            "expected them equal; resample the label onto the image"
        )
    moved = not np.allclose(raster.geometry.origin, image.geometry.origin, atol=1e-2)
    return label.astype(np.uint8), ["origin of the label replaced by the image's"] if moved else []

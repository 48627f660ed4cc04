"""Volumes and their labels (NIfTI) -> cases. Shared by the converters of volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset_conversion.cases import Item, Reading
from dataset_conversion.ledger import Ledger
from jdm.data.case_io import label_dtype
from jdm.data.image_io import read_raster
from jdm.data.raster import Raster, ending_of
from jdm.data.raw_dataset import validate_labels
from jdm.errors import DataError

ENDING = ".nii.gz"


def list_volumes(folder: Path, split: str, ledger: Ledger) -> dict[str, Path]:
    """NIfTI files of a folder by stem; what is none is entered as ignored. An absent folder is empty.

    Raises: DataError if a stem is there as .nii and .nii.gz.
    """
    stems: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            ledger.add("ignored", split, None, [path], ["hidden file"])
        elif ending_of(path) not in (".nii.gz", ".nii"):
            ledger.add("ignored", split, None, [path], ["not NIfTI"])
        else:
            stem = volume_stem(path)
            if stems.setdefault(stem, path) != path:
                raise DataError(f"{folder}: {stem} is there as .nii and .nii.gz; expected it once; remove one")
    return stems


def volume_stem(path: Path) -> str:
    return path.name[: -len(ending_of(path))]


def volume_item(
    split: str, stem: str, images: Sequence[Path], label: Path | None, labels: Mapping[str, int]
) -> Item:  # fmt: skip
    """A case of one file with all channels, or of one file per channel, and its label if it has one."""
    files = (*images, *([label] if label else []))
    return Item(split, stem, files, partial(_read, tuple(images), label, labels))


def _read(images: tuple[Path, ...], label_path: Path | None, labels: Mapping[str, int]) -> Reading:
    image = _stacked(images)
    if label_path is None:
        return Reading(image, None)
    label, repairs = _label(label_path, image, labels)
    return Reading(image, label, repairs)


def _stacked(images: tuple[Path, ...]) -> Raster:
    """All channels of a case. Raises: DataError if its files do not lie on one grid."""
    rasters = [read_raster(path) for path in images]
    first = rasters[0]
    for path, raster in zip(images[1:], rasters[1:], strict=True):
        _check_grid(path, raster, first, "channel", origin=True)
        if raster.array.dtype != first.array.dtype:
            raise DataError(
                f"{path}: voxels are {raster.array.dtype}, those of {images[0].name} {first.array.dtype}; expected "
                "one type for all channels; save them alike"
            )
    if len(rasters) == 1:
        return first
    return Raster(np.concatenate([r.array for r in rasters]), first.spacing, first.geometry)


def _label(path: Path, image: Raster, labels: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """The label (*spatial) on the image's grid, and the repairs. Raises: DataError if it does not lie on that grid."""
    raster = read_raster(path, label=True)
    label = raster.array[0]
    validate_labels(label, labels, str(path))
    if raster.array.shape[0] != 1:
        raise DataError(f"{path}: the label has {raster.array.shape[0]} channels; expected one; correct the file")
    _check_grid(path, raster, image, "label", origin=False)
    assert raster.geometry is not None and image.geometry is not None
    moved = not np.allclose(raster.geometry.origin, image.geometry.origin, atol=1e-2)
    notes = ["origin of the label replaced by the image's"] if moved else []
    return label.astype(label_dtype(max(labels.values()) + 1)), notes


def _check_grid(path: Path, raster: Raster, image: Raster, what: str, origin: bool) -> None:
    if raster.array.shape[1:] != image.array.shape[1:]:
        raise DataError(
            f"{path}: the {what}'s size is {raster.array.shape}, the image's {image.array.shape[1:]}; expected them "
            "equal; jdm never resizes, correct the file"
        )
    assert raster.geometry is not None and image.geometry is not None
    if not np.allclose(raster.spacing, image.spacing, rtol=1e-3):
        raise DataError(
            f"{path}: the {what}'s spacing is {raster.spacing}, but the image's is {image.spacing}; expected them equal"
        )
    if not np.allclose(raster.geometry.direction, image.geometry.direction, atol=1e-3):
        raise DataError(
            f"{path}: direction {raster.geometry.direction}, but the image's is {image.geometry.direction}; "
            f"expected them equal; resample the {what} onto the image"
        )
    if origin and not np.allclose(raster.geometry.origin, image.geometry.origin, atol=1e-2):
        raise DataError(
            f"{path}: origin {raster.geometry.origin}, but the first channel's is {image.geometry.origin}; expected "
            "them equal; register the channels"
        )


def infer_labels(paths: Sequence[Path], ledger: Ledger) -> dict[str, int]:
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

"""Volumes and their labels (NIfTI) -> cases. Shared by the converters of volumes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from unicodedata import normalize

import numpy as np
from tqdm import tqdm

from dataset_conversion.cases import Item, Reading
from dataset_conversion.coding import Coding, decode_mask
from dataset_conversion.ledger import Ledger
from jdm.data.advice import merge_layers
from jdm.data.case_io import label_dtype
from jdm.data.image_io import read_raster
from jdm.data.raster import Raster, ending_of
from jdm.data.raw_dataset import validate_labels
from jdm.data.raw_layout import few
from jdm.errors import DataError

ENDING = ".nii.gz"
MOST_CLASSES = 256
DecodeLabel = Callable[[np.ndarray, Path], tuple[np.ndarray, list[str]]]
"""(stored label (1, *spatial), its path) -> class values (*spatial), and the repairs."""


def list_volumes(
    folder: Path, split: str, ledger: Ledger, endings: Collection[str] = (".nii.gz", ".nii")
) -> dict[str, Path]:
    """Volumes of a folder by stem; other files are recorded as ignored. A missing folder counts as empty.

    Raises: DataError if files differ only in their ending or in case.
    """
    stems: dict[str, Path] = {}
    by_stem: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            ledger.add("ignored", split, None, [path], ["hidden file"])
        elif ending_of(path) not in endings or path.is_dir():
            ledger.add("ignored", split, None, [path], [f"not {' or '.join(endings)}"])
        else:
            stems[volume_stem(path)] = path
            by_stem.setdefault(volume_stem(path).lower(), []).append(path.name)
    clashes = [" and ".join(names) for names in by_stem.values() if len(names) > 1]
    if clashes:
        raise DataError(
            f"{folder}: {len(clashes)} stems occur twice ({few(clashes)}); expected one volume for each, ignoring "
            "case; rename or remove one"
        )
    return stems


def volume_stem(path: Path) -> str:
    """The name without its ending and without the .seg of 3D Slicer's segmentations."""
    return normalize("NFC", path.name[: -len(ending_of(path))].removesuffix(".seg"))


def by_channel(images: Mapping[str, Path], folder: Path) -> dict[str, list[Path]]:
    """Group files with stems such as case_0000 by case, in channel order; sorted by case.

    Raises: DataError for a stem without a channel number, or if a case lacks a channel.
    """
    channels: dict[str, dict[int, Path]] = {}
    for stem, path in images.items():
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if not match:
            raise DataError(
                f"{path}: has no channel number; expected a name like case_0000.nii.gz (jdm-convert msd reads tasks "
                "without them); rename it"
            )
        channels.setdefault(match[1], {})[int(match[2])] = path
    count = max((max(files) + 1 for files in channels.values()), default=0)
    lacking = [f"{case}_{c:04d}" for case, files in channels.items() for c in range(count) if c not in files]
    if lacking:
        raise DataError(
            f"{folder}: {len(lacking)} files are missing ({few(lacking)}); expected {count} channels for every case; "
            "restore them"
        )
    return {case: [channels[case][c] for c in range(count)] for case in sorted(channels)}


def valid_labels(labels: Mapping[str, int]) -> DecodeLabel:
    """A decoder that returns labels unchanged and raises DataError for undeclared values."""

    def decode(label: np.ndarray, path: Path) -> tuple[np.ndarray, list[str]]:
        validate_labels(label, labels, str(path))
        if label.shape[0] != 1:
            raise DataError(
                f"{path}: the label has {label.shape[0]} channels; expected one; type: {merge_layers(path)}"
            )
        return label[0].astype(label_dtype(max(labels.values()) + 1)), []

    return decode


Case = tuple[str, str, Sequence[Path], Path | None]
"""Split, stem, the file with all channels or one for each, and the label if there is one."""


def volume_items(cases: Sequence[Case], decode: DecodeLabel) -> list[Item]:
    """Cases to convert. Raises: DataError if some images have two axes and others three."""
    _check_axes([path for _, _, images, _ in cases for path in images])
    return [
        Item(split, stem, (*images, *([label] if label else [])), partial(_read, tuple(images), label, decode))
        for split, stem, images, label in cases
    ]


def _check_axes(paths: Sequence[Path]) -> None:
    """Refuse slices among volumes: such folders are mixed up, and one network cannot learn both."""
    import SimpleITK

    found: dict[int, Path] = {}
    reader = SimpleITK.ImageFileReader()
    for path in paths:
        reader.SetFileName(str(path))
        with contextlib.suppress(RuntimeError):  # refused later
            reader.ReadImageInformation()
            found.setdefault(min(reader.GetDimension(), 3), path)
    if 2 in found and 3 in found:
        raise DataError(
            f"{found[2]}: has 2 axes, {found[3]} has 3; expected one number in a dataset; move those with 2 axes to "
            "folders of their own and convert them apart"
        )


def _read(images: tuple[Path, ...], label_path: Path | None, decode: DecodeLabel) -> Reading:
    image = _stacked(images)
    if label_path is None:
        return Reading(image, None)
    label, repairs = _label(label_path, image, decode)
    return Reading(image, label, repairs)


def _stacked(images: tuple[Path, ...]) -> Raster:
    """All channels of a case. Raises: DataError if its files are not on the same grid."""
    rasters = [read_raster(path) for path in images]
    first = rasters[0]
    for path, raster in zip(images[1:], rasters[1:], strict=True):
        _check_grid(path, raster, first, "channel", origin=True)
        if raster.array.dtype != first.array.dtype:
            raise DataError(
                f"{path}: voxels are {raster.array.dtype}, those of {images[0].name} {first.array.dtype}; expected "
                "one type for all channels; save them with the same type"
            )
    if len(rasters) == 1:
        return first
    return Raster(np.concatenate([r.array for r in rasters]), first.spacing, first.geometry)


def _label(path: Path, image: Raster, decode: DecodeLabel) -> tuple[np.ndarray, list[str]]:
    """The label (*spatial) on the image's grid, and the repairs. Raises: DataError if it is on another grid."""
    raster = read_raster(path, label=True)
    label, notes = decode(raster.array, path)
    _check_grid(path, raster, image, "label", origin=False)
    assert raster.geometry is not None and image.geometry is not None
    if not np.allclose(raster.geometry.origin, image.geometry.origin, atol=1e-2):
        notes = [*notes, "origin of the label replaced by the image's"]
    return label, notes


def _check_grid(path: Path, raster: Raster, image: Raster, what: str, origin: bool) -> None:
    if raster.array.shape[1:] != image.array.shape[1:]:
        raise DataError(
            f"{path}: the {what}'s size is {raster.array.shape[1:]}, the image's {image.array.shape[1:]}; expected "
            "them equal; jdm never resizes, correct the file"
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


def inferred_labels(paths: Sequence[Path], ledger: Ledger) -> tuple[dict[str, int], DecodeLabel]:
    """Infer consecutive classes from the values in the labels, and return them with their decoder.

    Raises: DataError if the values are not classes; unreadable files are refused later.
    """
    found: set[float] = {0}
    for path in tqdm(paths, desc="reading labels", unit="case", disable=None):
        with contextlib.suppress(DataError):
            found |= set(np.unique(read_raster(path, label=True).array).tolist())
    values = sorted(int(value) for value in found)
    if set(values) != found or values[0] < 0 or not 2 <= len(values) <= MOST_CLASSES:
        raise DataError(
            f"{paths[0].parent}: the labels hold {few([f'{value:g}' for value in sorted(found)], 8)}; expected 0 and 1 "
            f"to {MOST_CLASSES - 1} other integers, to infer the classes; add the task's dataset.json"
        )
    names = ["background", *(f"label_{value}" for value in values[1:])]
    coding = Coding(tuple(values), tuple(range(len(values))), {name: i for i, name in enumerate(names)})
    numbered = ", ".join(f"{name} ({index})" for name, index in coding.labels.items())
    ledger.notes.append(f"no dataset.json: classes inferred from the labels' values: {numbered}")
    return coding.labels, lambda label, path: decode_mask(label, False, path, coding, lambda: None)

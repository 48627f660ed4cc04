"""Masks of two folders: matched by name, brought onto one grid, and their values checked file by file.

Used by `jdm.evaluation.metrics`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdm.data.case_io import read_label
from jdm.data.image_io import FILE_ENDINGS, ending_of
from jdm.data.labels import DeclaredLabels, classes_and_ignore
from jdm.data.raster import Raster
from jdm.data.space import aligned
from jdm.errors import DataError

FOREGROUND = "foreground"
WHOLE = 1e-3
"""Floating-point labels within this distance of an integer count as that integer."""


class Maps(NamedTuple):
    """One class of one case, on the reference's grid."""

    prediction: np.ndarray  # bool, or a float map in [0, 1]
    reference: np.ndarray  # bool
    spacing: tuple[float, ...]
    ignored: np.ndarray | None = None  # bool: pixels that the reference marks as ignored


Case = tuple[str, dict[str, Maps]]
Pairs = dict[str, tuple[Path, Path]]


def binarise(mask: np.ndarray, white: int = 255, threshold: int = 127) -> np.ndarray:
    """Foreground of a two-valued mask: `>= threshold` if white is 255, `> 0` if it is 1."""
    return mask >= threshold if white == 255 else mask > 0


def labelled_cases(pairs: Pairs, labels: DeclaredLabels) -> Iterator[Case]:
    """Cases whose files hold class values; a region is the union of its values.

    Raises: DataError for a file with undeclared values.
    """
    classes, ignore = classes_and_ignore(labels)
    values = itertools.chain((0,), *classes.values(), () if ignore is None else (ignore,))
    declared: list[int] = sorted(set(values))
    for case_id, files in pairs.items():
        found, expected = (_read_classes(file) for file in files)
        for file, raster in zip(files, (found, expected), strict=True):
            if not np.isin(held := np.unique(raster.array), declared).all():
                raise DataError(
                    f"{file}: holds the values {_some(held)}; expected only the labels {_some(declared)}; list every "
                    "value with --labels, name the dataset with --dataset, or convert the file"
                )
        prediction, reference = _on_one_grid(files, found, expected), expected.array[0]
        ignored = None if ignore is None else reference == ignore
        yield (
            case_id,
            {
                name: Maps(np.isin(prediction, values), np.isin(reference, values), expected.spacing, ignored)
                for name, values in classes.items()
            },
        )


def two_valued_cases(pairs: Pairs, soft: bool) -> Iterator[Case]:
    """Cases whose files are masks of 0/1 or 0/255; with `soft` the predictions are maps of 0 to 1 or 0 to 255.

    Raises: DataError for a file that is neither.
    """
    # reference foreground: above 128 in pysodmetrics, from 127 in the thesis
    threshold = 129 if soft else 127
    for case_id, files in pairs.items():
        found = read_label(files[0]) if soft else _read_classes(files[0])
        expected = _read_classes(files[1])
        white = _white(files[0], found.array, soft), _white(files[1], expected.array, soft=False)
        map_ = _on_one_grid(files, found, expected)
        prediction = map_ / white[0] if soft else binarise(map_, white[0])
        reference = binarise(expected.array[0], white[1], threshold)
        yield case_id, {FOREGROUND: Maps(prediction, reference, expected.spacing)}


def _read_classes(file: Path) -> Raster:
    """Read a label file. Floating-point values are rounded, because some programs leave rounding errors.

    Raises: DataError as `read_label`, and for values that are not whole numbers, such as probabilities.
    """
    raster = read_label(file)
    if raster.array.dtype.kind != "f":
        return raster
    rounded = np.rint(raster.array)
    if (off := np.abs(raster.array - rounded) > WHOLE).any():
        raise DataError(
            f"{file}: holds the values {_some(np.unique(raster.array[off]))}; expected integers, one per class; "
            "threshold a probability map first, or score it with --convention pranet"
        )
    return replace(raster, array=rounded)


def _white(file: Path, array: np.ndarray, soft: bool) -> int:
    """The value of white in one file: 1 if no value exceeds 1, else 255.

    Raises: DataError for other values, such as those of several classes.
    """
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255 or (1 < high < 127 and not soft):
        expected = "a map of 0 to 1 or 0 to 255" if soft else "a mask of 0/1 or 0/255"
        raise DataError(
            f"{file}: holds the values {_some(np.unique(array))}; expected {expected}; convert it, or score classes "
            "with --labels"
        )
    return 255 if high > 1 else 1


def _on_one_grid(files: tuple[Path, Path], found: Raster, expected: Raster) -> np.ndarray:
    """The prediction (*spatial of the reference). Raises: DataError as `aligned`."""
    return aligned(found.array, found.geometry, found.spacing, expected, f"{files[0]} against {files[1]}")[0]


def matched(predictions: Path, references: Path, allow_missing: bool) -> tuple[Pairs, tuple[str, ...]]:
    """Files of both folders by case, and the cases without a prediction.

    Raises: DataError for files without a counterpart, unless they are allowed, and if no name is in both folders.
    """
    found, expected = _masks(predictions), _masks(references)
    missing, unmatched = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing and not allow_missing:
        raise DataError(
            f"{predictions}: {len(missing)} of {len(expected)} references have no prediction: "
            f"{', '.join(missing)}; expected one each; predict them, or leave them out with --allow-missing"
        )
    if unmatched and not allow_missing:
        raise DataError(
            f"{predictions}: {len(unmatched)} predictions have no reference in {references}: "
            f"{', '.join(unmatched)}; expected one each; remove them, or leave them out with --allow-missing"
        )
    pairs = {case_id: (found[case_id], expected[case_id]) for case_id in sorted(expected.keys() & found.keys())}
    if not pairs:
        raise DataError(
            f"{predictions}: no file has the same name as one in {references}; expected a prediction per reference; "
            "check both paths"
        )
    return pairs, tuple(missing)


def _masks(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with a mask per case; check the path")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        ending = ending_of(file)
        if ending not in (*FILE_ENDINGS, ".tiff") or file.name.startswith(".") or not file.is_file():
            continue
        case_id = file.name[: -len(ending)]
        if case_id in files:
            raise DataError(
                f"{file}: case {case_id} is also {files[case_id].name}; expected one file per case; keep one of them"
            )
        files[case_id] = file
    if not files:
        raise DataError(f"{folder}: holds no masks; expected files ending in {' '.join(FILE_ENDINGS)}; check the path")
    return files


def _some(values: Iterable[float]) -> str:
    shown = [f"{value:g}" for value in values]
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "")

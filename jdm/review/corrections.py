"""Corrected labels: every version under `review/versions`, and those in force as `review/labels/CASE<ending>`."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np

from jdm.data.case_io import Pair, label_dtype, read_label
from jdm.data.image_io import write_raster
from jdm.data.raster import Raster
from jdm.data.raw_layout import RawDataset
from jdm.errors import DataError
from jdm.review.decisions import FOLDER, VERSIONS, Verdict
from jdm.system.files import replaced, sync_to_disk

LABELS = "labels"


def store(dataset: RawDataset, pair: Pair, label: np.ndarray) -> str:
    """Write a corrected label in the dataset's format, on the pair's grid, and wait until it is on disk.

    A version is never overwritten, so that an undo can go back to an earlier one.

    Args: label: (*spatial), class values.
    Returns: its file name under `review/versions`.
    """
    label = np.ascontiguousarray(label.astype(label_dtype(dataset.classes)))
    digest = hashlib.sha256(label.tobytes()).hexdigest()[:12]
    folder = dataset.folder / FOLDER / VERSIONS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pair.case_id}~{digest}{dataset.file_ending}"
    if not path.is_file():
        write_raster(path, Raster(label[None], pair.spacing, pair.geometry))
    sync_to_disk([path, folder])
    return path.name


def load(dataset: RawDataset, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A corrected label (*spatial). Raises: DataError if it is missing, damaged or of another shape."""
    path = dataset.folder / FOLDER / VERSIONS / name
    array = read_label(path, dataset.reader).array[0]
    if array.shape != shape:
        raise DataError(f"{path}: has shape {array.shape}; expected {shape}, as its image; decide again")
    return array.astype(label_dtype(dataset.classes))


def copy_file(source: Path, target: Path) -> None:
    """Copy a file complete or not at all, with the JSON file of a TIFF volume's spacing, if it has one."""
    with replaced(target) as temporary:
        shutil.copyfile(source, temporary)
    spacing = source.with_suffix(".json")
    if spacing.is_file():
        with replaced(target.with_suffix(".json")) as temporary:
            shutil.copyfile(spacing, temporary)


def put_in_force(dataset: RawDataset, verdicts: dict[str, Verdict]) -> None:
    """Make `review/labels` hold the corrected label of every case whose last word is "fix", and no other."""
    folder = dataset.folder / FOLDER / LABELS
    wanted = {f"{case}{dataset.file_ending}": verdict.label for case, verdict in verdicts.items() if verdict.label}
    if not wanted and not folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"[!.]*{dataset.file_ending}"):
        if path.name not in wanted:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
    for name, source in wanted.items():
        target = folder / name
        if source is not None and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            copy_file(source, target)

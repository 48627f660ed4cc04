"""Output of jdm-sample: files in the dataset's format, a sheet of pictures, and a record of their origin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.image_io import write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import Pair, RawDataset, write_case, write_json_like
from jdm.errors import ExistsError
from jdm.evaluation.figures import pair_grid

RECORD = "samples.json"
_SHEET_ROWS = 12


@contextlib.contextmanager
def output_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder beside `target`, renamed to `target` on success.

    Raises: ExistsError if the target exists, unless it holds samples and `overwrite` is given.
    """
    check_target(target, overwrite)
    target = target.absolute()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process, whose number is now this one's
    partial.mkdir(parents=True)
    try:
        yield partial
        replaced = partial.with_suffix(".replaced")
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Raises: ExistsError if the folder exists and may not be replaced."""
    if not target.exists():
        return
    if not (target / RECORD).is_file():
        raise ExistsError(f"{target} exists and holds no samples; expected a free name; choose another --out")
    if not overwrite:
        raise ExistsError(f"{target} exists; expected a free name; choose another --out, or add --overwrite")


@dataclass(frozen=True)
class Row:
    """A row of the sheet: the condition, then its samples."""

    pairs: Sequence[Pair]
    focus: np.ndarray | None = None
    """(*spatial): of a volume, the slice with most of this region is shown; None: with most foreground."""


def write_pairs(folder: Path, dataset: RawDataset, pairs: Sequence[Pair]) -> None:
    """Write the pairs as a dataset like the real one: imagesTr, labelsTr, dataset.json."""
    for pair in pairs:
        write_case(folder, pair, dataset.file_ending, mask=dataset.has_masks)
    write_json_like(folder, dataset, len(pairs))


def write_segmentation(folder: Path, dataset: RawDataset, pair: Pair, uncertainty: np.ndarray) -> None:
    """Write the label to labels/, as nnU-Net writes predictions, and its uncertainty (*spatial), 0 to 1, to
    uncertainty/: as a grey picture scaled to 0 to 255, or as a volume of real numbers."""
    ending = dataset.file_ending
    natural = pair.label.ndim == 2
    stored = np.rint(255 * uncertainty).astype(np.uint8) if natural else uncertainty.astype(np.float32)
    files = (("labels", pair.label, ending), ("uncertainty", stored, ".png" if natural else ending))
    for name, array, kind in files:
        (folder / name).mkdir(exist_ok=True)
        write_raster(folder / name / f"{pair.case_id}{kind}", Raster(array[None], pair.spacing, pair.geometry))


def write_probabilities(folder: Path, case_id: str, shares: np.ndarray) -> None:
    """Write label probabilities, (classes, *spatial), to labels/ as nnU-Net's `--save_probabilities` does.

    Its arrays are (classes, z, y, x), of one slice for pictures. nnU-Net reads the geometry of an ensemble (a pickled
    file) from the first folder it is given, so that none is written here.
    """
    volume = shares if shares.ndim == 4 else shares[:, None]
    np.savez_compressed(folder / "labels" / f"{case_id}.npz", probabilities=volume.astype(np.float32))


def write_sheet(folder: Path, rows: Sequence[Row]) -> None:
    """Write sheet.png: the first rows, each pair as image and as image with its mask outlined."""
    shown = [_plane(row) for row in rows[:_SHEET_ROWS]]
    pair_grid([pair for row in shown for pair in row], folder / "sheet.png", columns=max(map(len, shown)))


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Write samples.json, last; a folder that holds it may be replaced with --overwrite."""
    (folder / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _plane(row: Row) -> list[Pair]:
    """The row's pairs; of volumes, one slice across the shortest axis."""
    pairs = list(row.pairs)
    if pairs[0].label.ndim < 3:
        return pairs
    axis = int(np.argmin(pairs[0].label.shape))
    others = tuple(k for k in range(pairs[0].label.ndim) if k != axis)
    sought = [pair.label for pair in pairs] if row.focus is None else [row.focus]
    foreground = np.sum([np.count_nonzero(array, axis=others) for array in sought], axis=0)
    chosen = int(foreground.argmax()) if foreground.any() else pairs[0].label.shape[axis] // 2
    return [
        Pair(pair.case_id, pair.image.take(chosen, axis + 1), pair.label.take(chosen, axis), (1.0, 1.0))
        for pair in pairs
    ]

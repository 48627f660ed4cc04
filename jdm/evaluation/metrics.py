"""Overlap and surface distance of predicted masks, in the three conventions in which they are published.

- `nnunet`: per case and class; a class absent from both masks is left out of the mean; predicted and
  absent from the reference it scores 0. Equals nnU-Net's `summary.json`.
- `thesis`: both masks binarised (>= 127 of 0/255, > 0 of 0/1), foreground Dice and IoU per image, plain mean.
  An image empty in both masks makes the mean undefined; the number of such images is reported.
- `pranet`: the prediction, hard or soft, is stretched to [0, 1] per image and thresholded at 256 levels; the
  mean over images and then over thresholds, an empty intersection counting 0 (Fan et al. 2020,
  arXiv:2006.11392). Equals pysodmetrics, as do the scores at the single threshold 0.5.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdm.data.case_io import read_label
from jdm.data.image_io import FILE_ENDINGS, ending_of
from jdm.errors import ConfigError, DataError
from jdm.evaluation.scores import CaseScore, Convention, Evaluation, overlap, summarise

FOREGROUND = "foreground"


class Counts(NamedTuple):
    """Pixels of one class, by agreement of prediction and reference."""

    tp: int
    fp: int
    fn: int
    tn: int


def count(prediction: np.ndarray, reference: np.ndarray) -> Counts:
    """Agreement of two boolean masks of the same shape."""
    tp = int(np.count_nonzero(prediction & reference))
    n_pred, n_ref = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    return Counts(tp, n_pred - tp, n_ref - tp, reference.size - n_pred - n_ref + tp)


def surface_distance_95(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> float:
    """95th percentile of the symmetric surface distance of two boolean masks.

    Args:
        spacing: per axis; the result is in its unit.
    Returns: NaN where either mask is empty.
    Source: `medpy.metric.binary.hd95` with connectivity 1. Other packages differ by several pixels.
    """
    if not prediction.any() or not reference.any():
        return math.nan
    from medpy.metric.binary import hd95

    # Cropping to both objects changes no surface: beyond the crop there is background only, as medpy assumes.
    box = tuple(slice(int(np.min(where)), int(np.max(where)) + 1) for where in np.nonzero(prediction | reference))
    return float(hd95(prediction[box], reference[box], voxelspacing=spacing, connectivity=1))


def binarise(mask: np.ndarray, white: int = 255, threshold: int = 127) -> np.ndarray:
    """Foreground of a two-valued mask: `>= threshold` where white is 255, `> 0` where it is 1."""
    return mask >= threshold if white == 255 else mask > 0


def stretch(map_: np.ndarray) -> np.ndarray:
    """A map in [0, 1] with its lowest value moved to 0 and its highest to 1; a constant map stays."""
    low, high = map_.min(), map_.max()
    return (map_ - low) / (high - low) if high != low else map_


def swept_overlap(stretched: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU at the 256 thresholds 255, 254, ... 0 of a map in [0, 1]; 0 where the union is empty.

    Returns: two float64 arrays of shape (256,).
    """
    levels = (stretched * 255).astype(np.uint8)
    tp = np.cumsum(np.bincount(levels[reference], minlength=256)[::-1])
    fp = np.cumsum(np.bincount(levels[~reference], minlength=256)[::-1])
    union = np.maximum(np.count_nonzero(reference) + fp, 1)
    # |prediction| + |reference| = union + intersection
    return 2 * tp / (union + tp), tp / union


def evaluate_folders(
    predictions: Path,
    references: Path,
    convention: Convention,
    *,
    labels: Mapping[str, int] | None = None,
    allow_missing: bool = False,
    distances: bool = True,
) -> Evaluation:
    """Score every mask in `references` against the file of the same stem in `predictions`.

    Args:
        labels: foreground class names and values. `nnunet` needs them; without them the files are two-valued
            masks or, for `pranet`'s predictions, maps.
        allow_missing: score what both folders hold and list the rest, as `nnUNetv2_evaluate_folder --chill`.
        distances: also compute the 95 % surface distance, the slowest part.
    Raises: ConfigError without labels for `nnunet`; DataError for missing or unmatched files, for sizes that
        differ, and for masks that do not hold the values expected.
    """
    labels = {name: value for name, value in (labels or {}).items() if value != 0}
    if convention == "nnunet" and not labels:
        raise ConfigError(
            "convention nnunet scores each class, but no labels are given; give --dataset ID or --labels 1 2"
        )
    pairs, missing = _matched(predictions, references, allow_missing)
    cases = _labelled(pairs, labels) if labels else _two_valued(pairs, soft=convention == "pranet")
    scores = [
        _score(case_id, label, maps, convention, distances)
        for case_id, classes in cases
        for label, maps in classes.items()
    ]
    implementation = hd95_implementation() if distances else "not computed"
    summary = summarise(convention, scores, labels or {FOREGROUND: 1})
    return Evaluation(convention, implementation, tuple(scores), summary, missing)


def hd95_implementation() -> str:
    """Package, version and setting behind `surface_distance_95`."""
    return f"medpy {importlib.metadata.version('medpy')} hd95, connectivity 1"


class _Maps(NamedTuple):
    """One class of one case."""

    prediction: np.ndarray  # bool, or a float map in [0, 1]
    reference: np.ndarray  # bool
    spacing: tuple[float, ...]


_Case = tuple[str, dict[str, _Maps]]
_Pairs = dict[str, tuple[Path, Path]]


def _score(case_id: str, label: str, maps: _Maps, convention: Convention, distances: bool) -> CaseScore:
    prediction, reference, spacing = maps
    dice, iou = math.nan, math.nan
    if convention == "pranet":
        stretched = stretch(prediction.astype(np.float64))
        dice, iou = (float(curve.mean()) for curve in swept_overlap(stretched, reference))
        prediction = stretched > 0.5
    counts = count(prediction, reference)
    if convention != "pranet":
        dice, iou = overlap(counts.tp, counts.fp, counts.fn)
    distance = surface_distance_95(prediction, reference, spacing) if distances else math.nan
    return CaseScore(case_id, label, dice, iou, distance, *counts)


def _labelled(pairs: _Pairs, labels: Mapping[str, int]) -> Iterator[_Case]:
    """Cases whose files hold class values.

    Raises: DataError, after the last case, if one side holds other values than the labels throughout.
    """
    seen: tuple[set[int], set[int]] = (set(), set())
    for case_id, files in pairs.items():
        prediction, reference, spacing = _read_pair(*files)
        for values, mask in zip(seen, (prediction, reference), strict=True):
            values.update(np.unique(mask).tolist())
        yield (
            case_id,
            {name: _Maps(prediction == value, reference == value, spacing) for name, value in labels.items()},
        )
    for values, side in zip(seen, (0, 1), strict=True):
        if values - {0} and not values & set(labels.values()):
            folder = next(iter(pairs.values()))[side].parent
            raise DataError(
                f"{folder}: the masks hold the values {_some(sorted(values))}; expected the labels "
                f"{_some(labels.values())}; give --labels with the values in the files, or convert the masks"
            )


def _two_valued(pairs: _Pairs, soft: bool) -> Iterator[_Case]:
    """Cases whose files are two-valued masks; with `soft` the predictions are maps."""
    prediction_white = _white([files[0] for files in pairs.values()], soft)
    reference_white = _white([files[1] for files in pairs.values()], soft=False)
    # pysodmetrics takes a reference as foreground above 128, the thesis from 127 on
    threshold = 129 if soft else 127
    for case_id, files in pairs.items():
        prediction, reference, spacing = _read_pair(*files)
        found = prediction / prediction_white if soft else binarise(prediction, prediction_white)
        yield case_id, {FOREGROUND: _Maps(found, binarise(reference, reference_white, threshold), spacing)}


def _white(files: list[Path], soft: bool) -> int:
    """What a folder's files mean by white: 1 if no value exceeds it, else 255.

    Raises: DataError where masks are neither 0/1 nor 0/255, as class values are not.
    """
    highest = 0.0
    for file in files:
        highest = max(highest, float(read_label(file).array.max()))
        if highest >= 127:
            return 255
    if highest > 1 and not soft:
        raise DataError(
            f"{files[0].parent}: the masks hold values up to {highest:g}; expected two-valued masks, 0/1 or "
            "0/255; name the class wanted with --labels"
        )
    return 255 if highest > 1 else 1


def _read_pair(prediction_file: Path, reference_file: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    found, expected = read_label(prediction_file), read_label(reference_file)
    prediction, reference, spacing = found.array[0], expected.array[0], expected.spacing
    if prediction.shape != reference.shape:
        raise DataError(
            f"{prediction_file}: the prediction has shape {prediction.shape}; expected {reference.shape} as "
            f"{reference_file}; bring it back to the reference's size before scoring"
        )
    return prediction, reference, spacing


def _matched(predictions: Path, references: Path, allow_missing: bool) -> tuple[_Pairs, tuple[str, ...]]:
    """Files of both folders by case, and the cases without a prediction."""
    found, expected = _masks(predictions), _masks(references)
    missing, unmatched = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing and not allow_missing:
        raise DataError(
            f"{predictions}: {len(missing)} of {len(expected)} references have no prediction: "
            f"{', '.join(missing)}; expected one each; predict them, or score without them by --allow-missing"
        )
    if unmatched and not allow_missing:
        raise DataError(
            f"{predictions}: {len(unmatched)} predictions have no reference in {references}: "
            f"{', '.join(unmatched)}; expected one each; remove them, or score the others by --allow-missing"
        )
    pairs = {case_id: (found[case_id], expected[case_id]) for case_id in sorted(expected.keys() & found.keys())}
    if not pairs:
        raise DataError(
            f"{predictions}: no file has the name of one in {references}; expected a prediction per reference; "
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

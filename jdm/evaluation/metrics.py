"""Overlap and surface distance of predicted masks, by three published conventions.

- `nnunet`: per case and class or region. A class absent from both masks is left out of the mean; one that is predicted
  but absent from the reference scores 0. Voxels ignored in the reference are left out. Equals nnU-Net's `summary.json`.
- `thesis`: both masks are binarised (>= 127 of 0/255, > 0 of 0/1); foreground Dice and IoU per image, plain mean. If an
  image is empty in both masks, the mean is undefined; the number of such images is reported.
- `pranet`: the prediction, hard or soft, is stretched to [0, 1] per image and thresholded at 256 levels; scores are
  averaged over images and then over thresholds, and an empty intersection scores 0 (Fan et al. 2020,
  arXiv:2006.11392). Equals pysodmetrics, also at the single threshold 0.5.
"""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jdm.data.labels import DeclaredLabels, classes_and_ignore
from jdm.errors import ConfigError
from jdm.evaluation.masks import FOREGROUND, Maps, labelled_cases, matched, two_valued_cases
from jdm.evaluation.scores import NOT_COMPUTED, CaseScore, Convention, Evaluation, overlap, summarise

EmptyDistance = Literal["left-out", "diagonal"]


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
        spacing: per axis; the result has the same unit.
    Returns: NaN if either mask is empty.
    Source: `medpy.metric.binary.hd95` with connectivity 1. Other packages differ by several pixels.
    """
    return _surface("hd95", prediction, reference, spacing)


def mean_surface_distance(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Average symmetric surface distance of two boolean masks: the mean of the two mean distances, there and back.

    Args, Returns: as for `surface_distance_95`.
    Source: `medpy.metric.binary.assd` with connectivity 1.
    """
    return _surface("assd", prediction, reference, spacing)


def _surface(name: str, prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> float:
    if not prediction.any() or not reference.any():
        return math.nan
    from medpy.metric import binary

    # Cropping to both objects changes no surface, because medpy assumes background outside the array.
    box = tuple(slice(int(np.min(where)), int(np.max(where)) + 1) for where in np.nonzero(prediction | reference))
    return float(getattr(binary, name)(prediction[box], reference[box], voxelspacing=spacing, connectivity=1))


def stretch(map_: np.ndarray) -> np.ndarray:
    """A map rescaled to [0, 1] by its minimum and maximum; a constant or empty map is unchanged."""
    low, high = (map_.min(), map_.max()) if map_.size else (0.0, 0.0)
    return (map_ - low) / (high - low) if high != low else map_


def swept_overlap(stretched: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU of a map in [0, 1] at the 256 thresholds 255, 254, ... 0; 0 if the union is empty.

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
    labels: DeclaredLabels | None = None,
    allow_missing: bool = False,
    distances: bool = True,
    empty_distance: EmptyDistance = "left-out",
) -> Evaluation:
    """Score every mask in `references` against the file of the same stem in `predictions`.

    Volumes are compared in physical space: voxels in another axis order are flipped and permuted first.

    Args:
        labels: as in dataset.json: class names and values, lists of values for regions, and "ignore". Required for
            `nnunet`; otherwise the files are two-valued masks or, for predictions with `pranet`, maps.
        allow_missing: score only cases in both folders and list the others, like `nnUNetv2_evaluate_folder --chill`.
        distances: also compute the 95 % surface distance, the slowest part.
        empty_distance: the distance if only one mask is empty: left out of the mean and counted, or the image diagonal.
    Raises: ConfigError for `nnunet` without labels; DataError for missing or unmatched files, voxels that do not
        coincide, or unexpected values.
    """
    classes = classes_and_ignore(labels or {})[0]
    if convention == "nnunet" and not classes:
        raise ConfigError(
            "--convention nnunet scores each class, but no labels are given; add --dataset ID or --labels 1 2"
        )
    pairs, missing = matched(predictions, references, allow_missing)
    if labels and classes:
        cases = labelled_cases(pairs, labels)
    else:
        cases = two_valued_cases(pairs, soft=convention == "pranet")
    scores = [
        _score(case_id, label, maps, convention, empty_distance if distances else None)
        for case_id, found in cases
        for label, maps in found.items()
    ]
    implementation = hd95_implementation(empty_distance) if distances else NOT_COMPUTED
    summary = summarise(convention, scores, classes or {FOREGROUND: (1,)})
    return Evaluation(convention, implementation, tuple(scores), summary, missing)


def hd95_implementation(empty_distance: EmptyDistance = "left-out") -> str:
    """Package, version and settings behind the surface distances."""
    empty = ", the image diagonal where one mask is empty" if empty_distance == "diagonal" else ""
    return f"medpy {importlib.metadata.version('medpy')} hd95 and assd, connectivity 1{empty}"


def _score(
    case_id: str, label: str, maps: Maps, convention: Convention, empty_distance: EmptyDistance | None
) -> CaseScore:
    prediction, reference, spacing, ignored = maps
    seen = ... if ignored is None else ~ignored
    dice, iou = math.nan, math.nan
    if convention == "pranet":
        stretched = stretch(prediction[seen].astype(np.float64))
        dice, iou = (float(curve.mean()) for curve in swept_overlap(stretched, reference[seen]))
        prediction = np.zeros(reference.shape, bool)
        prediction[seen] = stretched > 0.5
    elif ignored is not None:
        prediction = prediction & seen
    if ignored is not None:
        reference = reference & seen
    counts = count(prediction[seen], reference[seen])
    if convention != "pranet":
        dice, iou = overlap(counts.tp, counts.fp, counts.fn)
    distance = mean_distance = math.nan
    if empty_distance is not None:
        distance = surface_distance_95(prediction, reference, spacing)
        mean_distance = mean_surface_distance(prediction, reference, spacing)
        if empty_distance == "diagonal" and prediction.any() != reference.any():
            sides = zip(reference.shape, spacing, strict=True)
            distance = mean_distance = math.hypot(*(side * step for side, step in sides))
    return CaseScore(
        case_id, label, dice, iou, distance, *counts, voxel_size=math.prod(spacing), assd=mean_distance
    )  # fmt: skip

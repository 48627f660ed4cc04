"""Pictures of an experiment: image, reference and each arm's prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import RawDataset, read_case
from jdm.evaluation.figures import Comparison, comparison

_CROP = 256
"""Larger images are cropped to their central part, so that outlines stay visible."""


def evenly_spaced(ids: Sequence[str], most: int) -> list[str]:
    """At most `most` ids, evenly spaced in the sorted list, not selected by score."""
    positions = np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).round().astype(int))
    return [sorted(ids)[position] for position in positions]


def draw_case(dataset: RawDataset, case_id: str, test: bool, predictions: Mapping[str, Path], file: Path) -> None:
    """Write one picture: the image, the reference and the prediction of each arm over it.

    Args:
        test: whether the case is in imagesTs.
        predictions: label file by arm.
    """
    pair = read_case(dataset, case_id, test)
    masks = {arm: read_raster(path, label=True).array[0] for arm, path in predictions.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    comparison([Comparison(case_id, pair.image, pair.label, masks)], file, crop=_CROP)

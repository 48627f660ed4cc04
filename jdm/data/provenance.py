"""Which real cases a synthetic dataset was generated from: the provenance.json that `jdm-export` writes."""

from __future__ import annotations

import json
from typing import Any

from jdm.data.raw_layout import RawDataset
from jdm.errors import DataError


def read_generator(dataset: RawDataset) -> dict[str, Any]:
    """The `generator` part of a synthetic dataset's provenance: dataset, fold, training_ids, ...

    Raises: DataError if the dataset is not synthetic, or provenance.json is unreadable or names no training case.
    """
    return _provenance(dataset)["generator"]


def usual_configuration(dataset: RawDataset) -> str:
    """nnU-Net's configuration for a synthetic dataset: 3d_fullres for volumes whose slices match, else 2d.

    Raises: DataError as `read_generator`.
    """
    return "3d_fullres" if _provenance(dataset).get("whole_volumes") else "2d"


def _provenance(dataset: RawDataset) -> dict[str, Any]:
    file = dataset.folder / "provenance.json"
    if not file.exists():
        raise DataError(
            f"{dataset.name} is not synthetic: it has no provenance.json; expected a dataset written by jdm-export; "
            "give its id"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        training_ids = content["generator"]["training_ids"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot tell which real cases {dataset.name} was generated from: {file} gives "
            f"{type(error).__name__}; expected the file written by jdm-export; export the dataset again"
        ) from None
    if not isinstance(training_ids, list) or not training_ids or not all(isinstance(c, str) for c in training_ids):
        raise DataError(
            f"{file} names {training_ids!r} as generator.training_ids; expected the ids of the cases the "
            "generator was trained on; export the dataset again"
        )
    return content

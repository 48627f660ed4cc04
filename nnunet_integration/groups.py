"""Which scored cases belong to one patient or one sequence."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jdm.data.raw_dataset import RawDataset
from jdm.errors import DataError


def read_groups(dataset: RawDataset, case_ids: Sequence[str], test: bool) -> dict[str, str]:
    """Group of each case, from the dataset's conversion.json; a case without one is a group of its own.

    Args:
        test: whether the cases are in imagesTs.
    Raises: DataError if conversion.json is there and cannot be read.
    """
    file = dataset.folder / "conversion.json"
    split, found = "test" if test else "train", {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["entries"] if file.is_file() else []
        for entry in entries:
            if entry["split"] == split and entry.get("group"):
                found[entry["case"]] = f"group {entry['group']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{file}: cannot be used ({type(error).__name__}: {error}); expected jdm-convert's record of the cases; "
            "convert again, or remove it"
        ) from None
    return {case: found.get(case, f"case {case}") for case in case_ids}

"""Groups of cases that belong together, such as those of one patient or video sequence."""

from __future__ import annotations

import json

from jdm.data.raw_layout import RawDataset
from jdm.errors import DataError


def read_groups(dataset: RawDataset, test: bool = False) -> dict[str, str]:
    """Group of every training case (with `test`: of every case in imagesTs), from jdm-convert's conversion.json.

    A case of unknown group is its own group; so is every case if there is no conversion.json.
    Raises: DataError if conversion.json exists but cannot be read.
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
    cases = dataset.test_cases if test else dataset.cases
    return {case: found.get(case, f"case {case}") for case in cases}

"""Case-level classes, such as benign or malignant, in a CSV file with the columns case and class."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from pathlib import Path

from jdm.data.raw_layout import RawDataset, few
from jdm.data.tables import case_column
from jdm.errors import DataError

FILE_NAME = "classes.csv"
_SHOWN = 5


def read_classes(path: Path, dataset: RawDataset) -> dict[str, str]:
    """The class of every training case of a dataset, sorted by case; an empty string if it has none.

    Raises: as `read_all_classes`.
    """
    found = read_all_classes(path, dataset)
    return {case: found[case] for case in dataset.cases}


def read_all_classes(path: Path, dataset: RawDataset) -> dict[str, str]:
    """The class of every training case of a dataset, and of the test cases that are listed.

    The file has two columns, or a header that includes "case" and "class", as written by `jdm-convert` and
    `jdm-export`. It may list test cases too.
    Raises: DataError naming the file and line if it is not such a table, lists a case twice or an unknown case, or
        lacks a training case.
    """
    found: dict[str, str] = {}
    for number, case, label in case_column(path, "class", {*dataset.cases, *dataset.test_cases}):
        if case in found:
            raise DataError(f"{path}: line {number} lists case {case} again; expected each once; remove one")
        if not label.isprintable():
            raise DataError(f"{path}: line {number} has the class {label[:40]!a}; expected a printable name")
        found[case] = label
    if strange := sorted({*found} - {*dataset.cases, *dataset.test_cases}):
        raise DataError(
            f"{path}: lists {few(strange, _SHOWN)}, which are not cases of {dataset.name}; expected ids such as "
            f"{dataset.cases[0]}; correct or remove them"
        )
    if missing := sorted({*dataset.cases} - {*found}):
        raise DataError(
            f"{path}: lacks {len(missing)} of {len(dataset.cases)} training cases: {few(missing, _SHOWN)}; expected a "
            "line for each; add them, with an empty class if it is unknown"
        )
    return found


def class_names(classes: Mapping[str, str], cases: Collection[str], source: Path | str) -> tuple[str, ...]:
    """The classes of some cases, sorted and without repeats.

    Args: source: where the classes come from, for the message.
    Raises: DataError if there are fewer than two.
    """
    names = tuple(sorted({classes[case] for case in cases} - {""}))
    if len(names) < 2:
        raise DataError(
            f"{source}: the {len(cases)} training cases have {f'the one class {names[0]}' if names else 'no class'}; "
            "expected at least two classes; correct it, or train without --classes"
        )
    return names


def classes_csv(classes: Mapping[str, str]) -> str:
    """Text of a file that `read_classes` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "class"))
    writer.writerows(sorted(classes.items()))
    return text.getvalue()

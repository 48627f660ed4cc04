"""The class of each case as a whole, such as benign or malignant: a CSV file with the columns case and class."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jdm.data.raw_dataset import RawDataset
from jdm.data.raw_layout import few
from jdm.data.tables import csv_lines
from jdm.errors import DataError

FILE_NAME = "classes.csv"
_CASE_COLUMNS, _CLASS_COLUMN = ("case", "case id", "case_id"), "class"
_SHOWN = 5


def read_classes(path: Path, dataset: RawDataset) -> dict[str, str]:
    """The class of every training case of a dataset, sorted by case; an empty string where it has none.

    The file has two columns, or a header with "case" and "class" among others, as `jdm-convert` and `jdm-export` write
    it. Test cases may be listed too.
    Raises: DataError naming the file and the line, if it is no such table, lists a case twice or one that is not there,
        or lacks a training case.
    """
    lines, _ = csv_lines(path)
    rows = [
        (number, [cell.strip() for cell in line]) for number, line in enumerate(lines, 1) if any(map(str.strip, line))
    ]
    found: dict[str, str] = {}
    for number, case, label in _case_and_class(path, rows, {*dataset.cases, *dataset.test_cases}):
        if case in found:
            raise DataError(f"{path}: line {number} lists case {case} again; expected each once; remove one")
        if not label.isprintable():
            raise DataError(f"{path}: line {number} has the class {label[:40]!a}; expected a printable name")
        found[case] = label
    if strange := sorted({*found} - {*dataset.cases, *dataset.test_cases}):
        raise DataError(
            f"{path}: lists {few(strange, _SHOWN)}, which {dataset.name} does not have; expected ids such as "
            f"{dataset.cases[0]}; correct or remove them"
        )
    if missing := sorted({*dataset.cases} - {*found}):
        raise DataError(
            f"{path}: lacks {len(missing)} of {len(dataset.cases)} training cases: {few(missing, _SHOWN)}; expected a "
            "line for each; add them, with an empty class where it is not known"
        )
    return {case: found[case] for case in dataset.cases}


def _case_and_class(
    path: Path, rows: Sequence[tuple[int, list[str]]], known: Collection[str]
) -> list[tuple[int, str, str]]:
    """Line number, case and class of each row, below a header if there is one."""
    first = [cell.lower() for cell in rows[0][1]] if rows else []
    case_column = next((first.index(name) for name in _CASE_COLUMNS if name in first), None)
    if case_column is not None and _CLASS_COLUMN in first:
        places, rows = (case_column, first.index(_CLASS_COLUMN)), rows[1:]
    elif rows and rows[0][1][0] in known:
        places, first = (0, 1), ["case", "class"]
    else:
        seen = ascii(",".join(rows[0][1])[:60]) if rows else "nothing"
        raise DataError(
            f"{path}: begins with {seen}; expected a header with the columns case and class, or a case of the dataset "
            "and its class; correct it"
        )
    for number, cells in rows:
        if len(cells) != len(first):
            raise DataError(f"{path}: line {number} has {len(cells)} columns; expected {len(first)}; correct it")
    return [(number, cells[places[0]], cells[places[1]]) for number, cells in rows]


def class_names(classes: Mapping[str, str], cases: Collection[str], source: Path | str) -> tuple[str, ...]:
    """The classes that some cases have, sorted.

    Args: source: of the classes, for the message.
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
    writer.writerow((_CASE_COLUMNS[0], _CLASS_COLUMN))
    writer.writerows(sorted(classes.items()))
    return text.getvalue()

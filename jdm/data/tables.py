"""Reading of CSV files, from datasets and from users."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from unicodedata import normalize

from jdm.data.raster import one_line
from jdm.errors import DataError

MAX_BYTES = 2**26
_CASE_COLUMNS = ("case", "case id", "case_id")


def csv_lines(path: Path) -> tuple[list[list[str]], str]:
    """The cells of each line, and the original text.

    Raises: DataError if the file is missing, too large, not UTF-8 or not CSV.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has {path.stat().st_size} bytes; expected a table of at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8-sig")
        return list(csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)), text
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}: {one_line(error)}); expected a CSV table in UTF-8; save "
            "it as such"
        ) from None


def case_column(path: Path, column: str, known: Collection[str]) -> list[tuple[int, str, str]]:
    """Line number, case and value of each row of a table of cases.

    The table has a header that includes `case` and `column`, or two columns and no header.

    Args:
        column: name of the value, such as class.
        known: all case ids; a table without header begins with one of them.
    Raises: DataError as `csv_lines`, if it is not such a table, or if lines differ in their number of columns.
    """
    lines, _ = csv_lines(path)
    same = {normalize("NFC", name): name for name in known}  # names that look the same are the same
    rows = [
        (number, [normalize("NFC", cell.strip()) for cell in line])
        for number, line in enumerate(lines, 1)
        if any(map(str.strip, line))
    ]
    first = [cell.lower() for cell in rows[0][1]] if rows else []
    case_place = next((first.index(name) for name in _CASE_COLUMNS if name in first), None)
    if case_place is not None and column in first:
        places, rows = (case_place, first.index(column)), rows[1:]
    elif rows and len(first) > 1 and rows[0][1][0] in same:
        places, first = (0, 1), ["case", column]
    else:
        seen = ascii(",".join(rows[0][1])[:60]) if rows else "nothing"
        raise DataError(
            f"{path}: begins with {seen}; expected a header with case and {column}, separated by commas, or "
            f"a case and its {column}; correct it"
        )
    for number, cells in rows:
        if len(cells) != len(first):
            raise DataError(f"{path}: line {number} has {len(cells)} columns; expected {len(first)}; correct it")
    return [(number, same.get(cells[places[0]], cells[places[0]]), cells[places[1]]) for number, cells in rows]

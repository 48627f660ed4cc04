"""CSV files, those that come with datasets and those of users."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from jdm.data.raster import one_line
from jdm.errors import DataError

MAX_BYTES = 2**26


def csv_lines(path: Path) -> tuple[list[list[str]], str]:
    """The cells of each line, and the text as it is.

    Raises: DataError if it is missing, too large, no UTF-8 or CSV.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has {path.stat().st_size} bytes; expected a table of at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8-sig")
        return list(csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)), text
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}: {one_line(error)}); expected a CSV table in UTF-8; get "
            "it again"
        ) from None

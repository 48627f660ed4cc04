"""CSV files that come with datasets."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from jdm.data.raw_layout import few
from jdm.data.tables import csv_lines
from jdm.errors import DataError


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[list[dict[str, str]], str]:
    """Rows by column name, with surrounding blanks removed, and the original text.

    Args:
        columns: required columns.
    Raises: DataError if the file is missing, too large, not UTF-8 or CSV, or lacks a column.
    """
    lines, text = csv_lines(path)
    header = [name.strip() for name in lines[0]] if lines else []
    lacking = [name for name in columns if name not in header]
    if lacking:
        seen = few([ascii(name[:40]) for name in header]) or "none"
        raise DataError(f"{path}: has the columns {seen}; expected also {', '.join(lacking)}; get the original table")
    rows = [
        dict(zip(header, [*(value.strip() for value in line), *[""] * len(header)], strict=False))
        for line in lines[1:]
        if any(value.strip() for value in line)
    ]
    return rows, text


def is_plain_file_name(text: str) -> bool:
    """Whether a name from a table is a plain file name, without a path."""
    return (
        bool(text)
        and text not in (".", "..")
        and "\\" not in text
        and "\0" not in text
        and ":" not in text
        and (PurePosixPath(text).name == text)
    )

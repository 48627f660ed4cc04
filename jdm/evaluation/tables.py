"""Tables of text cells, and their Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from jdm.errors import DataError


@dataclass(frozen=True)
class Table:
    """Text cells; the first of each row names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table_markdown(table: Table) -> str:
    """The same table in Markdown, ending in a newline. Raises: DataError as `check_table`."""
    check_table(table)
    rule = "|---" + "|---:" * (len(table.header) - 1) + "|"
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (table.header, *table.rows)]
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def check_table(table: Table) -> None:
    """Raises: DataError if a row differs in length from the header."""
    for row in table.rows:
        if len(row) != len(table.header):
            raise DataError(
                f"table {table.caption!r} has a row of {len(row)} cells; expected {len(table.header)}, as in its "
                "header; fill every row"
            )

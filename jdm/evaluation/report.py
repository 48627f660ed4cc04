"""One self-contained HTML file with results and commands: no scripts, no other files, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jdm.errors import DataError
from jdm.system.files import write_text
from jdm.system.machine import Run


@dataclass(frozen=True)
class Table:
    """Text cells; the first of each row names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A PNG file, its alternative text, and its caption."""

    path: Path
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a report; its parts are shown in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


def write_report(
    path: Path, sections: Sequence[Section], *, verdict: str, title: str = "jdm report", run: Run | None = None
) -> None:
    """Write one self-contained HTML file, complete or not at all.

    Args:
        verdict: the result in words, the first line.
    Raises: DataError if a figure is not a PNG file, or a table's rows differ in length from its header.
    """
    import jinja2

    for section in sections:
        for table in section.tables:
            _check(table)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["embedded"] = _embedded
    facts = () if run is None else _facts(run)
    text = environment.get_template("report.html.jinja").render(
        title=title, verdict=verdict, run=facts, sections=list(sections)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def table_markdown(table: Table) -> str:
    """The same table in Markdown, ending in a newline. Raises: DataError as `write_report`."""
    _check(table)
    rule = "|---" + "|---:" * (len(table.header) - 1) + "|"
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (table.header, *table.rows)]
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def _check(table: Table) -> None:
    for row in table.rows:
        if len(row) != len(table.header):
            raise DataError(
                f"table {table.caption!r} has a row of {len(row)} cells; expected {len(table.header)}, as in its "
                "header; fill every row"
            )


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    version = f"jdm {run.version}" + (f", commit {run.commit}" if run.commit else "")
    return (("Command", run.command), ("Version", version), ("Hardware", run.hardware))


def _embedded(figure: Figure) -> str:
    try:
        content = figure.path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{figure.path}: cannot be read ({error.strerror}); expected a PNG figure; draw it first"
        ) from None
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError(f"{figure.path}: is not a PNG file; expected one; save the figure as PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")

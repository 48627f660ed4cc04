"""One self-contained HTML file with results and commands, and the same as JSON: no other files, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jdm.errors import DataError
from jdm.system.files import strict, write_json, write_text
from jdm.system.machine import Run


@dataclass(frozen=True)
class Table:
    """Text cells; the first of each row names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A PNG, its alternative text, and its caption."""

    picture: Path | bytes
    """A file, or its content."""
    alt: str
    caption: str = ""
    outline: bytes = b""
    """A transparent PNG of the same size that can be switched off, such as a mask's outline."""


@dataclass(frozen=True)
class Section:
    """A section of a report; its parts are shown in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


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
    script = (Path(__file__).parent / "report.js").read_text(encoding="utf-8")
    text = environment.get_template("report.html.jinja").render(
        title=title, verdict=verdict, run=facts, sections=list(sections), script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        outlined=any(figure.outline for section in sections for figure in section.figures),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def write_twin(path: Path, sections: Sequence[Section], *, verdict: str, title: str) -> None:
    """Write what a report says as JSON: title, verdict, and by section its text, tables and captions."""
    parts = [
        {
            **{name: value for name, value in asdict(section).items() if name != "figures"},
            "figures": [{"alt": figure.alt, "caption": figure.caption} for figure in section.figures],
        }
        for section in sections
    ]
    write_json(path, strict({"title": title, "verdict": verdict, "sections": parts}))


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


def _embedded(picture: Path | bytes) -> str:
    try:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
    except OSError as error:
        raise DataError(f"{picture}: cannot be read ({error.strerror}); expected a PNG figure; draw it first") from None
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError(f"{picture}: is not a PNG file; expected one; save the figure as PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")

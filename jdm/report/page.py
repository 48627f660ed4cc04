"""Writes a report: one self-contained HTML page and the same content as JSON, without any other file or network."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path

from jdm.errors import ConfigError, ExistsError
from jdm.evaluation.figures import COLOURS
from jdm.evaluation.tables import check_table
from jdm.report.content import Report
from jdm.system.files import write_json, write_text

PAGE, TWIN = "report.html", "report.json"
_MARK = "jdm-report"
_HEADLINE = re.compile(r"(.{1,120}?)(?:: |\.(?= |$)|$)")


def check_out(out: Path) -> None:
    """Refuse a folder that the report cannot be written to.

    Raises: ConfigError if `out`, or what should hold it, is not a folder; ExistsError if a file of that name there is
        not one of jdm's.
    """
    for place in (out, *out.absolute().parents):
        if os.path.lexists(place) and not place.is_dir():
            raise ConfigError(
                f"{out}: the report cannot go there, because {place} is not a folder; expected one; choose another "
                "--out"
            )
    for file in (out / PAGE, out / TWIN):
        if os.path.lexists(file) and not _is_ours(file):
            raise ExistsError(f"{file} was not written by jdm; expected no such file; move it, or choose another --out")


def _is_ours(file: Path) -> bool:
    return file.is_file() and _MARK in file.read_text(encoding="utf-8", errors="replace")


def write_page(report: Report, out: Path) -> Path:
    """Write report.html and report.json into `out`, each complete or not at all. Returns: the page's path.

    Raises: DataError if a table's rows differ in length from its header; ConfigError and ExistsError as `check_out`,
        or if the folder cannot be made.
    """
    html = page(report)
    check_out(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be made ({error.strerror}); expected a folder for the report; choose another --out"
        ) from None
    write_json(out / TWIN, report.to_dict())
    write_text(out / PAGE, html)
    return out / PAGE


def page(report: Report) -> str:
    """The HTML of a report. Raises: DataError as `write_page`."""
    import jinja2
    from markupsafe import Markup

    from jdm.report.plots import drawn

    for section in report.sections:
        for table in section.tables:
            check_table(table)
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "embedded": _embedded, "sha256": _sha256, "colour": _colour, "drawn": lambda plot: Markup(drawn(plot)),
    }  # fmt: skip
    headline, sentences = _split(report.verdict)
    css, js = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.jinja").render(
        report=report, headline=headline, sentences=sentences, css=css, js=js
    )


def _split(verdict: str) -> tuple[str, list[str]]:
    """The headline, and the sentences after it."""
    match = _HEADLINE.match(verdict)
    if match is None:
        return verdict, []
    rest = verdict[match.end() :].strip()
    return match[1], [sentence for sentence in re.split(r"(?<=\.) (?=[A-Z])", rest) if sentence]


def _sha256(text: str) -> str:
    """The hash by which the page's policy admits its own style and script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _embedded(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _colour(value: int) -> str:
    """Contour colour of a class."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[(value - 1) % len(COLOURS)])

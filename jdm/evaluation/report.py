"""One HTML file that tells what was run and what came out: no scripts, no other files, no network."""

from __future__ import annotations

import base64
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jdm
from jdm.errors import DataError


@dataclass(frozen=True)
class Table:
    """Text cells; the first of each row names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A PNG file, what it shows for those who cannot see it, and its caption."""

    path: Path
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a report, in the order in which it is shown."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """What a result needs beside it to be repeated."""

    command: str
    version: str
    commit: str
    """Empty outside of a checkout."""
    hardware: str
    """Processor, cores, Python, PyTorch and GPUs in one line."""
    cpu: str
    cores: int
    """Those this process may use."""
    gpus: tuple[str, ...]


def describe_run(command: Sequence[str] | None = None) -> Run:
    """The command line (this process's by default), jdm's version and commit, and the hardware."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else list(command)
    cpu, cores, gpus = _processor(), _cores(), _gpus()
    parts = [f"{cpu}, {cores} cores", f"Python {platform.python_version()}"]
    if torch := sys.modules.get("torch"):
        parts.append(f"PyTorch {torch.__version__}")
    hardware = "; ".join([*parts, *gpus])
    return Run(shlex.join(words), jdm.__version__, _commit(), hardware, cpu, cores, gpus)


def write_report(path: Path, sections: Sequence[Section], *, title: str = "jdm report", run: Run | None = None) -> None:
    """Write one self-contained HTML file, complete or not at all.

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
    text = environment.get_template("report.html.jinja").render(title=title, run=facts, sections=list(sections))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
                f"table {table.caption!r} has a row of {len(row)} cells; expected {len(table.header)} as its "
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


def _commit() -> str:
    """Commit of the checkout that jdm is imported from, marked if it was changed since; empty outside of one."""
    root = Path(jdm.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + (" with changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _gpus() -> tuple[str, ...]:
    torch = sys.modules.get("torch")  # where it was not loaded, nothing ran on it
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

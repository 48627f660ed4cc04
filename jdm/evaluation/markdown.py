"""Reads the Markdown that jdm's commands write, so that a report says the same."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from jdm.evaluation.report import Figure, Section, Table

_CELLS = re.compile(r"(?<!\\)\|")
_PICTURE = re.compile(r"!\[(.*)\]\((.*)\)")


@dataclass
class _Open:
    """A section that is being read."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def closed(self) -> Section:
        return Section(self.title, tuple(self.paragraphs), tuple(self.tables), tuple(self.figures))


def read_markdown(text: str, folder: Path) -> tuple[str, str, list[Section]]:
    """Title (empty without one), first paragraph, and sections of a page: paragraphs, lists, tables and pictures.

    A bold paragraph, or else the section's title, is the caption of the table that follows it.

    Args: folder: where the page's pictures lie.
    """
    title, first, caption = "", "", ""
    sections = [_Open("Result")]
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.strip().splitlines()
        here = sections[-1]
        if block.startswith("# "):
            title = _plain(block[2:])
        elif block.startswith("## "):
            sections.append(_Open(_plain(block[3:])))
            caption = ""
        elif len(lines) > 1 and lines[0].startswith("|") and set(lines[1]) <= set("|-: "):
            here.tables.append(_table(caption or here.title, lines))
            caption = ""
        elif found := _PICTURE.fullmatch(block.strip()):
            here.figures.append(Figure(folder / found[2], found[1]))
        elif block.startswith("**") and block.rstrip().endswith("**"):
            caption = _plain(block.strip().strip("*"))
        elif not first:
            first = _plain(" ".join(lines))
        else:
            here.paragraphs += [_plain(line) for line in (lines if lines[0].startswith("- ") else [" ".join(lines)])]
    return title, first, [s.closed() for s in sections if s.paragraphs or s.tables or s.figures]


def _table(caption: str, lines: list[str]) -> Table:
    rows = [
        tuple(_plain(cell.strip().replace("\\|", "|")) for cell in _CELLS.split(line.strip())[1:-1]) for line in lines
    ]
    return Table(caption, rows[0], tuple(rows[2:]))


def _plain(text: str) -> str:
    return text.strip().replace("`", "").replace("**", "")

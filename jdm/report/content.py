"""What a report says: its parts as plain values, which the page shows and report.json holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jdm.evaluation.tables import Table


@dataclass(frozen=True)
class Picture:
    """A PNG, and contours to lay over it."""

    image: bytes
    alt: str
    caption: str = ""
    contours: bytes = b""
    """A transparent PNG of the same proportions; empty: none."""
    size: tuple[int, int] = (0, 0)
    """Width and height of `image` in pixels."""


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, such as real pairs, or a pair and its nearest training case."""

    title: str
    pictures: tuple[Picture, ...]
    suspect: bool = False
    """Whether to draw attention to it."""


@dataclass(frozen=True)
class Lines:
    """Curves over a common axis."""

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    marks: Mapping[str, float] = field(default_factory=dict)
    """Values of x to mark."""
    bars: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    """Intervals of y by curve: (x, low, high)."""
    log: bool = False
    """Whether x is shown by its logarithm."""


@dataclass(frozen=True)
class Strips:
    """Every value of some sets as a dot, a row per set, with its quartiles and its median."""

    title: str
    x: str
    rows: Mapping[str, Sequence[float]]
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Intervals:
    """Means with their limits, a row each; a mean without limits has None."""

    title: str
    x: str
    rows: Mapping[str, tuple[float, float | None, float | None]]
    marks: Mapping[str, float] = field(default_factory=dict)


Plot = Lines | Strips | Intervals


@dataclass(frozen=True)
class Section:
    """A section of a report; its parts are shown in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    classes: tuple[str, ...] = ()
    """Names of the classes 1, 2, ... whose contours the groups show."""
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    sheets: tuple[Picture, ...] = ()
    """Wide pictures, such as predictions side by side."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """A report on a folder."""

    kind: str
    title: str
    verdict: str
    """The result in words; what comes before its first colon or full stop is the headline."""
    sections: tuple[Section, ...]
    provenance: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json: all that the page says, pictures by their alternative text."""
        return {
            "generator": "jdm-report",
            "kind": self.kind,
            "title": self.title,
            "verdict": self.verdict,
            "sections": [_section(section) for section in self.sections],
            "provenance": dict(self.provenance),
            "commands": list(self.commands),
        }


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "paragraphs": list(section.paragraphs),
        "groups": [
            {"title": group.title, "suspect": group.suspect, "pictures": [_picture(each) for each in group.pictures]}
            for group in section.groups
        ],
        "classes": list(section.classes),
        "plots": [{"kind": type(plot).__name__.lower(), **dataclasses.asdict(plot)} for plot in section.plots],
        "tables": [dataclasses.asdict(table) for table in section.tables],
        "sheets": [_picture(each) for each in section.sheets],
        "notes": list(section.notes),
    }


def _picture(picture: Picture) -> dict[str, Any]:
    return {"alt": picture.alt, "caption": picture.caption, "contours": bool(picture.contours)}

"""The record of a conversion: what was accepted, repaired (how) and refused (why), file by file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from jdm.system.files import write_json, write_text
from jdm.system.machine import jdm_version

Status = Literal["accepted", "repaired", "refused", "ignored"]
STATUSES: tuple[Status, ...] = ("accepted", "repaired", "refused", "ignored")


def printable(text: str) -> str:
    """`text` on one line, with unprintable characters escaped, since file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True)
class Entry:
    """One case, or one file that belongs to no case."""

    status: Status
    split: str
    """train or test."""
    case_id: str | None
    files: tuple[str, ...]
    """Source files, as found."""
    notes: tuple[str, ...] = ()
    """Repairs, or the reason for a refusal."""
    group: str | None = None
    """Group, such as a patient or sequence, whose cases must be on one side of a split."""


@dataclass
class Ledger:
    """Entries in the order of conversion, and the images that occur more than once."""

    source: dict[str, str]
    """The request: folders, labels, options."""
    entries: list[Entry] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Notes on the whole dataset, such as inferred names."""
    published: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Numbers of cases found and published, by part of the dataset."""
    shown: Callable[[str], str] = field(default=str, repr=False)
    """Maps paths in temporary folders to the user's paths."""
    _seen: dict[bytes, tuple[str, str]] = field(default_factory=dict, repr=False)

    def add(
        self, status: Status, split: str, case_id: str | None, files: Sequence[Path], notes: Sequence[str],
        group: str | None = None,
    ) -> None:  # fmt: skip
        """Append an entry."""
        names = tuple(printable(self.shown(str(file))) for file in files)
        lines = tuple(printable(self.shown(note)) for note in notes)
        self.entries.append(Entry(status, split, case_id, names, lines, printable(group) if group else None))

    def compare(self, found: Mapping[str, int], published: Mapping[str, int]) -> None:
        """Compare the number of cases in each part of the dataset with the published number, and note differences."""
        counts = {part: (found.get(part, 0), number) for part, number in published.items()}
        self.published |= counts
        self.notes += [
            f"{part}: {here} found, {there} published" for part, (here, there) in counts.items() if here != there
        ]

    def see(self, image: np.ndarray, split: str, case_id: str) -> str | None:
        """Record an image by its content. Returns: a line about it if another case has the same image, else None."""
        digest = hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()
        first = self._seen.setdefault(digest, (split, case_id))
        if first == (split, case_id):
            return None
        where = "across training and test: leakage" if first[0] != split else f"within {split}"
        line = f"{split} case {case_id} has the same image as {first[0]} case {first[1]} ({where})"
        self.duplicates.append(line)
        return line

    def counts(self) -> dict[str, int]:
        """Number of entries by status."""
        found = Counter(entry.status for entry in self.entries)
        return {status: found[status] for status in STATUSES}

    def kept(self, split: str) -> list[Entry]:
        """Cases of a split that are part of the new dataset."""
        return [e for e in self.entries if e.split == split and e.status in ("accepted", "repaired")]

    def refused(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.status == "refused"]

    def write(self, folder: Path) -> None:
        """Write `conversion.json` and `conversion.md` into `folder`."""
        content = {
            "jdm_version": jdm_version(),
            "source": {key: printable(value) for key, value in self.source.items()},
            "counts": self.counts(),
            "published": {
                part: {"found": found, "published": number} for part, (found, number) in self.published.items()
            },
            "notes": [printable(note) for note in self.notes],
            "duplicates": self.duplicates,
            "entries": [
                {
                    "status": e.status, "split": e.split, "case": e.case_id,
                    "files": list(e.files), "notes": list(e.notes), **({"group": e.group} if e.group else {}),
                }
                for e in self.entries
            ],
        }  # fmt: skip
        write_json(folder / "conversion.json", content)
        write_text(folder / "conversion.md", self.markdown())

    def markdown(self) -> str:
        """The record as Markdown."""
        lines = ["# Conversion", "", *(f"- {key}: {printable(value)}" for key, value in self.source.items()), ""]
        lines += [f"- {count} {status}" for status, count in self.counts().items()]
        lines += [f"- {part}: {found} found, {number} published" for part, (found, number) in self.published.items()]
        groups = len({e.group for e in self.kept("train") if e.group})
        lines += [f"- {groups} groups in training"] if groups else []
        lines += ["", *map(printable, self.notes)] if self.notes else []
        if self.duplicates:
            lines += ["", f"## {len(self.duplicates)} duplicates", "", *(f"- {d}" for d in self.duplicates)]
        for status in ("refused", "repaired", "ignored"):
            chosen = [e for e in self.entries if e.status == status]
            if chosen:
                lines += ["", f"## {len(chosen)} {status}", "", "| split | case | files | notes |", "|---|---|---|---|"]
            for e in chosen:
                names = ", ".join(Path(f).name for f in e.files)
                cells = (e.split, e.case_id or "", names, "; ".join(e.notes))
                lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        return "\n".join(lines) + "\n"

"""Readers' decisions about the pairs of a dataset: `review/READER.jsonl`, one line per decision, never rewritten.

A line is on disk before the reader sees the next pair. An undo is a further line. A last line without its end, left by
a killed process, was never acknowledged: it is ignored on reading and cut off before the next line is written.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jdm.errors import ConfigError, DataError
from jdm.system.files import sync_to_disk

DECISIONS = ("accept", "reject", "fix")
ANSWERS = ("real", "synthetic")
"""Of a blind reading."""
UNDO = "undo"
FOLDER, VERSIONS = "review", "versions"
_MAX_COMMENT = 10_000


@dataclass(frozen=True)
class Entry:
    """One line of a reader's file."""

    case: str
    decision: str
    """One of `DECISIONS` or `ANSWERS`; "undo" takes back the reader's last standing line; empty: only a comment."""
    comment: str | None = None
    """None: unchanged."""
    seconds: float = 0.0
    """For how long the pair was looked at."""
    time: str = ""
    """UTC, as in ISO 8601."""
    label: str = ""
    """Name in `review/versions` of the label of a "fix"."""
    origin: str = ""
    """The dataset that a blind reading's image came from; empty: not blind."""

    @property
    def key(self) -> tuple[str, str]:
        """What the line is about: a case of a dataset."""
        return self.origin, self.case


@dataclass(frozen=True)
class Verdict:
    """What all readers together decided about a case."""

    decision: str
    """One of `DECISIONS`."""
    label: Path | None = None
    """The corrected label, if the decision is "fix"."""


class Log:
    """A reader's file, open for appending; the caller holds the reader's lock."""

    def __init__(self, path: Path) -> None:
        """Raises: DataError as `read_entries`."""
        self.path = path
        self.reload()

    def reload(self) -> None:
        """Read the file again. Raises: DataError as `read_entries`."""
        self.entries, self._end = _read(self.path)

    def append(self, entry: Entry) -> Entry:
        """Add a line and wait until it is on disk. Returns: it, with its time."""
        entry = replace(entry, time=entry.time or datetime.now(UTC).isoformat(timespec="milliseconds"))
        line = {key: value for key, value in asdict(entry).items() if value not in (None, "")}
        text = (json.dumps({"case": "", "decision": "", **line}, ensure_ascii=False) + "\n").encode()
        new = not self.path.exists()
        with self.path.open("wb" if new else "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_to_disk([self.path.parent])
        self._end += len(text)
        self.entries.append(entry)
        return entry


def check_reader(name: str) -> str:
    """A reader's name, safe as a file name. Raises: ConfigError if it is not."""
    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise ConfigError(
            f"reader {name!r}: expected at most 64 letters, digits, '_', '-' and '.'; give another name as --reader"
        )
    return name


def read_entries(path: Path) -> list[Entry]:
    """All complete lines of a reader's file; none if there is no file.

    Raises: DataError naming the file and line if one is not a decision.
    """
    return _read(path)[0]


def read_readers(dataset_folder: Path) -> dict[str, list[Entry]]:
    """The lines of every reader of a dataset, by name, sorted. Raises: DataError as `read_entries`."""
    return {path.stem: read_entries(path) for path in sorted((dataset_folder / FOLDER).glob("[!.]*.jsonl"))}


def last_words(entries: Iterable[Entry], *, blind: bool = False) -> dict[tuple[str, str], Entry]:
    """A reader's standing decision and comment about each case, by `Entry.key`.

    Args: blind: of the blind readings instead of the review; an undo only concerns lines of its own kind.
    """
    words: dict[tuple[str, str], Entry] = {}
    for entry in standing(entries, blind=blind):
        before = words.get(entry.key)
        if before is not None and entry.decision == "":
            entry = replace(before, comment=entry.comment)
        elif before is not None and entry.comment is None:
            entry = replace(entry, comment=before.comment)
        words[entry.key] = entry
    return words


def standing(entries: Iterable[Entry], *, blind: bool = False) -> list[Entry]:
    """The lines that no undo took back; the next undo takes back the last of them."""
    lines: list[Entry] = []
    for entry in entries:
        if bool(entry.origin) != blind:
            continue
        if entry.decision != UNDO:
            lines.append(entry)
        elif lines:
            lines.pop()
    return lines


def reviewed(dataset_folder: Path) -> dict[str, Verdict]:
    """What was decided about each case that at least one reader decided about, by case.

    A case is rejected if any reader's last word is "reject"; else fixed if any one's is "fix", with the label of the
    latest such decision; else accepted.
    Raises: DataError if a reader's file is damaged or a corrected label is missing.
    """
    words: dict[str, list[Entry]] = {}
    for entries in read_readers(dataset_folder).values():
        for entry in last_words(entries).values():
            if entry.decision:
                words.setdefault(entry.case, []).append(entry)
    return {case: _together(dataset_folder, words[case]) for case in sorted(words)}


def _together(dataset_folder: Path, words: list[Entry]) -> Verdict:
    if any(word.decision == "reject" for word in words):
        return Verdict("reject")
    fixes = [word for word in words if word.decision == "fix"]
    if not fixes:
        return Verdict("accept")
    label = dataset_folder / FOLDER / VERSIONS / max(fixes, key=lambda word: word.time).label
    if not label.is_file():
        raise DataError(f"{label}: no such file; expected the corrected label of a fix; restore it or fix again")
    return Verdict("fix", label)


def _read(path: Path) -> tuple[list[Entry], int]:
    """The complete lines, and where they end in bytes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    end = content.rfind(b"\n") + 1
    lines = content[:end].split(b"\n")[:-1]
    return [_parsed(path, number, line) for number, line in enumerate(lines, 1)], end


def _parsed(path: Path, number: int, line: bytes) -> Entry:
    try:
        entry = Entry(**json.loads(line.decode()))
    except (ValueError, TypeError, RecursionError):
        entry = None
    if entry is None or _wrong(entry):
        raise DataError(
            f"{path}: line {number} is {line[:80]!r}; expected a decision written by jdm-review; restore the file or "
            "remove that line"
        )
    return entry


def _wrong(entry: Entry) -> str:
    """What is wrong with an entry's values; empty if nothing is."""
    values: dict[str, Any] = {field.name: getattr(entry, field.name) for field in fields(Entry)}
    texts = {name: value for name, value in values.items() if name not in ("seconds", "comment")}
    if not all(isinstance(value, str) for value in texts.values()) or not isinstance(entry.comment, str | None):
        return "a value that is not text"
    if entry.decision not in (*(ANSWERS if entry.origin else DECISIONS), UNDO, ""):
        return f"the decision {entry.decision!r}"
    if isinstance(entry.seconds, bool) or not isinstance(entry.seconds, int | float):
        return f"{entry.seconds!r} seconds"
    if not (math.isfinite(entry.seconds) and entry.seconds >= 0):
        return f"{entry.seconds} seconds"
    if entry.comment is not None and len(entry.comment) > _MAX_COMMENT:
        return f"a comment of {len(entry.comment)} characters"
    if "/" in entry.label or "\\" in entry.label or (entry.decision == "fix") != bool(entry.label):
        return f"the label {entry.label!r}"
    return ""


def checked(entry: Entry) -> Entry:
    """The entry. Raises: DataError if it could not be read again."""
    if wrong := _wrong(entry):
        raise DataError(f"{entry.case}: {wrong}; expected a decision with its comment and time; decide again")
    return entry

"""Which preprocessed cases are current: a record of the files that jdm made each of them from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Records:
    """What the cases of one folder of preprocessed cases were made from.

    A line of JSON per case, beside the folder since nnU-Net tells the kind of a dataset by the file endings in it. The
    last line of a case counts; one that a kill has torn is left out, so that its case is judged without a record.
    """

    def __init__(self, folder: Path):
        self.file = folder.with_name(f"{folder.name}.jdm.jsonl")
        self._found: dict[str, Any] = {}
        lines = self.file.read_bytes().split(b"\n") if self.file.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._found[entry["case"]] = entry
            except (ValueError, KeyError, TypeError, RecursionError):
                continue

    def is_current(self, case_id: str, results: Sequence[Path], sources: Sequence[Path], export: str | None) -> bool:
        """Whether a case was preprocessed from exactly these files.

        Sizes and times of jdm's own cases must be equal: files put in place later may be older than what was made from
        their predecessors. Cases of stock nnU-Net have no record and count unless they are older than a source.

        Args:
            results: files of the preprocessed case, the one that nnU-Net writes last first.
            sources: images, label, plans.
            export: `export_digest` of a synthetic set, whose cases do not count without a record; None: a real set.
        """
        if not all(file.is_file() for file in results):
            return False
        entry = self._found.get(case_id, {})
        if entry.get("results") == stamps(results):
            return entry.get("sources") == stamps(sources) and entry.get("export") == export
        newest = max(source.stat().st_mtime_ns for source in sources)
        return export is None and results[0].stat().st_mtime_ns >= newest

    def add(self, case_id: str, results: Sequence[Path], sources: Sequence[list[int]], export: str | None) -> None:
        """Record a case once it is written; `sources`: `stamps` of them from before it was read."""
        entry = {"case": case_id, "results": stamps(results), "sources": list(sources), "export": export}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(entry)}")  # the line feed first: a torn line spoils itself only


def stamps(files: Sequence[Path]) -> list[list[int]]:
    """Size in bytes and time of the last change in nanoseconds, of each file."""
    return [[found.st_size, found.st_mtime_ns] for found in (file.stat() for file in files)]


def export_digest(folder: Path) -> str:
    """SHA-256 of what jdm-export writes about all pairs of a synthetic raw dataset."""
    digest = hashlib.sha256()
    for name in ("provenance.json", "manifest.jsonl"):
        file = folder / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()

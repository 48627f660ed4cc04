"""Tracks which preprocessed cases are up to date, by a record of each case's source files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Records:
    """Records of the source files of the cases in one folder of preprocessed cases.

    They are one JSON line per case, in a file beside the folder, because nnU-Net infers the kind of a dataset from the
    file endings inside. The last line of a case counts. An incomplete line of a killed process is ignored, so that its
    case has no record.
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

        For cases preprocessed by jdm, sizes and times of the sources must equal the record, because a replaced source
        may be older than the case made from its predecessor. Cases of stock nnU-Net have no record; they are up to
        date unless they are older than a source.

        Args:
            results: files of the preprocessed case, first the one that nnU-Net writes last.
            sources: images, label, plans.
            export: `export_digest` of a synthetic set, whose cases need a record; None for a real set.
        """
        if not all(file.is_file() for file in results):
            return False
        entry = self._found.get(case_id, {})
        if entry.get("results") == stamps(results):
            return entry.get("sources") == stamps(sources) and entry.get("export") == export
        newest = max(source.stat().st_mtime_ns for source in sources)
        return export is None and results[0].stat().st_mtime_ns >= newest

    def add(self, case_id: str, results: Sequence[Path], sources: Sequence[list[int]], export: str | None) -> None:
        """Record a case after it is written; `sources` are the `stamps` taken before its sources were read."""
        entry = {"case": case_id, "results": stamps(results), "sources": list(sources), "export": export}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(entry)}")  # line feed first, so that an incomplete line affects only itself


def stamps(files: Sequence[Path]) -> list[list[int]]:
    """Size in bytes and modification time in nanoseconds of each file."""
    return [[found.st_size, found.st_mtime_ns] for found in (file.stat() for file in files)]


def export_digest(folder: Path) -> str:
    """SHA-256 of the files in which jdm-export describes the pairs of a synthetic raw dataset."""
    digest = hashlib.sha256()
    for name in ("provenance.json", "manifest.jsonl"):
        file = folder / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()

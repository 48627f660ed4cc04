"""Atomic file writing, and strict JSON."""

from __future__ import annotations

import contextlib
import glob
import json
import numbers
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replaced(path: Path, *, keep: Path | None = None, sync: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` for the block to write, renamed to `path` when the block succeeds.

    A crash at any moment leaves `path` unchanged. The temporary file has the same ending, because many writers choose
    their format by it. Temporary files of killed writers of `path` are removed.

    Args:
        keep: where to move the replaced file; None: discard it.
        sync: wait until the content is on disk.
    """
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    _remove_stale(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers make files private to their user
        if sync:
            sync_to_disk([temporary])
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, complete or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON (see `strict`), complete or not at all; creates the folder if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(strict(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def strict(value: Any) -> Any:
    """Plain values for `json.dumps(..., allow_nan=False)`: non-finite numbers become None."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value) if abs(float(value)) < float("inf") else None
    return value


def sync_to_disk(paths: Iterable[Path]) -> None:
    """Wait until files, or the directory entries of folders, are on disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_stale(path: Path) -> None:
    for temporary in path.parent.glob(f".partial-*-{glob.escape(path.name)}"):
        try:
            os.kill(int(temporary.name.split("-")[1]), 0)
        except ProcessLookupError:
            temporary.unlink(missing_ok=True)
        except (PermissionError, ValueError):
            continue  # another user's running process, or not one of our names

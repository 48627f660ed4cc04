"""The one way to write a file: complete or not at all; and JSON that every reader takes."""

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
    """A temporary file beside `path` for the block to write, put in its place when the block succeeds.

    A crash at any moment leaves `path` as it was. The temporary file has the same ending, by which many writers choose
    their format. What killed writers of `path` left behind is removed.

    Args:
        keep: where the file that is replaced goes; None: nowhere.
        sync: wait until the content is on the disk.
    """
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    _remove_stale(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers keep their files to their user
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
    """Write strict JSON (see `strict`), complete or not at all, in a folder that is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(strict(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def strict(value: Any) -> Any:
    """Plain values that `json.dumps(..., allow_nan=False)` takes: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value) if abs(float(value)) < float("inf") else None
    return value


def sync_to_disk(paths: Iterable[Path]) -> None:
    """Wait until files, or the names in folders, are on the disk."""
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
            continue  # another user's process, which is running; or no name of ours

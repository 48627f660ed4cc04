"""Locks between processes. A lock is released when its process ends in any way; its file remains."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from jdm.errors import ExistsError


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; yields False if another process holds it and `wait` is off."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def held(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file while writing in `folder`.

    Raises: ExistsError naming the process that holds it.
    """
    holder = path.with_suffix(".holder")
    with locked(path, wait=False) as free:
        if not free:
            found = ""
            with contextlib.suppress(OSError):  # the holder may not have written its id yet, or may be exiting
                found = holder.read_text(encoding="utf-8")
            raise ExistsError(
                f"{folder} is being written by process {found or 'unknown'}; expected no other; wait for it, or end it"
            )
        holder.write_text(str(os.getpid()), encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether another process holds a lock file."""
    with locked(path, wait=False) as free:
        return not free

"""Lock files of exports and of training runs; a lock goes with its process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jdm.errors import ExistsError


@contextlib.contextmanager
def locked(path: Path, kind: int) -> Iterator[bool]:
    """Hold a lock file, named after the folder that it guards.

    Yields False where another has it and `kind` does not wait. The last to leave removes it if the folder is gone.
    """
    file = _lock(path, kind)
    try:
        yield file is not None
    finally:
        if file is not None:
            with file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file_at(path, file) and not path.with_suffix("").exists():
                    path.unlink()


def _lock(path: Path, kind: int) -> TextIO | None:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            file.close()
            return None
        if _is_file_at(path, file):
            return file
        file.close()  # removed by its last holder while we waited


def _is_file_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def held(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file for what is written in `folder`, and remove it at the end.

    Raises: ExistsError naming the process that holds it.
    """
    file = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if file is None:
        holder = path.read_text(encoding="utf-8") if path.exists() else ""
        raise ExistsError(
            f"{folder} is being written by process {holder or 'unknown'}; expected no other; wait for it, or end it"
        )
    with file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

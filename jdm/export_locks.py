"""Lock files of an export; a lock goes with its process, however it ends."""

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
def held(path: Path) -> Iterator[None]:
    """Hold a shard's lock file.

    Raises: ExistsError naming the process that holds it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ExistsError(
                f"{path.parent} is being written by process {file.read().strip()}; expected no other; wait for it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield

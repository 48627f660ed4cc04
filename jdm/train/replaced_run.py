"""A run that `jdm-train --overwrite` replaces: set aside until the new one has passed its first checkpoint."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from jdm.train.checkpoint import WEIGHTS, resume_paths, set_aside


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Make room for a new run in `folder`; the one that is there comes back if the new one ends too early."""
    if folder.exists():
        folder.rename(set_aside(folder))
    try:
        yield
    finally:
        settle(folder)


def settle(folder: Path) -> bool:
    """Remove the run that was set aside if the new one has passed its first checkpoint, else put it back.

    Whatever process was killed in between, calling it again completes it.
    Returns: whether the earlier run was put back, which is printed too.
    """
    aside = set_aside(folder)
    if not aside.exists():
        return False
    if _is_under_way(folder):
        _remove(aside)
        return False
    if folder.exists():
        _remove(folder)
    aside.rename(folder)
    print(
        f"jdm-train: note: {folder} is the earlier run again; the one that was to replace it ended "
        "before its first checkpoint",
        file=sys.stderr,
    )
    return True


def _is_under_way(folder: Path) -> bool:
    """Whether a run has passed a checkpoint: the one state of a run that was stopped at once does not count."""
    state, before = resume_paths(folder)
    return before.is_file() or (state.is_file() and (folder / WEIGHTS).is_file())


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # to a larger disk; what it leads to is not ours to remove
        folder.unlink()
    else:
        shutil.rmtree(folder)

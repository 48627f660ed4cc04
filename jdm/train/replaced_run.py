"""Sets aside a run that `jdm-train --overwrite` replaces until the new one has written its first checkpoint."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from jdm.train.checkpoint import WEIGHTS, resume_paths, set_aside


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Make room for a new run in `folder`; restore the earlier run if the new one ends before its first checkpoint."""
    if folder.exists():
        folder.rename(set_aside(folder))
    try:
        yield
    finally:
        settle(folder)


def settle(folder: Path) -> bool:
    """Remove the earlier run if the new one has written its first checkpoint, else restore it.

    If it is killed, calling it again completes the work.
    Returns: whether the earlier run was restored; this is also printed.
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
        f"jdm-train: note: the earlier run in {folder} was restored, because the run that should replace it ended "
        "before its first checkpoint",
        file=sys.stderr,
    )
    return True


def _is_under_way(folder: Path) -> bool:
    """Whether a run has written a regular checkpoint; the state saved by a run stopped at once does not count."""
    state, before = resume_paths(folder)
    return before.is_file() or (state.is_file() and (folder / WEIGHTS).is_file())


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # perhaps to a larger disk; its target must not be removed
        folder.unlink()
    else:
        shutil.rmtree(folder)

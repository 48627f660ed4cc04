"""The new dataset: hidden until complete, and never replacing another one by accident."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset_conversion.ledger import Ledger
from jdm.data.raw_dataset import dataset_name, nnunet_folder, used_ids
from jdm.data.splits import FOLDS
from jdm.errors import DataError, ExistsError


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion."""

    folder: Path
    training: int
    test: int
    counts: dict[str, int]
    """Entries of the ledger by status."""
    fold: str
    """The first fold to train."""
    warnings: tuple[str, ...] = ()
    """Warnings for the user, one line each."""
    report: str = ""
    """Content of conversion.md."""
    problem: str | None = None
    """For a check: why the conversion would stop."""


@contextlib.contextmanager
def new_dataset(id: int, name: str, overwrite: bool, check: bool = False) -> Iterator[tuple[Path | None, Path]]:
    """A hidden folder to fill, and the final folder under $nnUNet_raw to which it is renamed on success.

    If the block raises, the hidden folder is removed and nothing else has changed. With `check` there is no hidden
    folder, but the target is still checked.
    Raises: ExistsError if the id or the target is in use; ConfigError for an unusable id, name or $nnUNet_raw.
    """
    final = nnunet_folder("nnUNet_raw") / dataset_name(id, name)
    _check_free(id, final, overwrite)
    if check:
        yield None, final
        return
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial, final
        old = final.with_name(f".{final.name}.replaced-{os.getpid()}")
        if final.exists():
            _check_free(id, final, overwrite)
            final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_free(id: int, final: Path, overwrite: bool) -> None:
    used = used_ids()
    others = [folder for folder in used.get(id, []) if folder.name != final.name]
    if others:
        free = next((i for i in range(1, 1000) if i not in used), None)
        raise ExistsError(
            f"dataset id {id} is used by {', '.join(str(f) for f in others)}; nnU-Net allows one name for each id; "
            f"choose a free id, such as --id {free}"
        )
    if final.exists() and not overwrite:
        raise ExistsError(f"{final} already exists; expected a new dataset; choose another --id or add --overwrite")
    if final.exists() and not (final / "conversion.json").is_file():
        raise ExistsError(
            f"{final} was not made by jdm-convert (it has no conversion.json), so --overwrite does not replace it; "
            "choose another --id, or remove the folder yourself"
        )


def _stale_results(final: Path) -> list[str]:
    """Warnings about nnU-Net data derived from an earlier dataset of this name."""
    stale = [str(f) for folders in used_ids().values() for f in folders if f.name == final.name and f != final]
    if not stale:
        return []
    return [f"made from an earlier dataset of this name; remove or remake before training: {', '.join(stale)}"]


def finish(
    target: tuple[Path | None, Path], ledger: Ledger, strict: bool, foreground: int | None, folds: int | None
) -> Conversion:
    """Check the whole conversion, write its ledger, and return the result.

    Args:
        target: from `new_dataset`; a check writes nothing, and returns the problem instead of raising it.
        foreground: number of training cases with a non-empty label; None for images with a class and no mask.
        folds: number of folds by group; None if nnU-Net's own split is used.
    Raises: DataError if no case is left or all labels are empty; with `strict`, also for refused or duplicate cases.
    """
    partial, final = target
    reasons = [note for entry in ledger.refused() for note in entry.notes]
    training, test = len(ledger.kept("train")), len(ledger.kept("test"))
    problem = _verdict(ledger, reasons, strict, foreground)
    if partial is not None:
        if problem:
            raise DataError(problem)
        ledger.write(partial)
    warnings = [*ledger.notes, *_stale_results(final)]  # notes on the whole dataset come first
    if foreground is not None and foreground < training:
        warnings.append(f"{training - foreground} of {training} training labels are empty (background only)")
    warnings += [f"left out: {reason}" for reason in reasons]
    warnings += [f"duplicate: {line}" for line in ledger.duplicates]
    by_case = folds is None and training >= FOLDS
    return Conversion(
        final, training, test, ledger.counts(), "0" if folds or by_case else "all", tuple(warnings), ledger.markdown(),
        problem,
    )  # fmt: skip


def _verdict(ledger: Ledger, reasons: list[str], strict: bool, foreground: int | None) -> str | None:
    """Why the dataset cannot be created; None if it can."""
    training, refused = len(ledger.kept("train")), len(ledger.refused())
    first = f"all {refused} were refused; the first: {reasons[0]}" if reasons else "the source has none"
    if foreground is None and not training + len(ledger.kept("test")):
        return f"no image is left, {first}"
    if foreground is not None and not training:
        return f"no training case is left, {first}"
    if foreground == 0:
        first = ledger.kept("train")[0]
        why = f"; of {first.files[0]}: {'; '.join(first.notes)}" if first.notes else ""
        return (
            f"the labels of all {training} training cases are empty (background only); expected some foreground; look "
            f"at the masks{why}"
        )
    if strict and (refused or ledger.duplicates):
        return (
            f"--strict: {refused} cases cannot be used and {len(ledger.duplicates)} images occur twice: "
            f"{' | '.join([*reasons, *ledger.duplicates])}; correct these files, or leave --strict out"
        )
    return None

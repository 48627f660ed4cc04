"""Training and validation cases of a fold, as in nnU-Net, and the check against leakage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jdm.data.groups import read_groups
from jdm.data.raw_dataset import RawDataset
from jdm.data.raw_layout import environment_folder, few
from jdm.errors import ConfigError, DataError

SPLIT_SEED = 12345
FOLDS = 5


def fold_split(dataset: RawDataset, fold: int | str) -> tuple[list[str], list[str]]:
    """Training and validation ids of `fold`, as nnU-Net would use them.

    They come from `splits_final.json` in the preprocessed folder, else in the raw folder (which nnU-Net copies), else
    from nnU-Net's own seeded five-fold split of all sorted case ids. "all" gives every case and no validation case.
    A fold that is not in the file is refused: nnU-Net would draw a random 80:20 split for it, so that a typing error
    would mix training cases with validation cases of other folds.

    Raises: ConfigError for an unknown fold; DataError if a split file is unreadable, names unknown cases or has a
        case on both sides, or if there are too few cases.
    Source: nnunetv2 2.8.1, nnUNetTrainer.do_split and utilities/crossval_split.py.
    """
    ids = sorted(dataset.cases)
    if fold == "all":
        return ids, []
    number = _fold_number(fold)
    path = splits_file(dataset)
    if path is None:
        if number >= FOLDS:
            raise ConfigError(f"fold {fold}: expected 0 to {FOLDS - 1} or 'all'; choose one of them")
        return _seeded(dataset, ids, number)
    splits = _read_splits(path)
    if number >= len(splits):
        folds = f"folds 0 to {len(splits) - 1} and 'all'" if splits else "'all' only"
        raise ConfigError(f"fold {fold}: expected a fold in {path}, {folds}; choose one, or add it to the file")
    training, validation = splits[number]
    _check_split(path, number, training, validation, set(ids))
    return training, validation


def train_fraction(dataset: RawDataset, training: Sequence[str], fraction: float) -> list[str]:
    """The training cases that --train-fraction keeps, in their order: at least that share, of whole groups if known.

    Groups (such as patients) are taken in one seeded order, so that a smaller fraction is part of a larger one.
    Raises: ConfigError for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"--train-fraction is {fraction:g}; expected above 0 and at most 1; correct it")
    group_of = read_groups(dataset)
    groups = sorted({group_of[case] for case in training})
    kept: set[str] = set()
    for index in np.random.default_rng(SPLIT_SEED).permutation(len(groups)):
        if sum(group_of[case] in kept for case in training) >= fraction * len(training) - 1e-9:
            break
        kept.add(groups[index])
    return [case for case in training if group_of[case] in kept]


def check_fold_safety(generator_ids: Iterable[str], evaluated_ids: Iterable[str], what: str) -> None:
    """Refuse synthetic cases whose generator was trained on an evaluation case.

    Args:
        generator_ids: every case that the generator was trained on.
        evaluated_ids: validation or test cases.
        what: name of the evaluation for the message, such as "fold 0 of Dataset011_MoNuSeg".
    Raises: DataError naming the cases on both sides, or if `generator_ids` is empty (provenance unknown).
    """
    generator = set(generator_ids)
    if not generator:
        raise DataError(
            f"{what}: the generator's training cases are unknown (empty list); expected all their ids; export again "
            "with jdm-export"
        )
    both = sorted(generator & set(evaluated_ids))
    if both:
        raise DataError(
            f"{what}: the generator was trained on {len(both)} of the cases to be evaluated ({few(both, 10)}); "
            "expected none; train a generator for this fold with jdm-train and export from it"
        )


def _fold_number(fold: int | str) -> int:
    """The number of a fold; refuses spellings such as "00" that do not match its folder's name."""
    text = str(fold)
    if not re.fullmatch("0|[1-9][0-9]{0,5}", text):
        meant = "all" if text.strip().lower() == "all" else text.strip().lstrip("+0") or "0"
        hint = f"type {meant}" if re.fullmatch("all|0|[1-9][0-9]{0,5}", meant) else "choose one of them"
        raise ConfigError(f"fold {fold!r}: expected 0 to {FOLDS - 1} or all; {hint}")
    return int(text)


def splits_file(dataset: RawDataset) -> Path | None:
    """The file that defines the folds, the preprocessed one first; None if nnU-Net's own seeded split does."""
    preprocessed = environment_folder("nnUNet_preprocessed")
    folders = [preprocessed / dataset.name] if preprocessed else []
    for folder in [*folders, dataset.folder]:
        if (folder / "splits_final.json").is_file():
            return folder / "splits_final.json"
    return None


def _read_splits(path: Path) -> list[tuple[list[str], list[str]]]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        return [([str(i) for i in split["train"]], [str(i) for i in split["val"]]) for split in splits]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be used ({type(error).__name__}: {error}); expected a list of "
            '{"train": [ids], "val": [ids]}; correct or remove it'
        ) from None


def fold_count(dataset: RawDataset) -> int:
    """Number of folds: of the split file, or nnU-Net's default. Raises: DataError as `fold_split`."""
    path = splits_file(dataset)
    return FOLDS if path is None else len(_read_splits(path))


def _check_split(path: Path, fold: int, training: list[str], validation: list[str], known: set[str]) -> None:
    unknown = sorted((set(training) | set(validation)) - known)
    if unknown:
        raise DataError(
            f"{path}: fold {fold} names {len(unknown)} cases that are not in the dataset ({few(unknown, 10)}); "
            "expected training cases only; correct or remove the file"
        )
    both = sorted(set(training) & set(validation))
    if both:
        raise DataError(
            f"{path}: fold {fold} has {len(both)} cases on both sides ({few(both, 10)}); expected each once; correct it"
        )
    if not training:
        raise DataError(f"{path}: fold {fold} has no training cases; expected at least one; correct the file")


def _seeded(dataset: RawDataset, ids: list[str], fold: int) -> tuple[list[str], list[str]]:
    from sklearn.model_selection import KFold

    if len(ids) < FOLDS:
        raise DataError(
            f"{dataset.name}: has {len(ids)} training cases; expected at least {FOLDS} for fold {fold}; use fold "
            "'all', or write a splits_final.json into the dataset folder"
        )
    folds = KFold(n_splits=FOLDS, shuffle=True, random_state=SPLIT_SEED).split(ids)
    training, validation = list(folds)[fold]
    return [ids[i] for i in training], [ids[i] for i in validation]

"""Folds in which all cases of a group (patient, sequence) lie on one side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from jdm.data.splits import FOLDS

SPLITS_FILE = "splits_final.json"


def group_folds(groups: Mapping[str, str | None]) -> list[dict[str, list[str]]]:
    """nnU-Net's list of {"train": ids, "val": ids}: every case validates once, no group is on both sides of a fold.

    Groups go to the fold with the fewest cases so far, the largest group first, so folds are of about equal size.

    Args:
        groups: group by training case; a case without one is a group by itself.
    Returns: as many folds as nnU-Net has, or as there are groups; none for fewer than two groups.
    """
    members: dict[str, list[str]] = {}
    for case in sorted(groups):
        members.setdefault(f"group {groups[case]}" if groups[case] else f"case {case}", []).append(case)
    count = min(FOLDS, len(members))
    if count < 2:
        return []
    validation: list[list[str]] = [[] for _ in range(count)]
    for _, cases in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        min(validation, key=len).extend(cases)
    return [{"train": sorted(set(groups) - set(cases)), "val": sorted(cases)} for cases in validation]


def write_group_splits(folder: Path | None, groups: Mapping[str, str | None]) -> list[str]:
    """Write `splits_final.json` where a group has several cases; notes on what was done.

    It lies in the raw dataset: jdm reads it there, and nnU-Net's planning copies it to the preprocessed one.

    Args:
        folder: None writes nothing.
    """
    sizes = Counter(group for group in groups.values() if group)
    if max(sizes.values(), default=0) < 2:
        return []
    folds = group_folds(groups)
    if not folds:
        return [f"all {len(groups)} training cases are of one group, so there is no split by group; use fold 'all'"]
    if folder is not None:
        (folder / SPLITS_FILE).write_text(json.dumps(folds, indent=1) + "\n", encoding="utf-8")
    notes = [f"{SPLITS_FILE}: {len(folds)} folds that keep {len(sizes)} groups together"]
    if len(folds) < FOLDS:
        notes.append(f"there are folds 0 to {len(folds) - 1} only; nnU-Net splits any other fold without the groups")
    return notes

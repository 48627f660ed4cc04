"""Groups of cases (of one patient, video or slide), and folds that keep each group on one side."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from jdm.data.raw_layout import few
from jdm.data.splits import FOLDS
from jdm.data.tables import case_column
from jdm.errors import ConfigError, DataError
from jdm.system.files import write_json

SPLITS_FILE = "splits_final.json"
_NAMES = (r"(.+)_[xyrXYR]\d+_[xycXYC]\d+", r"(.+)_\d+", r"(.+)_[A-Za-z]+_?\d+")
PATTERNS = (
    *(name.replace("_", mark) for mark in ("_", "-", r"\.", " ") for name in _NAMES),
    r"(.+\d)[A-Za-z]", r"(.+)[-_. ][A-Za-z]+", r"(.+?) ?\(\d+\)", r"(.+?)[-_. ].+",
)  # fmt: skip
"""Common patterns of names made of a patient and an image number, place, side or part; tried in this order."""


def given_groups(
    groups: str, stems: Mapping[str, str], files: Mapping[str, str], needed: Iterable[str]
) -> dict[str, str]:
    """Group by case according to `--groups`; cases without a group are left out.

    Args:
        groups: name of a CSV file that lists cases, stems or file names; or a regular expression for the stems.
        stems, files: by case.
        needed: cases that must have a group, the training cases.
    Raises: ConfigError for an invalid regular expression; DataError for an unusable file, or if a needed case has no
        group.
    """
    if groups.lower().endswith(".csv") or Path(groups).is_file():
        rows = _table(Path(groups), {*stems, *stems.values(), *files.values()})
        called = {case: (case, stem, normalize("NFC", files[case])) for case, stem in stems.items()}
        found = {case: next((rows[n] for n in names if n in rows), None) for case, names in called.items()}
        fix = f"expected a line for each in {groups}; add them, with an empty group if it is unknown"
    else:
        found = _from_pattern(groups, stems)
        fix = f"expected {shlex.quote(groups)} to match each whole name; correct it, or give a CSV file (case,group)"
    if lacking := sorted(stems[case] for case in needed if found[case] is None):
        raise DataError(f"--groups: {len(lacking)} training cases have no group ({few(lacking, 5)}); {fix}")
    return {case: group for case, group in found.items() if group}


def _table(path: Path, known: Collection[str]) -> dict[str, str]:
    """Group by name, for known cases and any others in the table."""
    found: dict[str, str] = {}
    for number, name, group in case_column(path, "group", known):
        if found.setdefault(normalize("NFC", name), group) != group:
            raise DataError(f"{path}: line {number} gives {name} a second group; expected one; remove one")
    return found


def _from_pattern(pattern: str, stems: Mapping[str, str]) -> dict[str, str | None]:
    shown = f"--groups {shlex.quote(pattern)}"
    example = "expected a regular expression whose first group is the patient, such as '(.+)_\\d+', or a CSV file"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{shown}: {error}; {example}") from None
    if not expression.groups:
        raise ConfigError(f"{shown}: has no group in parentheses; {example}")
    matches = {case: expression.fullmatch(stem) for case, stem in stems.items()}
    return {case: (match[1] or None) if match else None for case, match in matches.items()}


def likely_pattern(names: Sequence[str]) -> str | None:
    """A pattern for `--groups` that groups some but not all names, as patients would.

    None if there is none, or if an earlier pattern puts all names in one group: img_1, img_2, ... are images.
    """
    for pattern in PATTERNS:
        matches = [re.fullmatch(pattern, name) for name in names]
        groups = {match[1] for match in matches if match}
        if all(matches) and len(groups) < len(names):
            return pattern if len(groups) > 1 else None
    return None


def group_folds(groups: Mapping[str, str | None]) -> list[dict[str, list[str]]]:
    """nnU-Net's list of {"train": ids, "val": ids}, in which every case validates once and no group is split.

    Groups are assigned largest first, each to the fold with the fewest cases so far, so that folds have similar sizes.

    Args:
        groups: group by training case; a case without one is its own group.
    Returns: five folds as in nnU-Net, or one per group if there are fewer than five; none for a single group.
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


def write_group_splits(folder: Path | None, groups: Mapping[str, str | None]) -> tuple[int | None, list[str]]:
    """Write `splits_final.json` if a group has several cases.

    It is written to the raw dataset, where jdm reads it and from where nnU-Net's planning copies it.

    Args:
        folder: None writes nothing.
    Returns: number of folds (None if nnU-Net's own split is used), and notes on what was done.
    """
    sizes = Counter(group for group in groups.values() if group)
    if max(sizes.values(), default=0) < 2:
        return None, []
    folds = group_folds(groups)
    if not folds:
        return 0, [f"all {len(groups)} training cases are of one group and cannot be split by group; use fold 'all'"]
    if folder is not None:
        write_json(folder / SPLITS_FILE, folds)
    notes = [f"{SPLITS_FILE}: {len(folds)} folds that keep {len(sizes)} groups together"]
    if len(folds) < FOLDS:
        notes.append(f"there are folds 0 to {len(folds) - 1} only; nnU-Net splits any other fold without the groups")
    return len(folds), notes

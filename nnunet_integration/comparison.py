"""The numbers of an experiment, with all arms over the same cells. A cell is one class of one image.

Dice and IoU are means over the cells whose reference has the class, for which every arm and seed has a score. Cells
whose reference lacks the class are scored separately, by their false positives. Their Dice is 0 or undefined, so it
would measure how often a class is absent or falsely predicted, not how well it is segmented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jdm.errors import DataError
from jdm.evaluation.statistics import detectable, holm, mean_interval, paired_difference
from jdm.system.files import strict
from nnunet_integration.arms import ArmName, Resolved
from nnunet_integration.verdict import NOT_LEARNED, answers, outcomes, verdict

RIVALS: tuple[ArmName, ...] = ("real-cutmix", "ensemble-2", "ensemble-jdm")
COMPARISONS: tuple[tuple[ArmName, ArmName], ...] = (
    ("pretrain-finetune", "real-long"),
    ("mix", "real-long"),
    ("pretrain-finetune", "real"),
    ("mix", "real"),
    ("synthetic", "real"),
    ("real-long", "real"),
    *((rival, control) for rival in RIVALS for control in ("real-long", "real")),
    *((arm, rival) for rival in RIVALS for arm in ("pretrain-finetune", "mix")),
)
Scores = Mapping[ArmName, Mapping[Any, Mapping[str, Any]]]
"""`Evaluation.to_dict()` by arm and seed, or by fold and seed."""


@dataclass(frozen=True)
class Cells:
    """Scores of all arms over the same cells, sorted by image and class."""

    images: tuple[str, ...]
    """Image of each cell."""
    labels: tuple[str, ...]
    """Class of each cell."""
    classes: tuple[str, ...]
    """All classes, in the dataset's order."""
    units: tuple[str, ...]
    """Resampling unit of each cell: its group, or its image."""
    present: np.ndarray
    """(cells,), bool: the reference has the class."""
    scores: dict[ArmName, dict[str, np.ndarray]]
    """Float (seeds, cells) by arm and by "dice", "iou", "false_positive" (0 or 1) and "volume" (predicted)."""

    def mean(self, arm: ArmName, metric: str, where: np.ndarray) -> dict[str, Any] | None:
        """Mean and interval over the cells `where`, (cells,) bool; None if there are none."""
        if not where.any():
            return None
        found = mean_interval(self.scores[arm][metric][:, where], groups=self._units(where))
        return {**asdict(found), "low": max(found.low, 0.0), "high": min(found.high, 1.0), "cells": int(where.sum())}

    def difference(self, arms: tuple[ArmName, ArmName], metric: str, where: np.ndarray, tests: int) -> Any:
        """Mean and interval of one arm minus another over the cells `where`, and the smallest detectable difference.

        Args:
            tests: number of differences tested in the experiment.
        Returns: a dictionary with the adjusted p not yet set; None if there are no such cells.
        """
        if not where.any():
            return None
        ours, theirs = (self.scores[arm][metric][:, where] for arm in arms)
        found = paired_difference(ours, theirs, groups=self._units(where))
        seen = detectable(found, max(tests, 1))
        limits = {"low": max(found.low, -1.0), "high": min(found.high, 1.0)}
        return {**asdict(found), **limits, "p_holm": None, "detectable": seen, "cells": int(where.sum())}

    def _units(self, where: np.ndarray) -> list[str]:
        return [unit for unit, wanted in zip(self.units, where, strict=True) if wanted]


def read_cells(scores: Scores, group_of: Mapping[str, str]) -> Cells:
    """Arrange the scores of all arms and seeds in one order.

    Args:
        group_of: group (such as the patient) of each image. If all images are of one group, each image is a unit.
    Raises: DataError if seeds, images, classes or references of an arm differ from those of the first.
    """
    rows: dict[tuple[ArmName, int], dict[tuple[str, str], Any]] = {
        (arm, seed): {(case["case_id"], case["label"]): case for case in evaluation["cases"]}
        for arm, seeds in scores.items()
        for seed, evaluation in seeds.items()
    }
    first, cells = next(iter(rows.items()))
    keys, seeds = sorted(cells), list(scores[first[0]])
    expected = {key: cells[key]["n_ref"] for key in keys}
    for (arm, seed), found in rows.items():
        if set(scores[arm]) != set(seeds) or {key: case["n_ref"] for key, case in found.items()} != expected:
            raise DataError(
                f"scores/{arm}_seed_{seed}.json differs in seeds, images, classes or references from "
                f"scores/{first[0]}_seed_{first[1]}.json; expected the same for all arms; remove both files and the "
                "folder predictions, and repeat the command"
            )

    def table(arm: ArmName, value: Any) -> np.ndarray:
        return np.array([[value(rows[arm, seed][key]) for key in keys] for seed in seeds], float)

    tables: dict[ArmName, dict[str, np.ndarray]] = {
        arm: {
            "dice": table(arm, lambda case: np.nan if case["dice"] is None else case["dice"]),
            "iou": table(arm, lambda case: np.nan if case["iou"] is None else case["iou"]),
            "false_positive": table(arm, lambda case: case["n_pred"] > 0),
            "volume": table(arm, lambda case: case["n_pred"] * case["voxel_size"]),
        }
        for arm in scores
    }
    images, labels = zip(*keys, strict=True)
    groups = [group_of[image] for image in images]
    units = groups if len(set(groups)) > 1 else images
    classes = tuple(found["label"] for found in scores[first[0]][first[1]]["classes"])
    return Cells(images, labels, classes, tuple(units), np.array([expected[key] > 0 for key in keys]), tables)


@dataclass(frozen=True)
class Entry:
    """One comparison of all arms, over the same cases."""

    arms: Mapping[ArmName, dict[str, Any]]
    """Updates and padding of each arm."""
    scores: Scores
    group_of: Mapping[str, str]
    """As for `read_cells`."""


def summarise(settings: Resolved, entry: Entry) -> dict[str, Any]:
    """The numbers of one comparison, the verdict first. Raises: DataError as `read_cells`."""
    return summarise_together(settings, [entry])[0]


def summarise_together(settings: Resolved, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The numbers of several comparisons, whose p values are adjusted for all that is tested in any of them.

    Raises: DataError as `read_cells`.
    """
    cells = [read_cells(entry.scores, entry.group_of) for entry in entries]
    differences = _differences(cells)
    return [
        _summary(settings, entry, each, found) for entry, each, found in zip(entries, cells, differences, strict=True)
    ]


def _summary(settings: Resolved, entry: Entry, cells: Cells, differences: list[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "settings": settings.to_dict(),
        "images": len(set(cells.images)),
        "groups": len({entry.group_of[image] for image in cells.images}),
        "seeds": list(next(iter(entry.scores.values()))),
        "cells": _counts(cells),
        "arms": {arm: {**facts, **_arm(cells, arm)} for arm, facts in entry.arms.items()},
        "differences": differences,
    }
    summary["not_learned"] = _not_learned(summary["arms"])
    summary = strict(summary)
    return {"verdict": verdict(summary), "outcomes": outcomes(summary), **summary}


def _counts(cells: Cells) -> dict[str, Any]:
    """Number of cells with and without the class, in total and per class."""
    return {
        **_count(cells.present),
        "per_class": {label: _count(cells.present[np.array(cells.labels) == label]) for label in cells.classes},
    }


def _count(present: np.ndarray) -> dict[str, int]:
    return {"with_class": int(present.sum()), "without_class": int((~present).sum())}


def _arm(cells: Cells, arm: ArmName) -> dict[str, Any]:
    """Scores of one arm; None for a score without cells."""
    absent = ~cells.present
    own = cells.scores[arm]
    return {
        "dice": cells.mean(arm, "dice", cells.present),
        "iou": cells.mean(arm, "iou", cells.present),
        "dice_per_class": {
            label: cells.mean(arm, "dice", cells.present & (np.array(cells.labels) == label)) for label in cells.classes
        },
        "false_positive_rate": cells.mean(arm, "false_positive", absent),
        "false_positive_volume": own["volume"][:, absent].mean() if absent.any() else None,
        "dice_per_seed": own["dice"][:, cells.present].mean(1).tolist() if cells.present.any() else None,
    }


def _differences(several: Sequence[Cells]) -> list[list[dict[str, Any]]]:
    """All comparisons of the arms present, for each set of cells.

    Comparisons that show whether synthetic pairs help are tested, with p adjusted over all of them; the others are
    context and have no adjusted p.
    """
    pairs = [[arms for arms in COMPARISONS if set(arms) <= cells.scores.keys()] for cells in several]
    tests = sum(
        answers(*arms, cells.scores) * (int(cells.present.any()) + int((~cells.present).any()))
        for cells, own in zip(several, pairs, strict=True)
        for arms in own
    )
    found = [[_difference(cells, arms, tests) for arms in own] for cells, own in zip(several, pairs, strict=True)]
    results = [
        entry[name]
        for cells, entries in zip(several, found, strict=True)
        for entry in entries
        for name in ("dice", "false_positive_rate")
        if entry[name] and answers(entry["arm"], entry["minus"], cells.scores)
    ]
    for result, p in zip(results, holm([result["p"] for result in results]), strict=True):
        result["p_holm"] = p
    return found


def _difference(cells: Cells, arms: tuple[ArmName, ArmName], tests: int) -> dict[str, Any]:
    present, absent = cells.present, ~cells.present
    return {
        "arm": arms[0],
        "minus": arms[1],
        "dice": cells.difference(arms, "dice", present, tests),
        "iou": cells.difference(arms, "iou", present, tests),
        "false_positive_rate": cells.difference(arms, "false_positive", absent, tests),
        "dice_per_class": {
            label: cells.difference(arms, "dice", present & (np.array(cells.labels) == label), tests)
            for label in cells.classes
        },
    }


def _not_learned(arms: Mapping[str, Any]) -> list[str]:
    """Arms and classes with scores too low for differences to say anything about synthetic pairs."""
    return [
        f"{arm}: {label}"
        for arm, facts in arms.items()
        for label, dice in facts["dice_per_class"].items()
        if dice is not None and dice["mean"] < NOT_LEARNED
    ]

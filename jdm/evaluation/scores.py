"""Scores of a set of predictions: per case and class, their means, and their files.

Works only on the counts of `jdm.evaluation.metrics`; reads no images.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import strict, write_text

Convention = Literal["nnunet", "thesis", "pranet"]
NOT_COMPUTED = "not computed"


@dataclass(frozen=True)
class CaseScore:
    """Scores of one class of one case. Distances have the unit of the reference's spacing; counts are in voxels."""

    case_id: str
    label: str
    dice: float
    iou: float
    hd95: float
    tp: int
    fp: int
    fn: int
    tn: int
    voxel_size: float = 1.0
    """Area or volume of a pixel or voxel."""
    assd: float = math.nan
    """Average symmetric surface distance."""

    @property
    def n_pred(self) -> int:
        return self.tp + self.fp

    @property
    def n_ref(self) -> int:
        return self.tp + self.fn


@dataclass(frozen=True)
class ClassScore:
    """One class or region over all cases.

    `dice` and `iou` are the convention's means over images; `dice_defined` and `iou_defined` leave out cases with
    undefined scores; `micro_*` are computed from counts pooled over the images. `dice_fixed` and `iou_fixed` are means
    at the threshold 0.5, with an empty union counted as 0; they differ from `dice` and `iou` only for `pranet`.
    """

    label: str
    values: tuple[int, ...]
    """Label values in the files; several for a region."""
    cases: int
    empty_reference: int
    empty_both: int
    dice: float
    iou: float
    hd95: float
    """Mean over the cases that have a distance."""
    hd95_left_out: int
    """Cases without one, because a mask is empty or distances were not computed."""
    assd: float
    """Mean of the average symmetric surface distance over the same cases."""
    dice_defined: float
    iou_defined: float
    dice_fixed: float
    iou_fixed: float
    micro_dice: float
    micro_iou: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of a folder of predictions against a folder of references."""

    convention: Convention
    hd95_implementation: str
    cases: tuple[CaseScore, ...]
    classes: tuple[ClassScore, ...]
    missing: tuple[str, ...] = ()
    """References without a prediction, left out of every score."""

    @property
    def case_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(score.case_id for score in self.cases))

    @property
    def mean_dice(self) -> float:
        """mDice: the mean of the classes' means (nnU-Net's foreground mean); NaN if one is undefined."""
        return float(np.mean([c.dice for c in self.classes]))

    @property
    def mean_iou(self) -> float:
        """mIoU: the mean of the classes' means; NaN if one is undefined."""
        return float(np.mean([c.iou for c in self.classes]))

    @property
    def micro_dice(self) -> float:
        """Dice of the counts pooled over images and classes (thesis Eq. 4.1)."""
        return overlap(*_pooled(self.cases))[0]

    @property
    def micro_iou(self) -> float:
        return overlap(*_pooled(self.cases))[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `json.dumps(..., allow_nan=False)`; NaN becomes None."""
        return strict(
            {
                "convention": self.convention,
                "hd95_implementation": self.hd95_implementation,
                "mean_dice": self.mean_dice,
                "mean_iou": self.mean_iou,
                "micro_dice": self.micro_dice,
                "micro_iou": self.micro_iou,
                "images": len(self.case_ids),
                "missing": list(self.missing),
                "classes": [dataclasses.asdict(c) for c in self.classes],
                "cases": [_case_row(c) for c in self.cases],
            }
        )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """One line per case and class; an undefined score is an empty field."""
        text = io.StringIO()
        header = [*(f.name for f in dataclasses.fields(CaseScore)), "n_pred", "n_ref"]
        writer = csv.DictWriter(text, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(strict(_case_row(c)) for c in self.cases)
        return text.getvalue()

    def to_markdown(self) -> str:
        """The result in one sentence, the table, and notes on what was left out."""
        return "\n".join([self.headline(), "", table_markdown(self.table()), *self.notes()]) + "\n"

    def table(self) -> Table:
        """A row per class, and the mean over several."""
        header = ["class", "images", "empty ref.", "empty both", "Dice", "IoU", "HD95", "ASSD", "without HD95"]
        header += ["micro Dice", "micro IoU"]
        if self.convention == "pranet":
            header += ["Dice at 0.5", "IoU at 0.5"]
        rows = []
        for c in self.classes:
            cells = [c.label, *map(str, (c.cases, c.empty_reference, c.empty_both))]
            cells += [*_numbers(c.dice, c.iou, c.hd95, c.assd), str(c.hd95_left_out)]
            cells += _numbers(c.micro_dice, c.micro_iou)
            if self.convention == "pranet":
                cells += _numbers(c.dice_fixed, c.iou_fixed)
            rows.append(cells)
        if len(self.classes) > 1:
            cells = ["mean", str(len(self.case_ids)), "", "", *_numbers(self.mean_dice, self.mean_iou), "", "", ""]
            cells += _numbers(self.micro_dice, self.micro_iou)
            rows.append(cells + [""] * (len(header) - len(cells)))
        return Table("Scores by class, means over images", tuple(header), tuple(map(tuple, rows)))

    def headline(self) -> str:
        """The result in one sentence."""
        names = [c.label for c in self.classes]
        return (
            f"Dice {_number(self.mean_dice)}, IoU {_number(self.mean_iou)}: "
            f"{f'mean of {len(names)} classes' if len(names) > 1 else names[0]}, over {len(self.case_ids)} images, "
            f"convention {self.convention}."
        )

    def notes(self) -> list[str]:
        """Notes for readers of the table: convention, distance, undefined and missing cases."""
        notes = [f"Convention: {self.convention}. HD95: {self.hd95_implementation}."]
        for c in self.classes if self.hd95_implementation != NOT_COMPUTED else ():
            if c.hd95_left_out:
                notes.append(
                    f"{c.label}: the mean HD95 leaves out {c.hd95_left_out} of {c.cases} cases with an empty mask "
                    f"(both masks in {c.empty_both})."
                )
        for c in self.classes:
            if self.convention == "thesis" and c.empty_both:
                notes.append(
                    f"{c.label}: {c.empty_both} of {c.cases} cases are empty in both masks, so the mean "
                    f"is undefined; over the others Dice is {_number(c.dice_defined)}, "
                    f"IoU {_number(c.iou_defined)}."
                )
        if self.missing:
            notes.append(f"Without a prediction and not scored: {', '.join(self.missing)}.")
        return notes

    def write(self, folder: Path) -> list[Path]:
        """Write evaluation.json, evaluation.csv and evaluation.md into `folder`; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"json": self.to_json(), "csv": self.to_csv(), "md": self.to_markdown()}
        paths = [folder / f"evaluation.{ending}" for ending in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            write_text(path, text)
        return paths


def overlap(tp: int, fp: int, fn: int) -> tuple[float, float]:
    """Dice and IoU of counts; NaN if reference and prediction are both empty."""
    if tp + fp + fn == 0:
        return math.nan, math.nan
    return 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)


def mean_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = [v for v in values if not math.isnan(v)]
    return float(np.mean(defined)) if defined else math.nan


def summarise(
    convention: Convention, scores: Iterable[CaseScore], classes: Mapping[str, tuple[int, ...]]
) -> tuple[ClassScore, ...]:
    """The means of each class over its cases.

    `nnunet` leaves undefined scores out; `thesis` and `pranet` average all scores.
    """
    by_label: dict[str, list[CaseScore]] = {label: [] for label in classes}
    for score in scores:
        by_label[score.label].append(score)
    return tuple(_class_score(convention, classes[label], cases) for label, cases in by_label.items())


def _class_score(convention: Convention, values: tuple[int, ...], cases: list[CaseScore]) -> ClassScore:
    def mean(found: list[float]) -> float:
        return mean_defined(found) if convention == "nnunet" else float(np.mean(found))

    fixed = [overlap(c.tp, c.fp, c.fn) for c in cases]
    micro_dice, micro_iou = overlap(*_pooled(cases))
    return ClassScore(
        label=cases[0].label,
        values=values,
        cases=len(cases),
        empty_reference=sum(c.n_ref == 0 for c in cases),
        empty_both=sum(c.n_ref == 0 and c.n_pred == 0 for c in cases),
        dice=mean([c.dice for c in cases]),
        iou=mean([c.iou for c in cases]),
        hd95=mean_defined(c.hd95 for c in cases),
        assd=mean_defined(c.assd for c in cases),
        hd95_left_out=sum(math.isnan(c.hd95) for c in cases),
        dice_defined=mean_defined(c.dice for c in cases),
        iou_defined=mean_defined(c.iou for c in cases),
        dice_fixed=float(np.mean(np.nan_to_num([dice for dice, _ in fixed]))),
        iou_fixed=float(np.mean(np.nan_to_num([iou for _, iou in fixed]))),
        micro_dice=micro_dice,
        micro_iou=micro_iou,
    )


def _pooled(cases: Iterable[CaseScore]) -> tuple[int, int, int]:
    counts = [(c.tp, c.fp, c.fn) for c in cases]
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
    return tp, fp, fn


def _case_row(score: CaseScore) -> dict[str, Any]:
    return {**dataclasses.asdict(score), "n_pred": score.n_pred, "n_ref": score.n_ref}


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"  # noqa: RUF001


def _numbers(*values: float) -> list[str]:
    return [_number(value) for value in values]

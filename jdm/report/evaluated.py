"""The report on an evaluation of predicted masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdm.evaluation.scores import CaseScore, ClassScore, Evaluation
from jdm.evaluation.tables import Table
from jdm.report.content import Report, Section, Strips
from jdm.report.read import contents_of, read_object

EVALUATION = "evaluation.json"


def evaluation_report(folder: Path) -> Report:
    """The report on the folder of a jdm-evaluate. Raises: DataError if evaluation.json is damaged."""
    file = folder / EVALUATION
    content = read_object(file)
    with contents_of(file):
        found = _evaluation(content)
        sections = (_classes(found), _cases(found))
        return Report("evaluation", "Predicted masks beside reference masks", found.headline(), sections)


def _evaluation(content: Mapping[str, Any]) -> Evaluation:
    """The inverse of `Evaluation.to_dict`."""

    def restored(cls: type, row: Mapping[str, Any]) -> dict[str, Any]:
        return {field.name: _value(row[field.name]) for field in dataclasses.fields(cls)}

    return Evaluation(
        content["convention"], str(content["hd95_implementation"]),
        tuple(CaseScore(**restored(CaseScore, row)) for row in content["cases"]),
        tuple(ClassScore(**restored(ClassScore, row)) for row in content["classes"]),
        tuple(map(str, content["missing"])),
    )  # fmt: skip


def _value(value: Any) -> Any:
    return float("nan") if value is None else tuple(value) if isinstance(value, list) else value


def _classes(found: Evaluation) -> Section:
    plots = [
        Strips(f"Dice of each image: {each.label}", "Dice", {each.label: values})
        for each in found.classes
        if (values := [case.dice for case in found.cases if case.label == each.label and case.dice == case.dice])
    ]
    return Section("Scores", plots=tuple(plots), tables=(found.table(),), notes=tuple(found.notes()))


def _cases(found: Evaluation) -> Section:
    rows = tuple(
        (
            case.case_id, case.label,
            *(f"{v:.4f}" if v == v else "" for v in (case.dice, case.iou, case.hd95, case.assd)),
            str(case.n_pred), str(case.n_ref),
        )
        for case in found.cases
    )  # fmt: skip
    header = ("case", "class", "Dice", "IoU", "HD95", "ASSD", "voxels predicted", "in the reference")
    return Section("Cases", tables=(Table("Every case and class; an undefined score is empty", header, rows),))

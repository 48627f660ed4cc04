"""The report on a comparison of classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdm.classify.report import settings_line, tables
from jdm.data.raw_dataset import RawDataset
from jdm.report.content import Intervals, Report, Section
from jdm.report.experiment import RESULTS
from jdm.report.read import contents_of, find_dataset, read_object, read_png
from jdm.report.synthetic import PROVENANCE, synthetic_sections

_PICTURES = {
    "confusion.png": "A confusion matrix per arm: the share of each true class, by rows, that was found as each class",
    "curves.png": "Training loss of each arm over its updates",
}


def classify_report(folder: Path) -> Report:
    """The report on a jdm-classify folder. Raises: DataError if a part is damaged."""
    file = folder / RESULTS
    results = read_object(file)
    with contents_of(file):
        settings = results["settings"]
        real, made = find_dataset(str(settings["real"])), find_dataset(str(settings["synthetic"]))
        names = [dataset.name if dataset else str(settings[key]) for key, dataset in
                 (("real", real), ("synthetic", made))]  # fmt: skip
        effect, provenance = _effect(results), _provenance(results)
        scores = Section("Scores of the arms", (settings_line(results),), tables=tuple(tables(results)))
        verdict = str(results["verdict"])
    title = f"{names[0]} and {names[1]}: do synthetic images help a classifier?"
    sections = (effect, *_images(made, real), scores, *_drawings(folder))
    return Report("classify", title, verdict, sections, provenance)


def _effect(results: Mapping[str, Any]) -> Section:
    rows = {
        f"{each['arm']} minus {each['minus']}": (each["mean"], each["low"], each["high"])
        for each in results["differences"]
        if each["mean"] is not None
    }
    if not rows:
        return Section("Effect", ("No arm was compared with another.",))
    seen = [each["detectable"] for each in results["differences"] if each["detectable"] is not None]
    marks = {"no difference": 0.0, **({"smallest that could have been seen": max(seen)} if seen else {})}
    plot = Intervals("Difference in accuracy, 95 % intervals over patients", "accuracy", rows, marks)
    return Section("Effect", plots=(plot,))


def _images(made: RawDataset | None, real: RawDataset | None) -> list[Section]:
    if made is None or not (made.folder / PROVENANCE).is_file():
        return []
    return synthetic_sections(made, real)


def _drawings(folder: Path) -> list[Section]:
    sheets = [
        read_png(folder / name, alt, alt.partition(":")[0])
        for name, alt in _PICTURES.items()
        if (folder / name).exists()
    ]
    return [Section("Confusion and training", sheets=tuple(sheets))] if sheets else []


def _provenance(results: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    settings = results["settings"]
    folds, seeds = settings["folds"], results["runs"]
    return (
        ("jdm", str(results["jdm_version"])),
        ("Folds", ", ".join(map(str, folds))),
        ("Runs per arm", str(seeds)),
        ("Classes", ", ".join(map(str, settings["classes"]))),
    )

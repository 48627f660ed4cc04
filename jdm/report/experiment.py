"""The report on an experiment: whether synthetic pairs helped nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jdm.evaluation.tables import Table
from jdm.report.content import Intervals, Lines, Report, Section, Strips
from jdm.report.read import contents_of, find_dataset, read_object, read_png
from jdm.report.synthetic import PROVENANCE, synthetic_sections
from jdm.report.training import curve_section, run_of
from nnunet_integration.report import difference_line, settings_line, tables, warning_lines
from nnunet_integration.verdict import tested, unit

RESULTS = "results.json"


def experiment_report(folder: Path, raw: Path | None = None, runs: Path | None = None) -> Report:
    """The report on an experiment's folder, with the pairs if their datasets are at hand.

    Args:
        raw, runs: where the datasets and the generator's run lie; by default under nnU-Net's and jdm's folders.
    Raises: DataError if a part is damaged.
    """
    file = folder / RESULTS
    results = read_object(file)
    with contents_of(file):
        settings = results["settings"]
        real, synthetic, fold = str(settings["real"]), str(settings["synthetic"]), str(settings["fold"])
        verdict = str(results["verdict"])
        scored = [_effect(results), *_results(results)]
        provenance, command = _provenance(results), str(results["command"])
    return Report(
        "experiment", f"{real}, fold {fold}: do synthetic pairs help?", verdict,
        (
            scored[0], *_curves(results), *_pairs(real, synthetic, raw), *scored[1:], *_cases(folder, results),
            *_pictures(folder), *curve_section(run_of(real, fold, runs)),
        ),
        provenance, (command,),
    )  # fmt: skip


def _effect(results: Mapping[str, Any]) -> Section:
    """The differences that answer the question, as intervals, with what must be known beside them."""
    data, entries = results["data"], [entry for entry in tested(results) if entry["dice"]]
    plots = ()
    if entries:
        rows = {
            f"{entry['arm']} minus {entry['minus']}": tuple(entry["dice"][key] for key in ("mean", "low", "high"))
            for entry in entries
        }
        seen = [entry["dice"]["detectable"] for entry in entries if entry["dice"]["detectable"] is not None]
        marks = {"no difference": 0.0, **({"smallest that could have been seen": max(seen)} if seen else {})}
        plots = (Intervals("Difference in Dice beside the control, 95 % intervals", "Dice", rows, marks),)
    text = (
        f"{data['training_cases']} real and {data['synthetic_cases']} synthetic training cases; scored on "
        f"{unit(results)} ({data['test_set']})."
    )
    return Section("Effect", (text,), plots=plots, notes=(*results["notes"], *warning_lines(results)))


def _curves(results: Mapping[str, Any]) -> list[Section]:
    """Dice over length and over amount, of a study; none of a plain experiment."""
    study, found = results.get("study") or {}, []
    if lengths := study.get("lengths"):
        marks = {"plateau of real": float(lengths["compared"])} if lengths["reached"] else {}
        plot = _curve("Dice by length, all arms with equal totals", "updates in total", "updates", lengths["curve"])
        found.append(Section("Longer training", plots=(replace(plot, marks=marks),)))
    if len(ratios := study.get("ratios") or []) > 1:
        plot = _curve("Dice by amount of synthetic cases", "amount, in amounts of real cases", "ratio", ratios)
        found.append(Section("More synthetic cases", plots=(plot,)))
    return found


def _curve(title: str, x: str, key: str, entries: Sequence[Mapping[str, Any]]) -> Lines:
    series: dict[str, list[tuple[float, float]]] = {}
    bars: dict[str, list[tuple[float, float, float]]] = {}
    for entry in entries:
        for arm, facts in entry["arms"].items():
            if (dice := facts["dice"]) is not None:
                at = float(entry[key])
                series.setdefault(arm, []).append((at, dice["mean"]))
                if dice["low"] is not None:
                    bars.setdefault(arm, []).append((at, dice["low"], dice["high"]))
    return Lines(f"{title}, 95 % intervals", x, "Dice", series, bars=bars, log=True)


def _pairs(real: str, synthetic: str, raw: Path | None) -> list[Section]:
    made = find_dataset(synthetic, raw)
    if made is None or not (made.folder / PROVENANCE).is_file():
        return []
    return synthetic_sections(made, find_dataset(real, raw))


def _results(results: Mapping[str, Any]) -> list[Section]:
    lines = tuple(f"Dice, {difference_line(entry)}" for entry in results["differences"] if entry not in tested(results))
    text = settings_line(results["settings"], results["stock"], results["patch_note"])
    return [Section("Scores of the arms", (text, *lines), tables=tuple(tables(results)))]


def _cases(folder: Path, results: Mapping[str, Any]) -> list[Section]:
    """Dice of every case by arm, mean over seeds and classes, where the arms are compared."""
    found: dict[str, dict[str, list[float]]] = {}
    places = [Path(place) for place in (results.get("study") or {}).get("scores", ["scores"])]
    own = [folder / place for place in places if not place.is_absolute() and ".." not in place.parts]
    for file in sorted(file for place in own for file in place.glob("*_seed_*.json")):
        arm, content = file.name.partition("_seed_")[0], read_object(file)
        with contents_of(file):
            for case in content["cases"]:
                if case["dice"] is not None and case["tp"] + case["fn"] > 0:
                    found.setdefault(arm, {}).setdefault(case["case_id"], []).append(float(case["dice"]))
    if not found:
        return []
    means = {arm: {case: float(np.mean(values)) for case, values in cases.items()} for arm, cases in found.items()}
    names = sorted({case for cases in means.values() for case in cases})
    rows = tuple((name, *(f"{cases[name]:.4f}" if name in cases else "" for cases in means.values())) for name in names)
    plot = Strips("Dice of each test case", "Dice", {arm: list(cases.values()) for arm, cases in means.items()})
    table = Table("Dice of each test case, mean over seeds and over the classes it has", ("case", *means), rows)
    return [Section("Test cases", plots=(plot,), tables=(table,))]


def _pictures(folder: Path) -> list[Section]:
    files = sorted((folder / "pictures").glob("*.png"))
    if not files:
        return []
    sheets = tuple(
        read_png(file, f"Case {file.stem}: the image, then the image with the contours of the reference and of the "
                 "prediction of every arm", file.stem) for file in files
    )  # fmt: skip
    text = "Evenly spaced cases, not selected by score; predictions of the first seed."
    return [Section("Predictions", (text,), sheets=sheets)]


def _provenance(results: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    hardware = results["hardware"]
    minutes = sum(facts["minutes"] for facts in results["trainings"].values())
    return (
        ("Commit", str(results["commit"] or "unknown")),
        ("Versions", ", ".join(f"{name} {number}" for name, number in results["versions"].items())),
        ("Hardware", ", ".join([f"{hardware['cpu']}, {hardware['cores']} cores", *hardware["gpu"]])),
        ("Seeds", ", ".join(map(str, results["seeds"]))),
        ("Training", f"{minutes:.1f} minutes"),
    )

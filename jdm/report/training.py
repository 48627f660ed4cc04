"""The report on a run's folder: how the generator was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdm.config.files import read_toml
from jdm.data.raw_layout import results_folder
from jdm.errors import ConfigError, DataError
from jdm.evaluation.figures import read_losses
from jdm.evaluation.tables import Table
from jdm.report.content import Lines, Report, Section
from jdm.report.read import contents_of, read_object, read_png

PLAN, LOG, CHECKPOINT = "plan.toml", "log.csv", "checkpoint.json"
_CURVES = {
    "loss": "training", "seen_loss": "training cases, measured as held out", "held_out_loss": "held out",
    "smoothed": "held out, smoothed",
}  # fmt: skip
_MOST_SHEETS, _MOST_POINTS = 3, 200


def training_report(folder: Path) -> Report:
    """The report on a run's folder. Raises: DataError if a part is damaged."""
    facts = read_object(folder / CHECKPOINT) if (folder / CHECKPOINT).is_file() else {}
    with contents_of(folder / CHECKPOINT):
        title = f"{facts['dataset']}, fold {facts['fold']}: the generator" if facts else f"{folder.name}: the generator"
        verdict = _verdict(facts) if facts else "No weights yet: training has not written its first checkpoint."
        provenance = _provenance(facts) if facts else ()
    sections = [*_samples(folder), *_plan(folder), *curve_section(folder)]
    return Report("run", title, verdict, tuple(sections), provenance)


def run_of(dataset: str, fold: str, runs: Path | None) -> Path | None:
    """The folder of the run that made the pairs, if it is at hand. Args: runs: None: $jdm_results."""
    root = runs or results_folder()
    folder = root / dataset / f"fold_{fold}"
    return folder if folder.is_dir() else None


def curve_section(folder: Path | None) -> list[Section]:
    """The losses in a run's log.csv; nothing without one. Raises: DataError if it is damaged."""
    if folder is None or not (folder / LOG).is_file():
        return []
    columns = read_losses(folder / LOG)
    series = {
        title: [point for point in zip(columns["step"], columns[name], strict=True) if np.isfinite(point[1])]
        for name, title in _CURVES.items()
    }
    marks = {}
    if (folder / CHECKPOINT).is_file():
        facts = read_object(folder / CHECKPOINT)
        with contents_of(folder / CHECKPOINT):
            step = int(facts["step"])
            marks[f"weights used: step {step}"] = float(step)
    shown = {title: _thinned(points) for title, points in series.items() if points}
    plot = Lines("Denoising loss of the generator", "step", "denoising loss", shown, marks)
    return [Section("The generator's training", plots=(plot,))]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_MOST_POINTS`: means over runs of neighbours, so that noise does not hide the trend."""
    size = math.ceil(len(points) / _MOST_POINTS)
    blocks = [np.asarray(points[n : n + size], float) for n in range(0, len(points), size)]
    return [(float(block[:, 0].mean()), float(block[:, 1].mean())) for block in blocks]


def _verdict(facts: dict[str, Any]) -> str:
    text = f"{facts['step']} steps in {facts['minutes']:.1f} minutes on {len(facts['training_ids'])} training cases."
    if facts.get("held_out_loss") is not None:
        text += (
            f" The weights are those of the lowest smoothed loss on held-out cases ({len(facts['held_out_ids'])}): "
            f"{facts['held_out_loss']:.4f}."
        )
    return text


def _samples(folder: Path) -> list[Section]:
    """The last of the sheets drawn during training, latest first."""
    files = sorted((folder / "samples").glob("*.png"), reverse=True)[:_MOST_SHEETS]
    if not files:
        return []
    sheets = tuple(
        read_png(file, f"Sheet of samples at {file.stem.replace('_', ' ')}: each image, and beside it the image with "
                 "its mask outlined", file.stem.replace("_", " ")) for file in files
    )  # fmt: skip
    return [Section("Samples during training", ("Random samples, the latest first.",), sheets=sheets)]


def _plan(folder: Path) -> list[Section]:
    """The decisions in plan.toml, each with its reason."""
    import tomlkit

    file = folder / PLAN
    if not file.is_file():
        return []
    try:
        read_toml(file)
    except ConfigError as error:
        raise DataError(str(error)) from None
    rows = []
    for part, value in tomlkit.parse(file.read_text(encoding="utf-8")).items():
        items = {f"{part}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {part: value}
        for name, item in items.items():
            reason = item.trivia.comment.removeprefix("#").strip() if hasattr(item, "trivia") else ""
            rows.append((name, str(item.unwrap() if hasattr(item, "unwrap") else item), reason))
    return [Section("Plan", tables=(Table("What was decided, and why", ("setting", "value", "reason"), tuple(rows)),))]


def _provenance(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    known = {
        "jdm": facts["jdm_version"],
        "Commit": facts.get("commit"),
        "Hardware": facts.get("hardware"),
        "Training cases": ", ".join(map(str, facts["training_ids"])),
        "Held-out cases": ", ".join(map(str, facts["held_out_ids"])),
        "Weights (SHA-256)": facts.get("sha256"),
    }
    return tuple((name, str(value)) for name, value in known.items() if value)

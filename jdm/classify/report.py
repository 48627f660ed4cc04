"""The report of a comparison of classifiers: verdict in words, tables, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdm.classify.scores import by_class, confusion, intervals
from jdm.evaluation.statistics import detectable, holm, paired_difference
from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import write_text
from jdm.system.machine import jdm_version

_COMPARED = (
    ("augmented", "real"), ("real-long", "real"), ("synthetic", "real"),
    ("synthetic-then-real", "real-long"), ("mixed", "real-long"), ("pooled", "real-long"),
)  # fmt: skip
"""Arms, and the control with as many updates."""
_HELP = ("synthetic-then-real", "mixed", "pooled")
_LEVEL = 0.05
_MOST_LETTERS = 16
"""Of a class's name in a picture."""


def report(found: Mapping[str, Any], about: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Score all arms, write results.md and the pictures. Returns: the content of results.json.

    Args: found: names, y (n,), groups and cases of the scored images; by arm, p (runs, n, classes) and losses.
    """
    arms = {arm: _scored(found, part["p"]) for arm, part in found["arms"].items()}
    results = {
        "verdict": "", "jdm_version": jdm_version(), "settings": dict(about), "images": len(found["y"]),
        "groups": len(set(found["groups"])), "runs": len(next(iter(found["arms"].values()))["p"]),
        "arms": arms, "differences": _differences(found),
    }  # fmt: skip
    results["verdict"] = verdict(results)
    write_text(folder / "results.md", markdown(results))
    _draw(found, folder)
    return results


def _scored(found: Mapping[str, Any], p: np.ndarray) -> dict[str, Any]:
    """Means over runs, with intervals over patients; the confusion matrix summed over runs."""
    y, names = found["y"], found["names"]
    overall = intervals(y, p, found["groups"])
    rows = [by_class(y, row) for row in p]
    classes = {
        name: {key: float(np.mean([row[k][key] for row in rows])) for key in rows[0][k]} for k, name in enumerate(names)
    }
    return {
        "overall": overall,
        "classes": classes,
        "confusion": np.sum([confusion(y, row) for row in p], axis=0).tolist(),
    }


def _differences(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Paired differences in accuracy, with Holm's p over all, and the smallest that would have been seen."""
    right = {arm: (part["p"].argmax(2) == found["y"]).astype(float) for arm, part in found["arms"].items()}
    pairs = [(arm, other) for arm, other in _COMPARED if arm in right and other in right]
    intervals = [paired_difference(right[arm], right[other], groups=found["groups"]) for arm, other in pairs]
    adjusted = holm([one.p for one in intervals])
    return [
        {
            "arm": arm, "minus": other, "mean": one.mean, "low": one.low, "high": one.high, "p": one.p, "p_holm": p,
            "detectable": detectable(one, len(pairs)),
        }
        for (arm, other), one, p in zip(pairs, intervals, adjusted, strict=True)
    ]  # fmt: skip


def verdict(results: Mapping[str, Any]) -> str:
    """Whether synthetic images helped, in words, beside the control with as many updates on real images."""
    lines = []
    for entry in (entry for entry in results["differences"] if entry["arm"] in _HELP):
        clear = entry["p_holm"] < _LEVEL
        word = ("helped" if entry["mean"] > 0 else "harmed") if clear else "made no difference that could be seen"
        lines.append(
            f"{entry['arm']} {word}: {entry['mean']:+.3f} accuracy [{entry['low']:+.3f}, {entry['high']:+.3f}] beside "
            f"{entry['minus']}, which has as many updates"
            + ("" if clear else f"; a difference of {entry['detectable']:.3f} or more would have been seen")
        )
    if not lines:
        return "Nothing says whether synthetic images help: an arm with both kinds, and its control, are missing."
    images, groups = results["images"], results["groups"]
    of = f"of {groups} patients" if groups < images else "each counted as a patient of its own"
    return f"{'. '.join(lines)}. {images} images {of}, {results['runs']} runs."


def markdown(results: Mapping[str, Any]) -> str:
    settings = results["settings"]
    parts = [
        f"# {settings['real']} and {settings['synthetic']}: do synthetic images help a classifier?",
        results["verdict"], settings_line(results),
        *(f"**{table.caption}**\n\n{table_markdown(table)}".rstrip() for table in tables(results)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def settings_line(results: Mapping[str, Any]) -> str:
    """What all arms share."""
    settings = results["settings"]
    return (
        f"{settings['network']} network, {settings['size']} pixels a side, {settings['iterations']} updates of "
        f"{settings['batch_size']} images (arms with synthetic images and real-long: twice as many); "
        f"{settings['synthetic_images']} synthetic images; scored: {settings['scored']}."
    )


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Tables of the arms, their differences, and each class.

    Args: results: the content of results.json.
    """
    arms = results["arms"]
    first = next(iter(arms.values()))
    found = [
        Table(
            "Means over runs, 95 % bootstrap intervals over patients; calibration: expected error, lower is better",
            ("arm", *first["overall"]),
            tuple((arm, *(_interval(part["overall"][key]) for key in first["overall"])) for arm, part in arms.items()),
        )
    ]
    if results["differences"]:
        header = ("difference in accuracy", "mean [95 % interval]", "p (Holm)", "smallest seen")
        found.append(Table("Paired differences between arms", header, tuple(map(_difference, results["differences"]))))
    for name, scores in first["classes"].items():
        rows = tuple((arm, *(_score(part["classes"][name][key]) for key in scores)) for arm, part in arms.items())
        found.append(Table(f"Class {name}", ("arm", *scores), rows))
    return found


def _difference(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{entry['arm']} minus {entry['minus']}",
        f"{entry['mean']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]",
        f"{entry['p_holm']:.3g}", f"{entry['detectable']:.3f}",
    )  # fmt: skip


def _score(value: float | None) -> str:
    """Empty where there is none, as for the precision of a class that is never predicted."""
    return "" if value is None or math.isnan(value) else f"{value:.3g}"


def _interval(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return ""
    limits = "" if value["low"] is None else f" [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value['mean']:.3f}{limits}"


def _draw(found: Mapping[str, Any], folder: Path) -> None:
    """confusion.png: a matrix per arm, shares of the true class; curves.png: training loss per arm."""
    from matplotlib.figure import Figure

    # long names would leave no room for the matrices
    names = [name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…" for name in found["names"]]
    arms = found["arms"]
    figure = Figure(figsize=(3.2 * len(arms), 3.4), layout="constrained")
    for place, (arm, part) in enumerate(arms.items(), 1):
        table = np.sum([confusion(found["y"], row) for row in part["p"]], axis=0).astype(float)
        table /= np.maximum(table.sum(1, keepdims=True), 1)
        axes = figure.add_subplot(1, len(arms), place, title=arm, xlabel="found")
        axes.imshow(table, vmin=0, vmax=1, cmap="Blues")
        for (row, column), share in np.ndenumerate(table):
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names if place == 1 else [""] * len(names))
    figure.savefig(folder / "confusion.png", dpi=100)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="share of the updates", ylabel="training loss")
    for arm, part in arms.items():
        curve = np.mean(part["losses"], axis=0)
        axes.plot((np.arange(len(curve)) + 0.5) / len(curve), curve, label=arm)
    axes.legend()
    figure.savefig(folder / "curves.png", dpi=100)

"""The page of scripts/ablation.py: a table for every dataset and training time, a row for every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_integration.comparison import read_cells

Row = Mapping[str, Any]
OF_OBJECTS = ("share", "count", "area", "roughness", "specks")
COLUMNS = {
    "synthetic": "Dice on the test set of nnU-Net trained on the pairs alone",
    "minus real": "that, minus nnU-Net trained on real cases for as many updates",
    "segmenter": "Dice of the model's own segmentations of the test set",
    "segmenter minus real": "that, minus the same nnU-Net",
    "agreement": "Dice of that nnU-Net's segmentations of the pairs with their masks, all pixels pooled",
    "kernel": "distance of its features of pairs to those of real crops (KID's estimator and kernel)",
    "share": "of the pixels that are foreground",
    "count": "objects per crop",
    "area": "median pixels of an object",
    "roughness": "of an object's outline: its length over that of a disc's",
    "specks": "share of the objects under 20 pixels",
    "quadrants": "how far the mean colours of a crop's quadrants are apart, in stored units",
    "spread": "how far the mean colours of crops are apart",
    "nearest": "median distance to the nearest training crop; in brackets the share of suspected copies",
    "steps": "of training, at the exported weights",
    "evaluations": "of the network per pair and window",
}
_LEGEND = """## Columns

Intervals of 95 % over images (or patients), seeds averaged first. Other numbers are means over seeds of means over
crops; the row `real crops` has those of the test images. The last column is the commit at which the generator was
trained.
"""


def summaries(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per dataset, training time and setting, of all its seeds; the best of a table first."""
    grouped: dict[tuple[str, float, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        grouped.setdefault((cell["dataset"], cell["minutes"], cell["row"]), []).append(cell)
    rows = [_summary(found) for found in grouped.values()]
    return sorted(rows, key=lambda row: (row["dataset"], row["minutes"], -row["synthetic"]["mean"]))


def _summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Differences are paired over images, with the seeds averaged first."""
    first = cells[0]
    arms = {arm: {cell["seed"]: cell["scores"][arm] for cell in cells} for arm in first["scores"]}
    scores = read_cells(arms, first["groups"])
    means = {
        part: {name: float(np.mean([_number(cell["pairs"][part][name]) for cell in cells])) for name in values}
        for part, values in first["pairs"].items()
    }
    return {
        **{name: first[name] for name in ("dataset", "minutes", "row", "of", "flags")},
        "seeds": [cell["seed"] for cell in cells],
        "images": len(set(scores.images)),
        **{arm: scores.mean(arm, "dice", scores.present) for arm in arms},
        "minus_real": scores.difference(("synthetic", "real"), "dice", scores.present, 1),
        "segmenter_minus_real": scores.difference(("segmenter", "real"), "dice", scores.present, 1),
        **means,
        "commits": sorted({cell["commit"] for cell in cells}),
        "hardware": sorted({cell["hardware"] for cell in cells}),
        "commands": sorted({cell["command"] for cell in cells}),
    }


def page(rows: Sequence[Row], failed: Sequence[Row]) -> str:
    """The page in Markdown."""
    tables: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        tables.setdefault((row["dataset"], row["minutes"]), []).append(row)
    text = ["# Settings of the generator on one footing", ""]
    for (dataset, minutes), found in tables.items():
        text += [f"## {dataset}, {minutes:g} CPU minutes", "", *_table(found), ""]
    if failed:
        text += ["## Not finished", ""]
        text += [
            f"- {f['dataset']}, {f['minutes']:g} minutes, {f['row']}, seed {f['seed']}: {f['reason']}" for f in failed
        ]
        text += [""]
    text += [_LEGEND, *(f"- {name}: {meaning}." for name, meaning in COLUMNS.items())]
    for name in ("commands", "hardware"):
        text += ["", f"{name.capitalize()}: {'; '.join(sorted({one for row in rows for one in row[name]}))}"]
    return "\n".join([*text, ""])


def _table(rows: Sequence[Row]) -> list[str]:
    """One table, with the number of images or crops behind each column."""
    images = _span([row["images"] for row in rows])
    crops, pairs = (_span([row["made"][name] for row in rows]) for name in ("n", "cases"))
    counts = [*[images] * 4, *[crops] * 10, "", ""]
    heads = [f"{name} (n = {n})" if n else name for name, n in zip(COLUMNS, counts, strict=True)]
    lines = [f"| setting | seeds | {' | '.join(heads)} | commit |", "|---|---:|" + "---:|" * len(heads) + "---|"]
    lines += [
        f"| {row['row']} | {len(row['seeds'])} | {' | '.join(_numbers(row))} | {', '.join(row['commits'])} |"
        for row in rows
    ]
    first = rows[0]["test"]
    of_real = [_digits(first["agreement"]), "", *_looks(first), "", ""]
    lines += [f"| real crops (n = {first['n']:.0f}) | | | | | | {' | '.join(of_real)} | |", ""]
    dice = ", ".join(sorted({f"{row['real']['mean']:.4f}" for row in rows}))  # differs if the rows' seeds do
    return [
        *lines,
        f"n: images of the test set; crops of {pairs} pairs, and of {first['cases']:.0f} images or volumes of the test",
        f"set. nnU-Net trained on real cases has a Dice of {dice}.",
    ]


def _numbers(row: Row) -> list[str]:
    made, scores = row["made"], []
    for arm, difference in (("synthetic", "minus_real"), ("segmenter", "segmenter_minus_real")):
        change = row[difference]
        scores += [f"{row[arm]['mean']:.4f}", f"{change['mean']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]"]
    return [
        *scores, _digits(made["agreement"]), _digits(made["kernel_distance"]), *_looks(made),
        f"{row['run']['steps']:.0f}", f"{row['run']['evaluations']:.0f}",
    ]  # fmt: skip


def _looks(numbers: Mapping[str, float]) -> list[str]:
    near = f"{_digits(numbers['nearest'])} ({100 * numbers['below_ratio']:.0f} %)"
    return [*(_digits(numbers[name]) for name in (*OF_OBJECTS, "quadrants", "spread")), near]


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _digits(value: float) -> str:
    return f"{value:.3g}"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"

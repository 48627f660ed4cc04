"""The table and the plot of quality against network evaluations (`step_quality`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdm.evaluation.figures import COLOURS
from jdm.evaluation.tables import Table, table_markdown

Rows = Sequence[Mapping[str, Any]]
Real = Mapping[str, Mapping[str, Sequence[float]]]
_TITLES = {
    "kernel_distance": "kernel distance",
    "agreement": "agreement",
    "share_distance": "share distance",
}
_FACTORS = {"kernel_distance": 1.0, "agreement": 1.0, "share_distance": 100.0}
_LINES = (("training", "training images", "--"), ("other", "other real images", ":"))
_SHADES = (*(COLOURS[index] for index in (4, 5, 2, 1, 6, 0, 8, 9)), (90, 90, 90))  # no colour too pale for a line
_MARKERS = "osD^vP*Xd"
_TICKS = (5, 10, 20, 50, 100, 250, 1000)


def step_table(rows: Rows, real: Real) -> str:
    """Markdown: a row per sampler and number of steps, then real images; * marks ties with the best."""
    header = ("sampler", "steps", "evaluations", "CPU s per pair", *_TITLES.values())
    ordered = sorted(rows, key=lambda row: (row["sampler"], row["evaluations"]))
    cells = [
        (
            str(row["sampler"]), str(row["steps"]), f"{row['evaluations']:g}", f"{row['seconds_per_pair']:.3f}",
            *(_cell(metric, list(row[metric].values())) + " *" * (metric in row["ties"]) for metric in _TITLES),
        )
        for row in ordered
    ]  # fmt: skip
    cells += [(title, "", "", "", *(_cell(m, real[name][m]) for m in _TITLES)) for name, title, _ in _LINES]
    return table_markdown(Table("quality against network evaluations", header, tuple(cells)))


def fewest_evaluations(rows: Rows) -> Mapping[str, Any] | None:
    """The row with the fewest evaluations that ties with the best in every number; None if no row does."""
    level = [row for row in rows if set(row["ties"]) == set(_TITLES)]
    return min(level, key=lambda row: row["evaluations"], default=None)


def draw_steps(rows: Rows, real: Real, path: Path) -> None:
    """Write a PNG: each number against evaluations, a line per sampler, with the numbers of real images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5), layout="constrained")
    panels = figure.subplots(1, len(_TITLES))
    for axes, (metric, title) in zip(panels, _TITLES.items(), strict=True):
        for number, sampler in enumerate(dict.fromkeys(row["sampler"] for row in rows)):
            own = sorted((row for row in rows if row["sampler"] == sampler), key=lambda row: row["evaluations"])
            x = [row["evaluations"] for row in own]
            value, low, high = ([row[metric][key] for row in own] for key in ("value", "low", "high"))
            shade = tuple(channel / 255 for channel in _SHADES[number % len(_SHADES)])
            marker = _MARKERS[number % len(_MARKERS)]
            axes.plot(x, value, marker=marker, color=shade, label=sampler, markersize=4)
            axes.fill_between(x, low, high, color=shade, alpha=0.12, linewidth=0)
        for name, label, style in _LINES:
            value, low, high = real[name][metric]
            axes.axhline(value, color="0.2", linestyle=style, label=label)
            axes.axhspan(low, high, color="0.2", alpha=0.06, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(_TICKS, [str(tick) for tick in _TICKS], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlim(0.9 * min(row["evaluations"] for row in rows), 1.1 * max(row["evaluations"] for row in rows))
        axes.set_xlabel("network evaluations per pair")
        axes.set_title(f"{title} ({'more' if metric == 'agreement' else 'less'} is better)")
        axes.grid(alpha=0.3)
        if metric == "kernel_distance":  # may be negative
            axes.set_yscale("symlog", linthresh=max(real["training"][metric][2], 1e-6))
        elif metric == "share_distance":
            axes.set_yscale("log")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _cell(metric: str, estimate: Sequence[float]) -> str:
    value, low, high = (_FACTORS[metric] * number for number in estimate)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"

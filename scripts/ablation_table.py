"""The page of scripts/ablation.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = {
    "synthetic minus real": "Dice of nnU-Net trained on the pairs alone, minus that trained on real cases for as many "
    "updates; in brackets the Dice itself",
    "segmenter": "Dice of the model's own segmentations of the test images",
    "agreement": "Dice of the real-trained nnU-Net's segmentations of the pairs with their masks",
    "kernel": "kernel distance of its features to those of real crops (KID)",
    "share, count, area, roughness": "of the masks' objects, over those of real crops",
    "specks": "share of the objects under 20 pixels, %",
    "quadrants": "how the mean colour of a canvas's quadrants differs, over that of real crops",
    "spread": "how the mean colour differs between canvases, over that of real crops",
    "nearest": "distance of pairs to the nearest training crop, over that of held-out real ones",
    "steps": "of training",
    "evaluations": "of the network per pair",
}


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a table for every dataset and training time, a row for every setting, means over seeds."""
    lines = ["# Settings of the generator on one footing", ""]
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["dataset"], cell["minutes"]), []).append(cell)
    for (dataset, minutes), found in sorted(groups.items()):
        one, real_dice = found[0], np.mean([cell["real_dice"] for cell in found])
        lines += [
            f"## {dataset}, {minutes:g} minutes", "",
            f"Scored on {one['test_images']} test images; nnU-Net trained on real cases: "
            f"{real_dice:.4f}; agreement of real crops: {one['real_agreement']:.3f}; "
            f"specks of real masks: {100 * one['real_specks']:.1f} %; {one['pairs']} crops a row.", "",
            f"| setting | seeds | {' | '.join(COLUMNS)} |", "|---|---:|" + "---:|" * len(COLUMNS),
        ]  # fmt: skip
        rows: dict[str, list[Mapping[str, Any]]] = {}
        for cell in found:
            rows.setdefault(cell["row"], []).append(cell)
        ordered = sorted(rows.items(), key=lambda row: -float(np.mean([cell["synthetic_dice"] for cell in row[1]])))
        lines += [f"| {name} | {len(of_row)} | {' | '.join(_row(of_row))} |" for name, of_row in ordered] + [""]
    lines += [f"- {name}: {meaning}." for name, meaning in COLUMNS.items()]
    commits = sorted({cell["commit"] for cell in cells})
    hardware = sorted({cell["hardware"] for cell in cells})
    lines += ["", f"Made by `{cells[0]['command']}` at commit {', '.join(commits)}; {'; '.join(hardware)}.", ""]
    return "\n".join(lines)


def _row(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    def mean(name: str) -> float:
        return float(np.mean([cell[name] for cell in cells]))

    def over_real(name: str) -> str:
        return f"{mean(name) / mean('real_' + name):.2f}"

    gain = mean("synthetic_dice") - mean("real_dice")
    return [
        f"{gain:+.4f} ({mean('synthetic_dice'):.4f})", f"{mean('segmenter_dice'):.4f}", f"{mean('agreement'):.3f}",
        f"{mean('kernel_distance'):.2f}", ", ".join(over_real(n) for n in ("share", "count", "area", "roughness")),
        f"{100 * mean('specks'):.1f}", over_real("quadrants"), over_real("spread"), f"{mean('nearest'):.2f}",
        f"{mean('steps'):.0f}", f"{mean('evaluations'):.0f}",
    ]  # fmt: skip

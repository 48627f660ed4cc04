"""What an experiment hands over: results.json, results.md and pictures of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from jdm.evaluation.statistics import Interval, holm, mean_interval, paired_difference
from jdm.system.machine import describe_run
from nnunet_integration.arms import DESCRIPTIONS, ArmName, Resolved

COMPARISONS: tuple[tuple[ArmName, ArmName], ...] = (
    ("synthetic", "real"),
    ("pretrain-finetune", "real"),
    ("mix", "real"),
    ("real-long", "real"),
    ("pretrain-finetune", "real-long"),
    ("mix", "real-long"),
)
METRICS = ("dice", "iou")
NOT_LEARNED = 0.05
"""Below this mean Dice a class counts as not learned: nnU-Net predicts background alone before it learns."""


def circumstances() -> dict[str, Any]:
    """Command, commit (None outside a checkout), versions and hardware of this process."""
    import torch

    run = describe_run()
    return {
        "command": run.command,
        "commit": run.commit or None,
        "versions": {name: version(name) for name in ("jdm", "nnunetv2", "numpy")} | {"torch": torch.__version__},
        "hardware": {"cpu": run.cpu, "cores": run.cores, "gpu": list(run.gpus)},
    }


def score_table(scores: dict[int, dict[str, Any]], metric: str, label: str | None = None) -> np.ndarray:
    """Scores of one arm, shape (seeds, images), images sorted by id; the mean of the classes that define it.

    Args:
        scores: `Evaluation.to_dict()` per seed.
        label: one class instead of the mean of all.
    """
    rows = []
    for evaluation in scores.values():
        images: dict[str, list[float]] = {}
        for case in evaluation["cases"]:
            values = images.setdefault(case["case_id"], [])
            if case[metric] is not None and label in (None, case["label"]):
                values.append(case[metric])
        rows.append([float(np.mean(images[key])) if images[key] else np.nan for key in sorted(images)])
    return np.array(rows)


def summarise(
    settings: Resolved,
    arms: dict[ArmName, dict[str, Any]],
    scores: dict[ArmName, dict[int, dict[str, Any]]],
    group_of: Mapping[str, str],
) -> dict[str, Any]:
    """The numbers of results.json.

    Args:
        arms: updates, padding and minutes of each arm.
        scores: `Evaluation.to_dict()` by arm and seed.
        group_of: patient or the like of each case. Groups are resampled whole; if all cases are of one, cases are.
    """
    tables: dict[ArmName, dict[str, np.ndarray]] = {
        arm: {metric: score_table(scores[arm], metric) for metric in METRICS} for arm in scores
    }
    first = next(iter(next(iter(scores.values())).values()))
    labels = [entry["label"] for entry in first["classes"]]
    groups = [group_of[case_id] for case_id in sorted({case["case_id"] for case in first["cases"]})]
    units = groups if len(set(groups)) > 1 else None
    summary: dict[str, Any] = {"settings": settings.to_dict(), "arms": {}}
    for arm, facts in arms.items():
        per_seed = {
            seed: {name: evaluation[name] for name in ("mean_dice", "mean_iou", "micro_dice", "micro_iou")}
            for seed, evaluation in scores[arm].items()
        }
        classes = {label: _mean(score_table(scores[arm], "dice", label), units) for label in labels}
        means = {metric: _mean(tables[arm][metric], units) for metric in METRICS}
        summary["arms"][arm] = {**facts, **means, "dice_per_class": classes, "per_seed": per_seed}
    summary["images"], summary["groups"] = len(groups), len(set(groups))
    summary["differences"] = _differences(tables, units)
    summary["not_learned"] = _not_learned(summary["arms"])
    return summary


def _not_learned(arms: dict[str, Any]) -> list[str]:
    """Arms and classes too poor for any difference between arms to speak about synthetic pairs."""
    return [
        f"{arm}: {label}"
        for arm, facts in arms.items()
        for label, dice in facts["dice_per_class"].items()
        if dice is not None and dice["mean"] < NOT_LEARNED
    ]


def warning_lines(results: dict[str, Any]) -> list[str]:
    """What a reader must know before the differences; empty if every arm learned every class."""
    if not results["not_learned"]:
        return []
    return [
        f"Not learned (mean Dice below {NOT_LEARNED}): {'; '.join(results['not_learned'])}. Such differences say "
        "nothing about synthetic pairs; train longer (--iterations)."
    ]


def notes(results: dict[str, Any]) -> list[str]:
    """How the generator depends on the scored cases; empty if it does not."""
    data = results["data"]
    if not (chosen := len(data["chose_generator"])):
        return []
    return [
        f"{chosen} of the {data['test_cases']} scored cases chose the generator's weights (held-out loss); they were "
        "not trained on."
    ]


def _mean(table: np.ndarray, units: Sequence[str] | None) -> dict[str, Any] | None:
    return asdict(mean_interval(table, groups=units)) if np.isfinite(table).any() else None


def _differences(tables: dict[ArmName, dict[str, np.ndarray]], units: Sequence[str] | None) -> list[dict[str, Any]]:
    found = []
    for arm, other in COMPARISONS:
        if arm in tables and other in tables:
            intervals = {m: paired_difference(tables[arm][m], tables[other][m], groups=units) for m in METRICS}
            found.append({"arm": arm, "minus": other, **{m: asdict(i) for m, i in intervals.items()}})
    adjusted = holm([entry["dice"]["p_wilcoxon"] for entry in found])
    for entry, p in zip(found, adjusted, strict=True):
        entry["dice"]["p_holm"] = p
    return found


def markdown(results: dict[str, Any]) -> str:
    """The results as tables that can be read without the JSON."""
    settings, data = results["settings"], results["data"]
    seeds = len(next(iter(results["arms"].values()))["per_seed"])
    lines = [
        f"# {settings['real']}, fold {settings['fold']}: do synthetic pairs help?",
        "",
        f"{data['training_cases']} real and {data['synthetic_cases']} synthetic training cases; scored on "
        f"{results['images']} images ({data['test_set']}) at native size; {seeds} seed(s). "
        f"{settings_line(settings, results['stock'], results['patch_note'])}",
        "",
        *(line for note in results["notes"] for line in (note, "")),
        "| arm | | updates on real | on synthetic | padding | Dice | IoU |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for arm, facts in results["arms"].items():
        dice, iou = facts["dice"], facts["iou"]
        lines.append(
            f"| {arm} | {DESCRIPTIONS[arm]} | {facts['updates_real']:.0f} | {facts['updates_synthetic']:.0f} | "
            f"{100 * facts['padding_share']:.0f} % | {_cell(dice)} | {_cell(iou)} |"
        )
    lines += ["", f"Means over images of the mean over seeds, with 95 % bootstrap intervals {unit(results)}.", ""]
    lines += [line for warning in warning_lines(results) for line in (f"**{warning}**", "")]
    if results["differences"]:
        lines += ["| difference in Dice | mean [95 % interval] | p (Wilcoxon) | p (Holm) |", "|---|---:|---:|---:|"]
        for entry in results["differences"]:
            dice = entry["dice"]
            lines.append(
                f"| {entry['arm']} minus {entry['minus']} | {dice['mean']:+.4f} [{dice['low']:+.4f}, "
                f"{dice['high']:+.4f}] | {dice['p_wilcoxon']:.3g} | {dice['p_holm']:.3g} |"
            )
        lines += ["", f"Paired, seeds averaged within an image first; intervals and p are {unit(results)}.", ""]
    return "\n".join([*lines, *_class_table(results), *_footer(results)]) + "\n"


def unit(results: dict[str, Any]) -> str:
    """What intervals and p-values are over."""
    images, groups = results["images"], results["groups"]
    if groups == images:
        return f"over {images} images"
    kind = "patient, sequence or the like, by conversion.json"
    if groups == 1:
        return f"over {images} images, all of one group ({kind}): they say nothing about another one"
    return f"over {groups} groups of images, resampled whole ({kind})"


def settings_line(settings: dict[str, Any], stock: dict[str, Any], patch_note: str) -> str:
    """Patch, batch, network and device of all arms, and what the plans have where that differs.

    Args:
        patch_note: a sentence on the patch that nobody asked for; may be empty.
    """
    ours, theirs = _sizes(settings), _sizes(stock)
    changed = "" if ours == theirs else f" (the plans have {theirs})"
    mirroring = "with" if settings["mirroring"] else "without"
    return (
        f"All arms: configuration {settings['configuration']} of {settings['plans']}, {ours}{changed}; predicted "
        f"{mirroring} mirroring; on {settings['device']}." + (f" {patch_note}" if patch_note else "")
    )


def _sizes(values: dict[str, Any]) -> str:
    patch = "x".join(str(side) for side in values["patch_size"])
    features = " ".join(str(channels) for channels in values["network_features"])
    return f"patch {patch}, batch {values['batch_size']}, channels {features}"


def _cell(interval: dict[str, Any] | None) -> str:
    if interval is None:
        return "undefined"
    return f"{interval['mean']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def _class_table(results: dict[str, Any]) -> list[str]:
    labels = list(next(iter(results["arms"].values()))["dice_per_class"])
    if len(labels) == 1:
        return []
    lines = ["| Dice | " + " | ".join(labels) + " |", "|---|" + "---:|" * len(labels)]
    for arm, facts in results["arms"].items():
        cells = [facts["dice_per_class"][label] for label in labels]
        lines.append(f"| {arm} | " + " | ".join(f"{c['mean']:.4f}" if c else "undefined" for c in cells) + " |")
    return [*lines, ""]


def _footer(results: dict[str, Any]) -> list[str]:
    hardware = results["hardware"]
    machine = ", ".join([f"{hardware['cores']} cores of {hardware['cpu']}", *hardware["gpu"]])
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    minutes = sum(facts["minutes"] for facts in results["trainings"].values())
    return [
        f"Made by `{results['command']}` at commit {results['commit'] or 'unknown'}; {versions}; {machine}; "
        f"{minutes:.1f} minutes of training."
    ]


def interval_text(entry: dict[str, Any]) -> str:
    """One line for the terminal: the difference between two arms."""
    dice = entry["dice"]
    interval = Interval(dice["mean"], dice["low"], dice["high"], dice["p_wilcoxon"], dice["n"])
    return f"{entry['arm']} minus {entry['minus']}: {interval}"

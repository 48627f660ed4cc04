"""An experiment's results as text: results.md, and the provenance in results.json."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from jdm.evaluation.tables import Table, table_markdown
from jdm.system.machine import describe_run
from nnunet_integration.arms import DESCRIPTIONS
from nnunet_integration.study_words import study_tables
from nnunet_integration.verdict import NOT_LEARNED, cell, tested, unit


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


def markdown(results: Mapping[str, Any]) -> str:
    """The results in Markdown, the verdict first, with tables that can be read without the JSON."""
    settings, data = results["settings"], results["data"]
    paragraphs = [
        results["verdict"],
        f"# {settings['real']}, fold {settings['fold']}: do synthetic pairs help?",
        f"{data['training_cases']} real and {data['synthetic_cases']} synthetic training cases; scored on "
        f"{results['images']} images ({data['test_set']}) at native size. "
        f"{settings_line(settings, results['stock'], results['patch_note'])}",
        *results["notes"],
        *(f"**{warning}**" for warning in warning_lines(results)),
        *(f"**{table.caption}**\n\n{table_markdown(table)}".rstrip() for table in tables(results)),
        _footer(results),
    ]
    return "\n\n".join(paragraphs) + "\n"


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Tables of arms, differences, classes and false positives, each with its number of cells."""
    cells = results["cells"]
    over = f"the {cells['with_class']} cells (image x class) whose reference has the class"
    found = [_arm_table(results, over)]
    if results["differences"]:
        found.append(_difference_table(results, over))
    if len(cells["per_class"]) > 1:
        found.append(_class_table(results))
    if cells["without_class"]:
        found.append(_false_positive_table(results))
    return found + study_tables(results)


def warning_lines(results: Mapping[str, Any]) -> list[str]:
    """Warnings to read before the differences; empty if every arm learned every class."""
    if not results["not_learned"]:
        return []
    return [
        f"Not learned (mean Dice below {NOT_LEARNED}): {'; '.join(results['not_learned'])}. Differences that involve "
        "them say nothing about synthetic pairs; train longer (--iterations)."
    ]


def notes(data: Mapping[str, Any]) -> list[str]:
    """Warnings if scored cases selected the generator's weights, or it was trained on their images.

    Args:
        data: the entry "data" of results.json.
    """
    found, count = [], data["test_cases"]
    if seen := len(data["transductive"]):
        found.append(
            f"Transductive: the generator was trained on images, without masks, of {seen} of the {count} scored cases "
            "or other cases held out; on new cases the pairs may help less."
        )
    if chosen := len(data["chose_generator"]):
        found.append(
            f"{chosen} of the {count} scored cases were used to select the generator's weights (held-out loss), but "
            "not to train them."
        )
    return found


def settings_line(settings: Mapping[str, Any], stock: Mapping[str, Any], patch_note: str) -> str:
    """Patch, batch, network and device of all arms, and the plans' values if they differ.

    Args:
        patch_note: reason why the default patch is smaller than the plans'; may be empty.
    """
    ours, theirs = _sizes(settings), _sizes(stock)
    changed = "" if ours == theirs else f" (the plans have {theirs})"
    mirroring = "with" if settings["mirroring"] else "without"
    return (
        f"All arms: configuration {settings['configuration']} of {settings['plans']}, {ours}{changed}; predicted "
        f"{mirroring} mirroring; on {settings['device']}." + (f" {patch_note}" if patch_note else "")
    )


def difference_line(entry: Mapping[str, Any]) -> str:
    """One line for the terminal: the difference in Dice between two arms."""
    return f"{entry['arm']} minus {entry['minus']}: {cell(entry['dice'], '+')}"


def _arm_table(results: Mapping[str, Any], over: str) -> Table:
    rows = tuple(
        (
            arm, DESCRIPTIONS[arm], f"{facts['updates_real']:.0f}", f"{facts['updates_synthetic']:.0f}",
            f"{100 * facts['padding_share']:.0f} %", cell(facts["dice"]), cell(facts["iou"]),
        )
        for arm, facts in results["arms"].items()
    )  # fmt: skip
    caption = f"Mean over {over}, and over seeds ({len(results['seeds'])}); 95 % intervals over {unit(results)}"
    header = ("arm", "trained on", "updates on real", "on synthetic", "padding", "Dice", "IoU")
    return Table(caption, header, rows)


def _difference_table(results: Mapping[str, Any], over: str) -> Table:
    header = ["difference in Dice", "mean [95 % interval]", "p (Holm)", "smallest detectable"]
    rates = bool(results["cells"]["without_class"])
    if rates:
        header += ["in false-positive rate", "p (Holm)"]
    rows = []
    for entry in results["differences"]:
        dice, rate = entry["dice"] or {}, entry["false_positive_rate"] or {}
        counts = entry in tested(results)
        cells = [cell(entry["dice"], "+"), _number(dice.get("p_holm"), ".3g", counts)]
        cells.append(_number(dice.get("detectable"), ".4f", counts))
        if rates:
            cells += [cell(entry["false_positive_rate"], "+"), _number(rate.get("p_holm"), ".3g", counts)]
        rows.append((f"{entry['arm']} minus {entry['minus']}", *cells))
    caption = f"Differences over {over}, the same for both arms; those with a p value test whether synthetic pairs help"
    return Table(caption, tuple(header), tuple(rows))


def _class_table(results: Mapping[str, Any]) -> Table:
    compared = tested(results)
    rows = []
    for label, counts in results["cells"]["per_class"].items():
        own = [facts["dice_per_class"][label] for facts in results["arms"].values()]
        means = [_number(dice and dice["mean"], ".4f") for dice in own]
        differences = [cell(entry["dice_per_class"][label], "+") for entry in compared]
        rows.append((label, str(counts["with_class"]), *means, *differences))
    header = ("class", "cells", *results["arms"], *(f"{e['arm']} minus {e['minus']}" for e in compared))
    return Table("Dice per class, over the images whose reference has it", header, tuple(rows))


def _false_positive_table(results: Mapping[str, Any]) -> Table:
    rows = [
        (arm, cell(facts["false_positive_rate"]), f"{facts['false_positive_volume']:.1f}")
        for arm, facts in results["arms"].items()
    ]
    caption = (
        f"False positives in the {results['cells']['without_class']} cells whose reference lacks the class: share of "
        "cells with a prediction, and its mean size; lower is better"
    )
    return Table(caption, ("arm", "rate [95 % interval]", "mean predicted (pixels, or mm³ of volumes)"), tuple(rows))


def _sizes(values: Mapping[str, Any]) -> str:
    patch = "x".join(str(side) for side in values["patch_size"])
    features = " ".join(str(channels) for channels in values["network_features"])
    return f"patch {patch}, batch {values['batch_size']}, channels {features}"


def _number(value: float | None, form: str, wanted: bool = True) -> str:
    """A formatted number; empty if it is not wanted."""
    return "" if not wanted else "undefined" if value is None else f"{value:{form}}"


def _footer(results: Mapping[str, Any]) -> str:
    hardware = results["hardware"]
    machine = ", ".join([f"{hardware['cores']} cores of {hardware['cpu']}", *hardware["gpu"]])
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    minutes = sum(facts["minutes"] for facts in results["trainings"].values())
    return (
        f"Made by `{results['command']}` at commit {results['commit'] or 'unknown'}; {versions}; {machine}; "
        f"{minutes:.1f} minutes of training."
    )

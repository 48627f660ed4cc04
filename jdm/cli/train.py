"""jdm-train: plan a run from the dataset and train it."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tyro

from jdm.cli import run_command
from jdm.config.settings import Settings
from jdm.errors import ConfigError
from jdm.train.request import TrainRequest

if TYPE_CHECKING:
    from jdm.plan.rules import Plan
    from jdm.train.checkpoint import Checkpoint

_FEW_STEPS = 500
"""Masks are full of specks after about a hundred steps, but not after several hundred (observed on nuclei)."""
_EXPORT_MINUTES = 10
_PARTS = ("codec", "data", "augment", "network", "noise", "diffusion", "train")


def main() -> None:
    run_command(_run, tuned_memory=True)


def _run() -> None:
    request = parse(sys.argv[1:])
    import jdm
    from jdm.system.processes import launch
    from jdm.train.checkpoint import run_folder

    if request.dry_run:
        print(plan_table(jdm.plan(request)))
        return
    checkpoint = jdm.train(request)
    if launch().rank > 0:  # the group has ended
        return
    metadata = checkpoint.metadata
    folder = run_folder(metadata["dataset"], request.run)
    held_out = metadata["held_out_loss"]
    measured = "not measured" if held_out is None else f"{held_out:.4f}"
    from jdm.evaluation.figures import curves
    from jdm.train.log import read_log

    curves(folder / "log.csv", folder / "curves.png", metadata["step"])
    print(f"weights of step {metadata['step']} (held-out loss {measured}) are in {folder}")
    done, ceiling = int(read_log(folder / "log.csv")[-1]["step"]), checkpoint.config.train.steps
    if done < _FEW_STEPS and checkpoint.config.mask_channels:
        more = "train again with more --train.steps" if ceiling <= done else "continue with --resume and"
        more += " --overwrite" if ceiling <= done else " a larger --budget-minutes"
        print(f"jdm-train: note: {done} steps are few: masks may be full of specks; {more}", file=sys.stderr)
    count, minutes = affordable_count(checkpoint)
    print(
        f"next: jdm-export {request.dataset} {request.run} --count {count} --id NEW_ID  (about {minutes:.0f} minutes)"
    )


def affordable_count(checkpoint: Checkpoint) -> tuple[int, float]:
    """A round number of pairs that a machine like this one exports in a few minutes, and the minutes."""
    from jdm.draw.cost import evaluations, windows
    from jdm.export.request import ExportRequest, export_way

    config, metadata = checkpoint.config, checkpoint.metadata
    canvas, request = config.data.canvas_size, ExportRequest("", id=1)
    # A sample that is only denoised takes about a third of the time of a trained one.
    denoised = 60 * metadata["minutes"] / max(metadata["step"], 1) / config.train.batch_size / 3
    each = evaluations(config, request, export_way(config, request, canvas)) * windows(config, request, canvas)
    pair = max(each * config.facts.slices * denoised, 1e-6)
    count = max(1, min(1000, int(60 * _EXPORT_MINUTES / pair)))
    unit = 10 ** (len(str(count)) - 1)
    count = count // unit * unit
    return count, max(count * pair / 60, 1)


def parse(arguments: Sequence[str]) -> TrainRequest:
    """The request of a command line, from the command's own flags and the flags of settings."""
    request, rest = tyro.cli(TrainRequest, prog="jdm-train", args=arguments, return_unknown_args=True)
    return dataclasses.replace(request, settings=settings_of(rest))


def settings_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Nested settings from flags such as --train.steps 5. Raises: ConfigError for an unknown flag."""
    if not arguments:
        return {}
    names = [word.split("=")[0].removeprefix("--").replace("-", "_") for word in arguments if word.startswith("--")]
    unknown = [name for name in names if name.split(".")[0] not in _PARTS]
    if unknown or not arguments[0].startswith("--"):
        found = f"--{unknown[0].replace('_', '-')}" if unknown else arguments[0]
        raise ConfigError(
            f"unknown argument {found!r}; expected a flag of jdm-train --help or a plan setting "
            f"(--{', --'.join(_PARTS)} followed by .NAME); see jdm-train DATASET FOLD --dry-run"
        )
    words = [re.sub("(^|=)none$", r"\1None", word) for word in arguments]  # as tyro spells it
    parsed = dataclasses.asdict(tyro.cli(Settings, args=words, prog="jdm-train"))
    given: dict[str, Any] = {}
    for name in names:
        part, _, key = name.partition(".")
        key = key if key in parsed[part] else key.removeprefix("no_")
        value = parsed[part][key]
        given.setdefault(part, {})[key] = list(value) if isinstance(value, tuple) else value
    return given


def plan_table(found: Plan) -> str:
    """The plan as a table of decision, value and reason, followed by the expected training time."""
    from jdm.config.files import flat, to_dict

    config = found.config
    values = flat(to_dict(config))
    rows = [(name, _shown(values[name]), reason) for name, reason in found.reasons.items() if name in values]
    widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {reason}" for name, value, reason in rows]
    facts = config.facts
    clipped = ", ".join(f"{name} {share:.2%}" for name, share in zip(facts.labels, facts.clipped, strict=True))
    overall = sum(share * part for share, part in zip(facts.class_shares, facts.clipped, strict=True))
    lines += ["", f"{facts.cases} cases, {facts.items} images or slices; clipped intensities {overall:.2%} ({clipped})"]
    return "\n".join([*lines, found.expectation])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)

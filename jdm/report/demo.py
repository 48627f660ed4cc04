"""The report on a demo: its experiment, and the commands that led there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jdm.errors import DataError
from jdm.evaluation.tables import Table
from jdm.report.content import Report, Section
from jdm.report.experiment import RESULTS, experiment_report
from jdm.report.read import contents_of, read_object

STEPS = "demo.json"
_NOTE = (
    "All test tiles come from one field of one microscope, and the networks are small and trained briefly. This shows "
    "that the pipeline works, not how much synthetic pairs help elsewhere. Nuclei on the middle line lie in both "
    "halves."
)


def demo_report(folder: Path) -> Report:
    """The report on a jdm-demo folder. Raises: DataError if it is unfinished, or a part is damaged."""
    runs = folder / "jdm_results"
    finished = sorted(runs.glob(f"*/experiment_*/{RESULTS}"))
    if not finished or not (folder / STEPS).is_file():
        raise DataError(
            f"{folder}: is an unfinished demo; expected the results of its four commands; repeat jdm-demo with "
            "--overwrite"
        )
    found = experiment_report(finished[0].parent, folder / "nnUNet_raw", runs)
    content = read_object(folder / STEPS)
    with contents_of(folder / STEPS):
        setup, steps = list(map(str, content["setup"])), content["steps"]
        commands = [str(step["command"]) for step in steps]
        rows = tuple((str(step["command"]), f"{step['seconds'] / 60:.1f}") for step in steps)
        minutes = sum(step["seconds"] for step in steps) / 60
    effect, *others = found.sections
    effect = dataclasses.replace(effect, notes=(_NOTE, *effect.notes))
    times = Section("Time", tables=(Table(f"{minutes:.1f} minutes in all", ("command", "minutes"), rows),))
    return dataclasses.replace(
        found, kind="demo", title="jdm demo: half a field of nuclei", sections=(effect, *others, times),
        commands=(*setup, *commands),
    )  # fmt: skip

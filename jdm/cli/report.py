"""`jdm-report`: one page about any folder that jdm wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class ReportArguments:
    """Write report.html, one page that opens anywhere, and report.json, the same content as data."""

    folder: tyro.conf.Positional[Path]
    """Folder of an experiment, a comparison of classifiers, a synthetic dataset, an evaluation, an audit, a run or a
    demo."""
    like: str | None = None
    """Id or name of the real dataset, whose cases are then shown beside synthetic pairs: the page holds patients."""
    out: Path | None = None
    """Folder for the two files. Default: the same folder."""


def main() -> None:
    """Entry point of `jdm-report`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    arguments = tyro.cli(ReportArguments, prog="jdm-report", config=config)
    run_command(lambda: run(arguments))


def run(arguments: ReportArguments) -> None:
    """Write the report and print its path."""
    from jdm.data.raw_dataset import open_dataset
    from jdm.report.folder import report_folder

    real = None if arguments.like is None else open_dataset(arguments.like)
    print(report_folder(arguments.folder, arguments.out, real))

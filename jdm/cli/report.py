"""`jdm-report`: one self-contained HTML file about a folder that jdm wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class ReportArguments:
    """Write report.html, one file that opens offline, and report.json about a folder that jdm wrote."""

    folder: tyro.conf.Positional[Path]
    """Results of jdm-experiment, jdm-classify or jdm-evaluate, a synthetic dataset, or a run of jdm-train."""
    like: str | None = None
    """Id or name of the real dataset, whose cases are shown beside synthetic ones: the report then holds patients."""
    out: Path | None = None
    """Folder for the two files. Default: the folder itself."""


def main() -> None:
    """Entry point of `jdm-report`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    arguments = tyro.cli(ReportArguments, prog="jdm-report", config=config)
    run_command(lambda: run(arguments))


def run(arguments: ReportArguments) -> None:
    """Write the report and print its path."""
    from jdm.data.raw_dataset import open_dataset
    from jdm.evaluation.folder_report import report_folder

    real = None if arguments.like is None else open_dataset(arguments.like)
    print(report_folder(arguments.folder, arguments.out, real))

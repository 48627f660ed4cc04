"""`jdm-classify`: measure whether synthetic images help a classifier."""

from __future__ import annotations

import tyro

from jdm.classify.request import ClassifyOptions
from jdm.cli import run_command


def main() -> None:
    """Entry point of `jdm-classify`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    options = tyro.cli(ClassifyOptions, prog="jdm-classify", config=config)
    run_command(lambda: _run(options), tuned_memory=True)


def _run(options: ClassifyOptions) -> None:
    from jdm.classify.run import classify
    from jdm.report.folder import report_folder

    folder, results = classify(options)
    print(results["verdict"])
    print(f"Results: {folder / 'results.md'}")
    print(f"Report: {report_folder(folder)}")

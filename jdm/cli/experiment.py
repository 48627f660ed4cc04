"""jdm-experiment: measure whether synthetic pairs help nnU-Net."""

from __future__ import annotations

import os
import sys

import tyro

from jdm.cli import run_command
from nnunet_integration.arms import ExperimentOptions


def run(options: ExperimentOptions) -> None:
    # Must be set before torch is imported: spinning threads slow a small, busy machine down many times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    from jdm.data.raw_dataset import nnunet_folder

    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        nnunet_folder(variable)
    from jdm.report.folder import report_folder
    from nnunet_integration.experiment import run_experiment
    from nnunet_integration.report import difference_line, warning_lines

    folder, results = run_experiment(options)
    if results is None:
        print(f"This shard is done; others are still at work in {folder}. The last one writes the results.")
        return
    print(results["verdict"])
    for entry in results["differences"]:
        print(f"Dice, {difference_line(entry)}")
    for line in warning_lines(results):
        print(line, file=sys.stderr)
    print(f"Results: {folder / 'results.md'}")
    print(f"Report: {report_folder(folder)}")


def main() -> None:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    options = tyro.cli(ExperimentOptions, prog="jdm-experiment", config=config)
    run_command(lambda: run(options))

"""jdm-doctor: check the installation or a dataset, and say how to fix what is wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class Doctor:
    """Check the installation and, if named, every file of a dataset.

    Prints each finding with its fix and the commands that it affects.

    Exit status: 0, 1 if something must be fixed, 2 if the dataset does not exist.
    """

    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATASET]")] = None
    """nnU-Net dataset id or name, under $nnUNet_raw."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print every finding, not only the first twenty of each kind."""


def _run() -> None:
    options = tyro.cli(Doctor, prog="jdm-doctor")
    from nnunet_integration.doctor import examine

    report = examine(options.dataset)
    print(report.text(None if options.all else 20), end="")
    if any(finding.must for finding in report.findings):
        sys.exit(1)


def main() -> None:
    run_command(_run)

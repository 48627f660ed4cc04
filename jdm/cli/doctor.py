"""jdm-doctor: what is wrong with this installation or a dataset, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class Doctor:
    """Check the installation and, if named, a dataset: one page to act on, or to paste into a bug report.

    Reads every file of the dataset and changes nothing. Exit status 0: nothing found; 1: findings, each with its
    fix; 2: no such dataset.
    """

    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATASET]")] = None
    """nnU-Net dataset id or name, under $nnUNet_raw."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print every finding instead of the first twenty."""


def run(options: Doctor) -> None:
    from nnunet_integration.doctor import examine

    report = examine(options.dataset)
    print(report.text(None if options.all else 20), end="")
    if report.findings:
        sys.exit(1)


def main() -> None:
    options = tyro.cli(Doctor, prog="jdm-doctor")
    run_command(lambda: run(options))

"""jdm-sample: conditional samples, as files in the dataset's format and a sheet of pictures."""

from __future__ import annotations

import sys

import tyro

from jdm.cli import run_command, with_fold
from jdm.config.command import checked
from jdm.sample.request import MODES

_DESCRIPTION = "Sample conditionally from a trained run; jdm-sample MODE --help lists the options of a mode."


def main() -> None:
    run_command(_run)


def _run() -> None:
    words = [*sys.argv[1:2], *with_fold(sys.argv[2:])]
    request = checked(
        tyro.extras.subcommand_cli_from_dict(MODES, prog="jdm-sample", description=_DESCRIPTION, args=words)
    )
    from jdm.sample.modes import plan_line, sample
    from jdm.system.processes import device_name

    print(plan_line(request, device_name()) if request.dry_run else sample(request, device_name()).summary)

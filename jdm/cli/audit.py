"""`jdm-audit`: are synthetic pairs copies of training cases, and are they distributed like real ones?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class AuditArguments:
    """Audit a synthetic dataset: copies of training cases, and likeness to real ones, beside held-out real cases."""

    synthetic: tyro.conf.Positional[str]
    """Id or name of the synthetic dataset."""
    like: str
    """Id or name of the real dataset that its generator was trained on."""
    held_out: str | None = None
    """Id or name of a dataset of real cases to compare with. Default: cases of --like that were not trained on."""
    out: Path | None = None
    """Folder for audit.json and audit.md. Default: the synthetic dataset's."""


def main() -> None:
    """Entry point of `jdm-audit`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    arguments = tyro.cli(AuditArguments, prog="jdm-audit", config=config)
    run_command(lambda: run(arguments))


def run(arguments: AuditArguments) -> None:
    """Audit, print the verdict, and write the files."""
    from jdm.data.raw_dataset import open_dataset
    from jdm.evaluation.audit_page import verdict, write_audit
    from jdm.evaluation.set_audit import audit_set
    from jdm.report.folder import report_folder

    synthetic = open_dataset(arguments.synthetic)
    others = None if arguments.held_out is None else open_dataset(arguments.held_out)
    found = audit_set(synthetic, open_dataset(arguments.like), others)
    for path in write_audit(found, arguments.out or synthetic.folder):
        print(path)
    print(report_folder(arguments.out or synthetic.folder))
    print(verdict(found))

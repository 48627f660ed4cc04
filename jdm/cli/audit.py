"""`jdm-audit`: are synthetic pairs copies of training cases, and are they distributed like real ones?"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jdm.cli import run_command
from jdm.errors import ConfigError

if TYPE_CHECKING:
    from jdm.data.raw_dataset import RawDataset


@dataclass(frozen=True)
class AuditArguments:
    """Audit a synthetic dataset: copies of training cases, and likeness to real ones, beside held-out real cases."""

    synthetic: tyro.conf.Positional[str]
    """Id or name of the synthetic dataset."""
    like: str
    """Id or name of the real dataset that its generator was trained on."""
    held_out: str | None = None
    """Id or name of a dataset of real cases to compare with. Default: cases of --like that were not trained on."""
    agreement: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Also let nnU-Nets, trained on halves of the real training cases, judge the masks. They are trained once."""
    run: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """The generator's run folder, for membership inference. Default: that in jdm_results, if it is still there."""
    out: Path | None = None
    """Folder for audit.json and audit.md. Default: the synthetic dataset's."""


def main() -> None:
    """Entry point of `jdm-audit`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    arguments = tyro.cli(AuditArguments, prog="jdm-audit", config=config)
    run_command(lambda: run(arguments))


def run(arguments: AuditArguments) -> None:
    """Audit, print the verdict, and write the files."""
    if arguments.agreement:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported
        os.environ.setdefault("nnUNet_def_n_proc", "1")
    from jdm.data.raw_dataset import open_dataset
    from jdm.evaluation.audit_page import verdict, write_audit
    from jdm.evaluation.set_audit import audit_set
    from jdm.report.folder import report_folder

    synthetic = open_dataset(arguments.synthetic)
    others = None if arguments.held_out is None else open_dataset(arguments.held_out)
    real = open_dataset(arguments.like)
    found = audit_set(synthetic, real, others)
    if arguments.agreement:
        from jdm.evaluation.agreement import agreement_summary
        from jdm.system.processes import device_name
        from nnunet_integration.teacher import agreement_of

        judged, teacher = agreement_of(synthetic, real, device_name())
        summary = agreement_summary(judged, teacher.real, teacher.sha256)
        found = dataclasses.replace(found, agreement=summary)
    found = dataclasses.replace(found, membership=_membership(synthetic, real, arguments.run))
    for path in write_audit(found, arguments.out or synthetic.folder):
        print(path)
    print(report_folder(arguments.out or synthetic.folder))
    print(verdict(found))


def _membership(synthetic: RawDataset, real: RawDataset, folder: str | None) -> dict[str, Any]:
    """Membership inference by the generator's run, or why it is left out.

    Raises: ConfigError if the run named is another generator's.
    """
    from jdm.data.provenance import read_generator
    from jdm.draw.run import open_run
    from jdm.sample.membership import membership
    from jdm.system.processes import device_name
    from jdm.train.checkpoint import WEIGHTS, run_folder

    generator = read_generator(synthetic)
    place = Path(folder or run_folder(real.name, generator.get("fold", "all")))
    if folder is None and not (place / WEIGHTS).is_file():
        return {"left_out": f"the generator's run is not in {place.parent.name}/{place.name} of jdm_results; see --run"}
    run = open_run(str(place), "")
    if run.checkpoint.sha256 == generator.get("checkpoint_sha256"):
        return membership(run, real, device_name())
    if folder is None:
        return {"left_out": f"the run {place.name} of jdm_results was trained again after the export; see --run"}
    raise ConfigError(
        f"--run {folder} has checkpoint {run.checkpoint.sha256[:12]}; expected {synthetic.name}'s generator, "
        f"{str(generator.get('checkpoint_sha256'))[:12]}; name that run, or leave --run out"
    )

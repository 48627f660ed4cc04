"""jdm-register: make a synthetic dataset ready for stock nnU-Net commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class Register:
    """Prepare a synthetic dataset for nnU-Net, with the plans of the real dataset it was generated from.

    Plans the real dataset if needed, copies its plans to the synthetic one, preprocesses both, and prints the nnU-Net
    commands to run next. Anything up to date is kept.
    """

    synthetic: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SYNTHETIC")]
    """Id or name of the synthetic dataset, e.g. 511."""
    like: str
    """Id or name of the real dataset, e.g. 11."""
    configuration: str | None = None
    """nnU-Net configuration to preprocess for; by default 3d_fullres for a generator of whole volumes, else 2d."""
    plans: str = "nnUNetPlans"
    """Name of the real dataset's plans."""


def run(options: Register) -> None:
    # Must be set before torch is imported: spinning threads slow a small, busy machine down many times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    from jdm.data.provenance import usual_configuration
    from jdm.data.raw_dataset import nnunet_folder, open_dataset

    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        nnunet_folder(variable)
    real, synthetic = open_dataset(options.like), open_dataset(options.synthetic)
    from nnunet_integration.register import next_commands, register

    print(f"planning and preprocessing {synthetic.name} with the plans of {real.name}", flush=True)
    configuration = options.configuration or usual_configuration(synthetic)
    registered = register(synthetic, real, configuration, options.plans)
    print(f"{registered.cases} cases of {synthetic.name} are preprocessed in {registered.preprocessed}")
    print("Next:")
    for command in next_commands(synthetic, real, registered, options.plans):
        print(f"  {command}")


def main() -> None:
    options = tyro.cli(Register, prog="jdm-register")
    run_command(lambda: run(options))

"""`jdm-convert`: bring a dataset into nnU-Net's raw format."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dataset_conversion.options import MsdOptions, PairsOptions
from jdm.cli import run_command

if TYPE_CHECKING:
    from dataset_conversion.target import Conversion

DESCRIPTION = """Bring annotated images into nnU-Net's raw format, in the folder $nnUNet_raw.

Choose what you have:
  pairs   a folder of images and a folder of masks (PNG, JPEG, BMP or TIFF)
  msd     a task folder of the Medical Segmentation Decathlon (NIfTI)

"jdm-convert pairs --help" shows the options and an example."""


def main() -> None:
    """Entry point of `jdm-convert`."""
    import tyro

    options = tyro.extras.subcommand_cli_from_dict(
        {"pairs": PairsOptions, "msd": MsdOptions},
        prog="jdm-convert",
        description=DESCRIPTION,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    run_command(lambda: _report(options))


def _report(options: PairsOptions | MsdOptions) -> None:
    """Convert, and print what was made and what to type next."""
    print_summary(_convert(options))


def _convert(options: PairsOptions | MsdOptions) -> Conversion:
    if isinstance(options, PairsOptions):
        from dataset_conversion.pairs import convert_pairs

        return convert_pairs(options)
    from dataset_conversion.msd import convert_msd

    return convert_msd(options)


def print_summary(made: Conversion, most_warnings: int = 10) -> None:
    """Folder, counts, ledger and next command on stdout; what needs a look on stderr."""
    for line in made.warnings[:most_warnings]:
        print(f"jdm-convert: note: {line}", file=sys.stderr)
    if len(made.warnings) > most_warnings:
        print(f"jdm-convert: note: {len(made.warnings) - most_warnings} more in the record", file=sys.stderr)
    counts = ", ".join(f"{count} {status}" for status, count in made.counts.items())
    print(f"wrote   {made.folder}")
    print(f"cases   {made.training} training, {made.test} test ({counts})")
    print(f"record  {made.folder / 'conversion.md'}")
    fold = "0" if made.training >= 5 else "all"  # nnU-Net splits five ways
    print(f"next    jdm-train {int(made.folder.name[7:10])} {fold} --budget-minutes 30")

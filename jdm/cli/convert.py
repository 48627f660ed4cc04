"""`jdm-convert`: bring a dataset into nnU-Net's raw format."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from dataset_conversion import options as of
from jdm.cli import run_command

if TYPE_CHECKING:
    from dataset_conversion.target import Conversion

DESCRIPTION = """Bring annotated images into nnU-Net's raw format, in the folder $nnUNet_raw.

Choose the kind of your data. A source is a folder, or the zip or tar file as downloaded. "jdm-convert pairs --help"
shows the options of one kind, with an example. --check reports without writing anything."""
KINDS: dict[str, tuple[type, str]] = {
    "pairs": (of.PairsOptions, "a folder of images and a folder of masks: pictures, or volumes"),
    "msd": (of.MsdOptions, "a task of the Medical Segmentation Decathlon (NIfTI)"),
    "nnunet-v1": (of.NnunetV1Options, "a raw dataset of nnU-Net v1 (NIfTI)"),
    "polyp": (of.PolypOptions, "PraNet's polyp archives: TrainDataset and five test sets"),
    "kvasir-seg": (of.KvasirSegOptions, "Kvasir-SEG: polyps"),
    "clinicdb": (of.ClinicDbOptions, "CVC-ClinicDB: polyps, grouped by sequence"),
    "colondb": (of.ColonDbOptions, "CVC-ColonDB: polyps"),
    "cvc300": (of.Cvc300Options, "CVC-300: polyps"),
    "etis": (of.EtisOptions, "ETIS-LaribPolypDB: polyps"),
    "monuseg": (of.MonusegOptions, "MoNuSeg 2018: nuclei, outlined in XML"),
    "dsb2018": (of.Dsb2018Options, "2018 Data Science Bowl: nuclei"),
    "glas": (of.GlasOptions, "GlaS: glands, grouped by patient"),
    "idrid": (of.IdridOptions, "IDRiD: lesions of the retina"),
    "lidc": (of.LidcOptions, "LIDC-IDRI: lung nodules in CT (DICOM and XML)"),
    "classes": (of.ClassesOptions, "pictures in a folder per class, no masks"),
    "covid-cxr": (of.CovidCxrOptions, "COVID-19 image data collection: X-rays with a class, no mask"),
    "chest-xray": (of.ChestXrayOptions, "chest_xray: NORMAL and PNEUMONIA, no mask"),
}
"""Options of each kind of source, and its line in --help."""
SHEET = "preview.png"
SHEET_CASES = 12


def main() -> None:
    """Entry point of `jdm-convert`."""
    import tyro

    def kind(name: str) -> Any:
        options, line = KINDS[name]
        # one line each in the list of kinds, the whole description in the help of one kind
        brief = None if name in sys.argv[1:2] else line
        return Annotated[options, tyro.conf.subcommand(name, description=brief)]

    options = tyro.cli(
        Union[tuple(kind(name) for name in KINDS)],  # noqa: UP007  # pyright: ignore
        prog="jdm-convert",
        description=DESCRIPTION,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    run_command(lambda: _report(options))


def _report(options: Any) -> None:
    """Convert or check, and print the result and the next command."""
    from jdm.errors import DataError

    made = _converters()[type(options)](options)
    if options.check:
        print(made.report, end="")
        print(f"\nchecked only: nothing was written; {made.folder.name} would have {_cases(made)}")
        if made.problem:
            raise DataError(made.problem)
        return
    write_sheet(made.folder)
    print_summary(made)


def _converters() -> dict[type, Callable[[Any], Conversion]]:
    """The converter of each kind of options."""
    from dataset_conversion import polyps
    from dataset_conversion.chest_xray import convert_chest_xray
    from dataset_conversion.classes import convert_classes
    from dataset_conversion.covid_cxr import convert_covid_cxr
    from dataset_conversion.dsb2018 import convert_dsb2018
    from dataset_conversion.glas import convert_glas
    from dataset_conversion.idrid import convert_idrid
    from dataset_conversion.lidc import convert_lidc
    from dataset_conversion.monuseg import convert_monuseg
    from dataset_conversion.msd import convert_msd
    from dataset_conversion.nnunet_v1 import convert_nnunet_v1
    from dataset_conversion.pairs import convert_pairs

    return {
        of.PairsOptions: convert_pairs, of.MsdOptions: convert_msd, of.NnunetV1Options: convert_nnunet_v1,
        of.PolypOptions: polyps.convert_polyp, of.KvasirSegOptions: polyps.convert_kvasir_seg,
        of.ClinicDbOptions: polyps.convert_clinicdb, of.ColonDbOptions: polyps.convert_colondb,
        of.Cvc300Options: polyps.convert_cvc300, of.EtisOptions: polyps.convert_etis,
        of.GlasOptions: convert_glas, of.Dsb2018Options: convert_dsb2018, of.MonusegOptions: convert_monuseg,
        of.IdridOptions: convert_idrid, of.LidcOptions: convert_lidc, of.CovidCxrOptions: convert_covid_cxr,
        of.ChestXrayOptions: convert_chest_xray, of.ClassesOptions: convert_classes,
    }  # fmt: skip


def write_sheet(folder: Path) -> None:
    """Write a sheet of cases, evenly spaced by id and read back from disk: image, and image with mask outlined."""
    import numpy as np

    from jdm.data.raw_dataset import Pair, read_case, read_dataset, read_image
    from jdm.evaluation.figures import pair_grid

    dataset = read_dataset(folder)
    cases = dataset.cases or dataset.test_cases
    chosen = [cases[i * len(cases) // SHEET_CASES] for i in range(SHEET_CASES)] if len(cases) > SHEET_CASES else cases
    pairs = []
    for case in chosen:
        if dataset.cases:
            pairs.append(read_case(dataset, case))
        else:
            image, spacing, _ = read_image(dataset, case, test=True)
            pairs.append(Pair(case, image, np.zeros(image.shape[1:], np.uint8), spacing))
    pair_grid(pairs, folder / SHEET, columns=4)


def _cases(made: Conversion) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in made.counts.items())
    return f"{made.training} training, {made.test} test ({counts})"


def print_summary(made: Conversion, most_warnings: int = 10) -> None:
    """Print folder, counts, record and next command to stdout, and warnings to stderr."""
    for line in made.warnings[:most_warnings]:
        print(f"jdm-convert: note: {line}", file=sys.stderr)
    if len(made.warnings) > most_warnings:
        print(f"jdm-convert: note: {len(made.warnings) - most_warnings} more in the record", file=sys.stderr)
    print(f"wrote   {made.folder}")
    print(f"cases   {_cases(made)}")
    print(f"record  {made.folder / 'conversion.md'}")
    print(f"look at {made.folder / SHEET}")
    if not made.training:
        print("next    these images have no masks; nnUNetv2_predict can make some from imagesTs")
        return
    classes = "" if (made.folder / "labelsTr").exists() else " --classes classes.csv"
    print(f"next    jdm-train {int(made.folder.name[7:10])} {made.fold}{classes} --budget-minutes 30")

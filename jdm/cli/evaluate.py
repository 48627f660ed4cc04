"""`jdm-evaluate`: score predicted masks against reference masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jdm.cli import run_command


@dataclass(frozen=True)
class EvaluateArguments:
    """Score predicted masks: Dice, IoU and HD95 per case and class."""

    predictions: Path
    """Folder of predicted masks, named like the references."""
    references: Path
    """Folder of reference masks."""
    convention: Literal["nnunet", "thesis", "pranet"] = "nnunet"
    """nnunet: each class. thesis: foreground. pranet: maps at 256 thresholds."""
    dataset: str | None = None
    """nnU-Net dataset whose dataset.json declares the labels."""
    labels: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...", help_behavior_hint="")] = ()
    """All label values, instead of --dataset. Without both, they are read from dataset.json beside the masks."""
    out: Path | None = None
    """Folder for evaluation.json, evaluation.csv, evaluation.md and the report."""
    allow_missing: bool = False
    """Score only the cases that are in both folders."""
    hd95: Annotated[
        bool, tyro.conf.arg(help="Skip the surface distances (HD95, ASSD), the slowest part.", help_behavior_hint="")
    ] = True
    """Compute the 95 % surface distance."""
    empty_hd95: Literal["left-out", "diagonal"] = "left-out"
    """HD95 if only one mask is empty: left out of the mean, or the image diagonal."""


def main() -> None:
    """Entry point of `jdm-evaluate`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    arguments = tyro.cli(EvaluateArguments, prog="jdm-evaluate", config=config)
    run_command(lambda: evaluate(arguments))


def evaluate(arguments: EvaluateArguments) -> None:
    """Score, print the table, and write the files asked for."""
    from jdm.evaluation.metrics import evaluate_folders
    from jdm.report.folder import report_folder

    evaluation = evaluate_folders(
        arguments.predictions,
        arguments.references,
        arguments.convention,
        labels=find_labels(arguments),
        allow_missing=arguments.allow_missing,
        distances=arguments.hd95,
        empty_distance=arguments.empty_hd95,
    )
    print(evaluation.to_markdown(), end="")
    if arguments.out is not None:
        for path in evaluation.write(arguments.out):
            print(path)
        print(report_folder(arguments.out))


def find_labels(arguments: EvaluateArguments) -> dict[str, int | tuple[int, ...]] | None:
    """Labels as in dataset.json: from --labels, else --dataset, else (for `nnunet`) dataset.json beside the masks."""
    from jdm.data.labels import declared_labels
    from jdm.data.raw_dataset import dataset_folder, read_description

    if arguments.labels:
        return {str(value): value for value in arguments.labels}
    if arguments.dataset is not None:
        folders = [dataset_folder(arguments.dataset)]
    elif arguments.convention == "nnunet":
        beside = (arguments.predictions, arguments.references, arguments.references.parent)
        folders = [folder for folder in beside if (folder / "dataset.json").is_file()]
    else:
        folders = []
    return declared_labels(folders[0] / "dataset.json", read_description(folders[0])) if folders else None

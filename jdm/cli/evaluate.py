"""`jdm-evaluate`: score predicted masks against reference masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jdm.cli import run_command


@dataclass(frozen=True)
class EvaluateArguments:
    """Score predicted masks: Dice, IoU and HD95 per case and class, in one of three published conventions."""

    predictions: Path
    """Folder of predicted masks (for pranet: masks or maps), one file per reference, of the same stem."""
    references: Path
    """Folder of reference masks."""
    convention: Literal["nnunet", "thesis", "pranet"] = "nnunet"
    """nnunet: per class, skipped where absent from both. thesis: foreground only. pranet: 256 thresholds."""
    dataset: str | None = None
    """nnU-Net dataset id or name whose dataset.json names the labels."""
    labels: tuple[int, ...] = ()
    """Label values to score, instead of --dataset. Without either, dataset.json beside the masks is used."""
    out: Path | None = None
    """Folder for evaluation.json, evaluation.csv and evaluation.md."""
    allow_missing: bool = False
    """Score what both folders hold instead of refusing when predictions are missing."""
    hd95: bool = True
    """Compute the 95 % surface distance (the slowest part)."""


def main() -> None:
    """Entry point of `jdm-evaluate`."""
    import tyro

    arguments = tyro.cli(EvaluateArguments, prog="jdm-evaluate", description=EvaluateArguments.__doc__)
    run_command(lambda: evaluate(arguments))


def evaluate(arguments: EvaluateArguments) -> None:
    """Score, print the table, and write the files asked for."""
    from jdm.evaluation.metrics import evaluate_folders

    evaluation = evaluate_folders(
        arguments.predictions,
        arguments.references,
        arguments.convention,
        labels=find_labels(arguments),
        allow_missing=arguments.allow_missing,
        distances=arguments.hd95,
    )
    print(evaluation.to_markdown(), end="")
    if arguments.out is not None:
        for path in evaluation.write(arguments.out):
            print(path)


def find_labels(arguments: EvaluateArguments) -> dict[str, int] | None:
    """Class names and values: --labels, else --dataset, else for `nnunet` dataset.json beside the masks."""
    if arguments.labels:
        return {str(value): value for value in arguments.labels}
    if arguments.dataset is not None:
        from jdm.data.raw_dataset import open_dataset

        return open_dataset(arguments.dataset).labels
    if arguments.convention != "nnunet":
        return None
    for folder in (arguments.predictions, arguments.references, arguments.references.parent):
        if (folder / "dataset.json").is_file():
            return _labels_in(folder / "dataset.json")
    return None


def _labels_in(file: Path) -> dict[str, int]:
    import json

    from jdm.errors import DataError

    try:
        labels = json.loads(file.read_text(encoding="utf-8"))["labels"]
        return {str(name): int(value) for name, value in labels.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: cannot read its labels ({type(error).__name__}: {error}); expected "
            'nnU-Net\'s dataset.json with {"labels": {"background": 0, ...}}; mend it or give --labels'
        ) from None

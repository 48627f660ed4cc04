"""Copy what an experiment found into results/: table, JSON, curves, pictures small enough for the repository.

python scripts/publish.py 4 504 all results/hippocampus
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jdm.cli import run_command
from jdm.data.raw_dataset import open_dataset
from jdm.errors import DataError
from jdm.train.checkpoint import load_checkpoint, run_folder


@dataclass(frozen=True)
class Options:
    """Collect the results of one dataset and fold."""

    real: Annotated[str, tyro.conf.Positional]
    """Id or name of the real dataset."""
    synthetic: Annotated[str, tyro.conf.Positional]
    """Id or name of the synthetic dataset."""
    fold: Annotated[str, tyro.conf.Positional]
    """Fold of the experiment."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write to."""
    experiment: Path | None = None
    """Folder of the experiment, where it is not the usual one."""
    pictures: int = 2
    """Test cases to show."""


def main(options: Options) -> None:
    """Copy results.json, results.md, plan.toml, curves.png and pictures, and write generator.json."""
    real, synthetic = open_dataset(options.real), open_dataset(options.synthetic)
    run = run_folder(real.name, options.fold)
    experiment = options.experiment or run.parent / f"experiment_fold_{options.fold}"
    if not (experiment / "results.json").is_file():
        raise DataError(f"{experiment} has no results.json; expected a finished experiment; run jdm-experiment first")
    options.out.mkdir(parents=True, exist_ok=True)
    for source in (experiment / "results.json", experiment / "results.md", run / "plan.toml", run / "curves.png"):
        shutil.copyfile(source, options.out / source.name)
    for picture in sorted((experiment / "pictures").glob("*.png"))[: options.pictures]:
        shutil.copyfile(picture, options.out / f"test_{picture.name}")
    origin = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))
    metadata = load_checkpoint(run).metadata
    summary = {
        "commit": metadata.get("commit", ""),  # an older jdm did not note it
        "hardware": metadata.get("hardware", ""),
        "training_cases": len(metadata["training_ids"]),
        "held_out_cases": len(metadata["held_out_ids"]),
        "exported_step": metadata["step"],
        "held_out_loss": metadata["held_out_loss"],
        "pairs": origin["count"],
        "redrawn": origin["redrawn"],
        "canvas_size": origin["canvas_size"],
        "sampler": f"{origin['sampler']}, {origin['steps']} steps",
    }
    (options.out / "generator.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    options = tyro.cli(Options)
    run_command(lambda: main(options))

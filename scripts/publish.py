"""Copy what an experiment found into results/: table, JSON, curves, pictures small enough for the repository.

python scripts/publish.py 504 results/hippocampus
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from shared import generator_of

from jdm.cli import run_command
from jdm.data.raw_dataset import open_dataset
from jdm.errors import DataError
from jdm.system.files import write_json


@dataclass(frozen=True)
class Options:
    """Collect the results of one synthetic dataset."""

    synthetic: Annotated[str, tyro.conf.Positional]
    """Its id or name."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write to."""
    experiment: Path | None = None
    """Folder of the experiment, where it is not the usual one."""
    pictures: int = 2
    """Test cases to show."""


def main(options: Options) -> None:
    """Copy results.json, results.md, plan.toml, curves.png and pictures, and write generator.json."""
    run, origin = generator_of(open_dataset(options.synthetic))
    experiment = options.experiment or run.folder.parent / f"experiment_{run.folder.name}"
    if not (experiment / "results.json").is_file():
        raise DataError(f"{experiment} has no results.json; expected a finished experiment; run jdm-experiment first")
    options.out.mkdir(parents=True, exist_ok=True)
    sources = [experiment / "results.json", experiment / "results.md", run.folder / "plan.toml"]
    for source in (*sources, run.folder / "curves.png"):
        shutil.copyfile(source, options.out / source.name)
    for picture in sorted((experiment / "pictures").glob("*.png"))[: options.pictures]:
        shutil.copyfile(picture, options.out / f"test_{picture.name}")
    metadata = run.checkpoint.metadata
    summary = {
        "commit": metadata["commit"],
        "hardware": metadata["hardware"],
        "training_cases": len(metadata["training_ids"]),
        "held_out_cases": len(metadata["held_out_ids"]),
        "exported_step": metadata["step"],
        "held_out_loss": metadata["held_out_loss"],
        "pairs": origin["count"],
        "redrawn": origin["redrawn"],
        "canvas_size": origin["canvas_size"],
        "sampler": f"{origin['sampler']}, {origin['steps']} steps",
    }
    write_json(options.out / "generator.json", summary)


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

"""How near synthetic pairs come to training pairs, beside held-out real ones: the numbers of results/*/copies.json.

python scripts/copies.py 504 --like 4 --out results/hippocampus/copies.json
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jdm.cli import run_command
from jdm.config.settings import Config
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import open_dataset
from jdm.errors import DataError
from jdm.evaluation.audit import audit
from jdm.system.machine import describe_run
from jdm.train.checkpoint import load_checkpoint, run_folder


@dataclass(frozen=True)
class Options:
    """Compare training-sized crops of a synthetic dataset with those of the real cases it was trained on."""

    synthetic: Annotated[str, tyro.conf.Positional]
    """Id or name of the synthetic dataset."""
    like: str
    """Id or name of the real dataset."""
    out: Path
    """JSON file to write."""
    count: int = 300
    """Crops of the synthetic and of the held-out set."""
    training_crops: int = 4000
    """Crops of the training cases, at least one of each image."""
    size: int = 16
    """Crops are averaged to this many pixels per side before they are compared."""


def main(options: Options) -> None:
    """Write the audit of pairs (image and mask channels, RMS distance)."""
    real, synthetic = open_dataset(options.like), open_dataset(options.synthetic)
    origin = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))["generator"]
    checkpoint = load_checkpoint(run_folder(real.name, origin["fold"]))
    if checkpoint.sha256 != origin["checkpoint_sha256"]:
        raise DataError(
            f"{synthetic.name} comes from checkpoint {origin['checkpoint_sha256'][:12]}, found "
            f"{checkpoint.sha256[:12]}; "
            "export again, or restore the checkpoint"
        )
    config = checkpoint.config
    training = PairDataset(real, list(origin["training_ids"]), config)
    held_out = PairDataset(real, list(origin["held_out_ids"]), config)
    made = PairDataset(synthetic, list(synthetic.cases), stored_as_is(config))
    found = audit(
        crops(made, options.count),
        crops(training, max(options.training_crops, len(training)) if not config.data.whole else len(training)),
        crops(held_out, options.count),
        symmetries=not config.data.whole,
        size=options.size,
        mask_channels=config.mask_channels,
    ).to_dict()
    del found["nearest"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    about = describe_run()
    run = {"command": about.command, "commit": about.commit, "hardware": about.hardware}
    options.out.write_text(json.dumps({**run, "size": options.size, **found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def stored_as_is(config: Config) -> Config:
    """The plan for exported cases, whose intensities are on one scale already."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, case_mean=(), case_std=()))


def crops(pairs: PairDataset, count: int) -> np.ndarray:
    """`count` encoded crops, of the items in turn: (count, channels, *patch_size)."""
    rng = np.random.default_rng(0)
    order = np.arange(count) % len(pairs) if count >= len(pairs) else rng.choice(len(pairs), count, replace=False)
    return np.stack([pairs.encoded(int(index), rng) for index in order])


if __name__ == "__main__":
    options = tyro.cli(Options)
    run_command(lambda: main(options))

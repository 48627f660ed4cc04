"""How near synthetic pairs come to training pairs, beside held-out real ones: the numbers of results/*/copies.json.

python scripts/copies.py 504 --out results/hippocampus/copies.json
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from shared import about, generator_of

from jdm.cli import run_command
from jdm.config.settings import Config
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import open_dataset
from jdm.evaluation.audit import audit
from jdm.system.files import write_json


@dataclass(frozen=True)
class Options:
    """Compare training-sized crops of a synthetic dataset with those of the real cases it was trained on."""

    synthetic: Annotated[str, tyro.conf.Positional]
    """Id or name of the synthetic dataset."""
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
    synthetic = open_dataset(options.synthetic)
    run, _ = generator_of(synthetic)
    config, real = run.config, run.real_for("scripts/copies.py")
    training, held_out = (
        PairDataset(real, run.checkpoint.metadata[key], config) for key in ("training_ids", "held_out_ids")
    )
    made = PairDataset(synthetic, list(synthetic.cases), stored_as_is(config))
    found = audit(
        crops(made, options.count),
        crops(training, len(training) if config.data.whole else max(options.training_crops, len(training))),
        crops(held_out, options.count),
        symmetries=not config.data.whole,
        size=options.size,
        mask_channels=config.mask_channels,
    ).to_dict()
    del found["nearest"]
    write_json(options.out, {**about(), "size": options.size, **found})
    print(json.dumps(found, indent=2))


def stored_as_is(config: Config) -> Config:
    """The plan for exported cases, whose intensities are on one scale already."""
    return dataclasses.replace(config, facts=dataclasses.replace(config.facts, case_mean=(), case_std=()))


def crops(pairs: PairDataset, count: int) -> np.ndarray:
    """`count` encoded crops, of the items in turn: (count, channels, *patch_size)."""
    rng = np.random.default_rng(0)
    order = np.arange(count) % len(pairs) if count >= len(pairs) else rng.choice(len(pairs), count, replace=False)
    return np.stack([pairs.encoded(int(index), rng) for index in order])


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

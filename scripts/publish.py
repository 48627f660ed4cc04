"""Collect the results of a synthetic dataset for results/: the experiment's tables and pictures, in a size suitable for
the repository; distances of its pairs from training pairs (copies.json); visibility of window borders (seams.json).

python scripts/publish.py 511 results/monuseg
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from shared import about, generator_of, interval

from jdm.cli import run_command
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset, open_dataset, read_case
from jdm.diffusion.windows import window_starts
from jdm.draw.run import Run
from jdm.errors import DataError
from jdm.evaluation.audit import audit
from jdm.evaluation.statistics import mean_interval
from jdm.system.files import write_json

CROPS, TRAINING_CROPS = 300, 4000
"""Number of crops of synthetic and held-out cases, and of training cases (at least one per image)."""
SIZE = 16
"""Crops are reduced by averaging to this many pixels per side before comparison."""
TEST_PICTURES = 2


def main(synthetic: str, out: Path, /, *, experiment: Path | None = None) -> None:
    """Collect the results of a synthetic dataset and its experiment.

    Args:
        synthetic: Id or name of the dataset.
        out: Folder to write to.
        experiment: Folder of the experiment, if not the default one.
    """
    dataset = open_dataset(synthetic)
    run, origin = generator_of(dataset)
    experiment = experiment or run.folder.parent / f"experiment_{run.folder.name}"
    if not (experiment / "results.json").is_file():
        raise DataError(f"{experiment} has no results.json; expected a finished experiment; run jdm-experiment first")
    write_json(out / "generator.json", generator(run, origin))
    for source in (experiment / "results.json", experiment / "results.md", run.folder / "plan.toml"):
        shutil.copyfile(source, out / source.name)
    shutil.copyfile(run.folder / "curves.png", out / "curves.png")
    for picture in sorted((experiment / "pictures").glob("*.png"))[:TEST_PICTURES]:
        shutil.copyfile(picture, out / f"test_{picture.name}")
    write_json(out / "copies.json", {**about(), **copies(run, dataset)})
    if tuple(origin["canvas_size"]) != run.config.data.patch_size:
        write_json(out / "seams.json", {**about(), **seams(run, dataset, origin["overlap"])})


def generator(run: Run, origin: dict[str, Any]) -> dict[str, Any]:
    """How the pairs were made."""
    metadata = run.checkpoint.metadata
    return {
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


def copies(run: Run, synthetic: RawDataset) -> dict[str, Any]:
    """Nearest-neighbour RMS distances (image and mask channels) of training-sized crops to crops of training cases,
    compared with crops of held-out cases."""
    config, real = run.config, run.real_for("scripts/publish.py")
    training, held_out = (
        PairDataset(real, run.checkpoint.metadata[key], config) for key in ("training_ids", "held_out_ids")
    )
    # exported intensities are on one scale already
    as_stored = dataclasses.replace(config, facts=dataclasses.replace(config.facts, case_mean=(), case_std=()))
    found = audit(
        crops(PairDataset(synthetic, list(synthetic.cases), as_stored), CROPS),
        crops(training, len(training) if config.data.whole else max(TRAINING_CROPS, len(training))),
        crops(held_out, CROPS),
        symmetries=not config.data.whole,
        size=SIZE,
        mask_channels=config.mask_channels,
    ).to_dict()
    del found["nearest"]
    return {"size": SIZE, **found}


def crops(pairs: PairDataset, count: int) -> np.ndarray:
    """`count` encoded crops, of the items in turn: (count, channels, *patch_size)."""
    rng = np.random.default_rng(0)
    order = np.arange(count) % len(pairs) if count >= len(pairs) else rng.choice(len(pairs), count, replace=False)
    return np.stack([pairs.sample(int(index), rng) for index in order])


def seams(run: Run, synthetic: RawDataset, overlap: float) -> dict[str, Any]:
    """Ratio of gradients across window borders to gradients elsewhere, for image and label; 1: no seam."""
    window = run.config.data.patch_size
    ratios: dict[str, list[float]] = {"image": [], "label": []}
    for case_id in synthetic.cases:
        pair = read_case(synthetic, case_id)
        ratios["image"].append(seam_ratio(pair.image.astype(float), window, overlap))
        ratios["label"].append(seam_ratio((pair.label[None] > 0).astype(float), window, overlap))
    found = {name: interval(mean_interval(np.array(values))) for name, values in ratios.items()}
    return {"pairs": len(synthetic.cases), "ratio": found}


def seam_ratio(channels: np.ndarray, window: tuple[int, ...], overlap: float) -> float:
    """Mean absolute difference of neighbours across window borders divided by that elsewhere; channels is (C, H, W).

    NaN for an image that is no larger than a window.
    """
    across, elsewhere = [], []
    for axis, side in enumerate(window, start=1):
        steps = np.abs(np.diff(channels, axis=axis))
        length = channels.shape[axis]
        starts = window_starts(length, side, overlap)
        borders = {edge for start in starts for edge in (start, start + side) if 0 < edge < length}
        if not borders:
            continue
        at_border = np.isin(np.arange(1, length), list(borders))
        across.append(np.compress(at_border, steps, axis=axis).mean())
        elsewhere.append(np.compress(~at_border, steps, axis=axis).mean())
    return float(np.mean(across) / np.mean(elsewhere)) if across else math.nan


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main))

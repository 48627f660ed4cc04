"""Are window borders visible? Gradients of exported pairs across them, over gradients everywhere else.

python scripts/seams.py 511 --like 11 --out results/monuseg/seams.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jdm.cli import run_command
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.diffusion.windows import window_starts
from jdm.evaluation.statistics import mean_interval
from jdm.system.machine import describe_run
from jdm.train.checkpoint import load_checkpoint, run_folder


@dataclass(frozen=True)
class Options:
    """Compare absolute differences of neighbouring pixels where a window begins or ends with all others."""

    synthetic: Annotated[str, tyro.conf.Positional]
    """Id or name of the synthetic dataset."""
    like: str
    """Id or name of the real dataset."""
    out: Path
    """JSON file to write."""


def main(options: Options) -> None:
    """Write the ratio (1: no seam) with a 95 % bootstrap interval over pairs, for image and label."""
    real, synthetic = open_dataset(options.like), open_dataset(options.synthetic)
    origin = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))
    window = load_checkpoint(run_folder(real.name, origin["generator"]["fold"])).config.data.patch_size
    ratios: dict[str, list[float]] = {"image": [], "label": []}
    for case_id in synthetic.cases:
        pair = read_case(synthetic, case_id)
        ratios["image"].append(seam_ratio(pair.image.astype(float), window, origin["overlap"]))
        ratios["label"].append(seam_ratio((pair.label[None] > 0).astype(float), window, origin["overlap"]))
    about = describe_run()
    found = {}
    for name, values in ratios.items():
        over_pairs = mean_interval(np.array(values))
        found[name] = {"mean": over_pairs.mean, "low": over_pairs.low, "high": over_pairs.high}
    content = {
        "command": about.command,
        "commit": about.commit,
        "hardware": about.hardware,
        "pairs": len(synthetic.cases),
        "ratio": found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def seam_ratio(channels: np.ndarray, window: tuple[int, ...], overlap: float) -> float:
    """Mean absolute difference across window borders over the mean elsewhere; channels is (C, H, W)."""
    across, elsewhere = [], []
    for axis, side in enumerate(window, start=1):
        steps = np.abs(np.diff(channels, axis=axis))
        length = channels.shape[axis]
        starts = window_starts(length, side, overlap)
        borders = sorted({edge for start in starts for edge in (start, start + side) if 0 < edge < length})
        at_border = np.isin(np.arange(length - 1), np.array(borders) - 1)
        across.append(np.compress(at_border, steps, axis=axis).mean())
        elsewhere.append(np.compress(~at_border, steps, axis=axis).mean())
    return float(np.mean(across) / np.mean(elsewhere))


if __name__ == "__main__":
    options = tyro.cli(Options)
    run_command(lambda: main(options))

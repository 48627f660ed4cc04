"""Are window borders visible? Gradients of exported pairs across them, over gradients everywhere else.

python scripts/seams.py 511 --out results/monuseg/seams.json
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from shared import about, generator_of, interval

from jdm.cli import run_command
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.diffusion.windows import window_starts
from jdm.errors import DataError
from jdm.evaluation.statistics import mean_interval
from jdm.system.files import write_json


@dataclass(frozen=True)
class Options:
    """Compare absolute differences of neighbouring pixels where a window begins or ends with all others."""

    synthetic: Annotated[str, tyro.conf.Positional]
    """Id or name of the synthetic dataset."""
    out: Path
    """JSON file to write."""


def main(options: Options) -> None:
    """Write the ratio (1: no seam) with a 95 % bootstrap interval over pairs, for image and label.

    Raises: DataError for pairs of one window.
    """
    synthetic = open_dataset(options.synthetic)
    run, origin = generator_of(synthetic)
    window = run.config.data.patch_size
    if tuple(origin["canvas_size"]) == window:
        raise DataError(f"pairs of {synthetic.name} are of one window; expected several; export with --canvas-size")
    ratios: dict[str, list[float]] = {"image": [], "label": []}
    for case_id in synthetic.cases:
        pair = read_case(synthetic, case_id)
        ratios["image"].append(seam_ratio(pair.image.astype(float), window, origin["overlap"]))
        ratios["label"].append(seam_ratio((pair.label[None] > 0).astype(float), window, origin["overlap"]))
    found = {name: interval(mean_interval(np.array(values))) for name, values in ratios.items()}
    write_json(options.out, {**about(), "pairs": len(synthetic.cases), "ratio": found})
    print(json.dumps(found, indent=2))


def seam_ratio(channels: np.ndarray, window: tuple[int, ...], overlap: float) -> float:
    """Mean absolute difference across window borders over the mean elsewhere; channels is (C, H, W).

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
    run_command(lambda: main(tyro.cli(Options)))

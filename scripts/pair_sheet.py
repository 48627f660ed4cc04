"""A sheet of random pairs of a raw dataset, not selected: image, and image with its mask outlined.

python scripts/pair_sheet.py 511 24 results/monuseg/pairs.png 0 --crop 192
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from jdm.cli import run_command
from jdm.data.raw_dataset import Pair, open_dataset, read_case
from jdm.errors import ConfigError
from jdm.evaluation.figures import pair_grid


def random_slices(volumes: list[Pair], count: int, rng: np.random.Generator) -> list[Pair]:
    """`count` slices of volumes in turn, across the coarsest axis, whatever they hold."""
    chosen = []
    for number in range(count):
        volume = volumes[number % len(volumes)]
        axis = int(np.argmax(volume.spacing))
        index = int(rng.integers(volume.label.shape[axis]))
        image, label = volume.image.take(index, axis + 1), volume.label.take(index, axis)
        chosen.append(Pair(f"{volume.case_id}:{index}", image, label, (1.0, 1.0)))
    return chosen


def main(
    dataset: str, count: int, out: Path, seed: int, /, *, columns: int = 6, crop: int | None = None,
    most_kilobytes: int = 600,
) -> None:  # fmt: skip
    """Write a PNG sheet of random, unselected pairs of a raw dataset.

    Args:
        dataset: Id or name, under $nnUNet_raw.
        count: Number of pairs.
        out: PNG file to write.
        seed: Of the choice of pairs.
        crop: Show the central part of this many pixels per side of larger images.
        most_kilobytes: Larger files are reduced to 256 colours, then in size.
    """
    found, rng = open_dataset(dataset), np.random.default_rng(seed)
    pairs = [read_case(found, case_id) for case_id in rng.permutation(found.cases)[:count].tolist()]
    if pairs[0].label.ndim == 3:
        pairs = random_slices(pairs, count, rng)
    if len(pairs) < count:
        raise ConfigError(f"count is {count}; expected 1 to {len(pairs)}, the cases of {found.name}; lower it")
    out.parent.mkdir(parents=True, exist_ok=True)
    pair_grid(pairs, out, columns, crop)
    shrink(out, 1000 * most_kilobytes)
    print(f"{out}: {', '.join(pair.case_id for pair in pairs)}")


def shrink(path: Path, most: int) -> None:
    """Bring a PNG file to at most `most` bytes: 256 colours first, then smaller by steps of a tenth."""
    full = Image.open(path).convert("RGB")
    factor = 1.0
    while path.stat().st_size > most:
        size = (round(full.width * factor), round(full.height * factor))
        full.resize(size, Image.Resampling.LANCZOS).quantize(256).save(path, format="PNG", optimize=True)
        factor *= 0.9


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main))

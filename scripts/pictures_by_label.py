"""A dataset with masks as pictures in a folder per label, for jdm-convert classes.

OUT/{train,test}/LABEL/CASE_SLICE.png.

python scripts/pictures_by_label.py 4 slices
python scripts/pictures_by_label.py 754 crops --crop 128 --window -1000 400

A picture, or a slice along the axis of the widest spacing, goes to the label that most of its foreground has; one
without foreground is left out. Where there is a single label, as many slices without it, cropped at the same place,
become the folder `background`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from jdm.cli import run_command
from jdm.data.raw_dataset import Pair, RawDataset, open_dataset, read_case
from jdm.errors import ConfigError, ExistsError

LEAST = 10
"""Pixels of foreground for a picture to count as one of the label."""


def main(
    dataset: tyro.conf.Positional[str], out: tyro.conf.Positional[Path], crop: int | None = None,
    window: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Write the pictures.

    Args:
        dataset: Id or name of the dataset.
        out: Folder to write.
        crop: Pixels a side to cut out around the foreground; by default all.
        window: Values that become black and white; by default the 0.5 and 99.5 percentile of each case.
    """
    real = open_dataset(dataset)
    names = [name for name, value in real.labels.items() if value]
    if not names:
        raise ConfigError(f"{real.name} has no label but the background; expected masks; name a dataset with them")
    if out.exists():
        raise ExistsError(f"{out} exists; expected a free name; choose another")
    for part, cases in (("train", real.cases), ("test", real.test_cases)):
        for case in tqdm(cases, desc=part, disable=None):
            pair = read_case(real, case, part == "test")
            for number, label, picture in pictures(pair, real, crop, window):
                folder = out / part / label
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(folder / f"{case}_{number:03d}.png")


def pictures(
    pair: Pair, real: RawDataset, crop: int | None, window: tuple[float, float] | None
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Number, label and 8-bit picture, (H, W) or (H, W, 3), of each slice that counts."""
    named = {value: name for name, value in real.labels.items() if isinstance(value, int) and value}
    low, high = window or np.percentile(pair.image, (0.5, 99.5))
    image = np.rint((pair.image.astype(np.float64) - low).clip(0, high - low) * (255 / max(high - low, 1e-9)))
    image, label = image.astype(np.uint8), pair.label
    if label.ndim == 2:
        image, label = image[:, None], label[None]
    else:
        axis = int(np.argmax(pair.spacing))
        image, label = np.moveaxis(image, axis + 1, 1), np.moveaxis(label, axis, 0)
    counts = np.stack([(label == value).sum((1, 2)) for value in named], axis=1)
    shown = np.flatnonzero(counts.sum(1) >= LEAST)
    for index in shown.tolist():
        yield index, list(named.values())[counts[index].argmax()], _cut(image[:, index], label[index], crop)
    if len(named) == 1 and len(shown):
        empty = np.flatnonzero(counts.sum(1) == 0)
        chosen = np.random.default_rng(0).permutation(empty)[: len(shown)]
        for index, at in zip(sorted(chosen.tolist()), shown.tolist(), strict=False):
            yield index, "background", _cut(image[:, index], label[at], crop)


def _cut(image: np.ndarray, label: np.ndarray, crop: int | None) -> np.ndarray:
    """`image` (channels, H, W) around the foreground's middle, channels last or left out."""
    if crop is not None:
        middle = np.median(np.argwhere(label > 0), axis=0).astype(int)
        starts = [max(0, min(at - crop // 2, side - crop)) for at, side in zip(middle, label.shape, strict=True)]
        image = image[:, starts[0] : starts[0] + crop, starts[1] : starts[1] + crop]
    return image[0] if len(image) != 3 else np.moveaxis(image, 0, -1)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, description=__doc__))

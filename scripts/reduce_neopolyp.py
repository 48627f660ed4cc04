"""Reduce NeoPolyp's pictures to a fourth of their width and height, and list the class of each: what its polyps are.

python scripts/reduce_neopolyp.py ../shared/data/neopolyp/train reduced

Writes images, masks and classes.csv, for `jdm-convert pairs` and `jdm-train --classes`. A picture with polyps of both
kinds gets no class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from jdm.cli import run_command
from jdm.data.classes import FILE_NAME, classes_csv
from jdm.errors import DataError, ExistsError
from jdm.system.files import write_text

KINDS = {127: "non-neoplastic", 255: "neoplastic"}
FACTOR = 4


@dataclass(frozen=True)
class Options:
    """Reduce NeoPolyp's pictures to a fourth of their width and height, and list the class of each."""

    source: Annotated[Path, tyro.conf.Positional]
    """Folder with images and masks."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write."""


def main(options: Options) -> None:
    pairs = [(path, options.source / "masks" / f"{path.stem}.png") for path in sorted(options.source.glob("images/*"))]
    if not pairs:
        raise DataError(f"{options.source}: no images found; expected the folders images and masks; correct the path")
    if options.out.exists():
        raise ExistsError(f"{options.out} exists; expected a free name; choose another")
    classes = {}
    for folder in ("images", "masks"):
        (options.out / folder).mkdir(parents=True)
    for image_path, mask_path in tqdm(pairs, disable=None):
        with Image.open(image_path) as image, Image.open(mask_path) as mask:
            size = (image.width // FACTOR, image.height // FACTOR)
            image.convert("RGB").resize(size, Image.Resampling.BOX).save(
                options.out / "images" / f"{image_path.stem}.png"
            )
            small = mask.resize(size, Image.Resampling.NEAREST)
            small.save(options.out / "masks" / mask_path.name)
        kinds = [name for value, name in KINDS.items() if value in np.unique(small)]
        classes[image_path.stem] = kinds[0] if len(kinds) == 1 else ""
    write_text(options.out / FILE_NAME, classes_csv(classes))


if __name__ == "__main__":
    options = tyro.cli(Options)
    run_command(lambda: main(options))

"""Reduce NeoPolyp's pictures to a quarter of their width and height, and list each picture's class (kind of polyps).

python scripts/reduce_neopolyp.py ../shared/data/neopolyp/train reduced

Writes images, masks and classes.csv, for `jdm-convert pairs` and `jdm-train --classes`. A picture with polyps of both
kinds gets no class.
"""

from __future__ import annotations

from pathlib import Path

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


def main(source: Path, out: Path, /) -> None:
    """Reduce NeoPolyp's pictures to a quarter of their width and height, and list the class of each.

    Args:
        source: Folder with images and masks.
        out: Folder to write.
    """
    pairs = [(path, source / "masks" / f"{path.stem}.png") for path in sorted(source.glob("images/*"))]
    if not pairs:
        raise DataError(f"{source}: no images found; expected the folders images and masks; correct the path")
    if out.exists():
        raise ExistsError(f"{out} exists; expected a free name; choose another")
    images, masks, classes = out / "images", out / "masks", {}
    images.mkdir(parents=True)
    masks.mkdir()
    for image_path, mask_path in tqdm(pairs, disable=None):
        with Image.open(image_path) as image, Image.open(mask_path) as mask:
            size = (image.width // FACTOR, image.height // FACTOR)
            image.convert("RGB").resize(size, Image.Resampling.BOX).save(images / f"{image_path.stem}.png")
            small = mask.resize(size, Image.Resampling.NEAREST)
            small.save(masks / mask_path.name)
        kinds = [name for value, name in KINDS.items() if value in np.unique(small)]
        classes[image_path.stem] = kinds[0] if len(kinds) == 1 else ""
    write_text(out / FILE_NAME, classes_csv(classes))


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main))

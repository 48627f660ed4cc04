"""Label maps for the tests of metrics, and folders of them."""

from pathlib import Path

import numpy as np
from PIL import Image


def blobs(rng: np.random.Generator, shape: tuple[int, int] = (40, 50), classes: int = 3) -> np.ndarray:
    """A smooth random label map with values 0 .. classes - 1."""
    from scipy.ndimage import gaussian_filter

    fields = gaussian_filter(rng.standard_normal((classes, *shape)), (0, 4, 4))
    return fields.argmax(0).astype(np.uint8)


def write_masks(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder

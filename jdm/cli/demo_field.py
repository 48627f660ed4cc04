"""The demo's image: one annotated field of nuclei, half for training and half for testing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jdm.errors import ConfigError

TRAIN_TILE, TEST_TILE = 64, 128


def read_field() -> tuple[np.ndarray, np.ndarray]:
    """A field of nuclei and its manual annotation, both uint8 (512, 512); the annotation is 0 or 255.

    Source: stardist's test image, from the 2018 Data Science Bowl (Caicedo et al. 2019, Nature Methods 16:1247).
    Raises: ConfigError if stardist is not installed.
    """
    try:
        from stardist.data import test_image_nuclei_2d
    except ImportError:
        raise ConfigError(
            "the demo's image comes with the package stardist, which is not installed; expected the extra 'demo'; "
            "run make demo, or pip install 'jdm[demo]'"
        ) from None
    image, instances = test_image_nuclei_2d(return_mask=True)
    # stored as 16 bits, but holding 8
    return image.astype(np.uint8), np.where(instances > 0, 255, 0).astype(np.uint8)


def write_tiles(folder: Path, image: np.ndarray, mask: np.ndarray) -> None:
    """Cut the left half into training tiles and the right half into test tiles, as PNG files under `folder`.

    Args:
        image, mask: uint8 (H, W); W / 2 and H are multiples of both tile sizes.
    """
    from PIL import Image

    middle = image.shape[1] // 2
    halves = {"train": (slice(None, middle), TRAIN_TILE), "test": (slice(middle, None), TEST_TILE)}
    for split, (columns, side) in halves.items():
        for kind, picture in (("images", image), ("masks", mask)):
            (folder / split / kind).mkdir(parents=True)
            half = picture[:, columns]
            for y in range(0, half.shape[0], side):
                for x in range(0, half.shape[1], side):
                    name = f"{split}_y{y:03d}_x{x:03d}.png"
                    Image.fromarray(half[y : y + side, x : x + side]).save(folder / split / kind / name)

"""Miniature sources for the tests of the converters."""

import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from dataset_conversion.options import PairsOptions

LABELS = ("0=background", "255=nuclei")


def picture(seed: int = 0, shape: tuple[int, ...] = (6, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def mask(shape: tuple[int, int] = (6, 8), value: int = 255) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[1:4, 2:5] = value
    return array


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def make_source(tmp_path: Path) -> PairsOptions:
    """Three clean pairs and one test pair."""
    for i, stem in enumerate(("a", "b", "c")):
        save(tmp_path / f"in/images/{stem}.png", picture(i))
        save(tmp_path / f"in/masks/{stem}.png", mask())
    save(tmp_path / "in/test_images/t.png", picture(9))
    save(tmp_path / "in/test_masks/t.png", mask())
    return PairsOptions(
        tmp_path / "in/images", tmp_path / "in/masks", 11, "Mini", LABELS,
        tmp_path / "in/test_images", tmp_path / "in/test_masks",
    )  # fmt: skip


def record(folder: Path) -> dict:
    return json.loads((folder / "conversion.json").read_text())


def notes(folder: Path, status: str) -> dict[str, str]:
    return {e["case"]: "; ".join(e["notes"]) for e in record(folder)["entries"] if e["status"] == status}

"""Miniature raw datasets for the tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from jdm.data.raw_dataset import (
    NATURAL_ENDINGS,
    Geometry,
    Pair,
    RawDataset,
    dataset_name,
    read_dataset,
    write_case,
    write_dataset_json,
)

LABELS = {"background": 0, "cell": 1, "nucleus": 2}


def make_pair(
    case_id: str = "a", ending: str = ".png", channels: int = 3, dtype: str = "uint8", seed: int = 0,
    shape: tuple[int, ...] | None = None,
) -> Pair:  # fmt: skip
    rng = np.random.default_rng(seed)
    natural = ending in NATURAL_ENDINGS
    shape = shape or ((7, 5) if natural else (4, 7, 5))
    image = (rng.random((channels, *shape)) * 200).astype(dtype)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    if natural:
        return Pair(case_id, image, label, (1.0, 1.0))
    geometry = Geometry((1.5, 2.0, -3.0), (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    return Pair(case_id, image, label, (3.0, 0.5, 0.25), geometry)


def make_dataset(root: Path, pairs: list[Pair], ending: str = ".png", id: int = 7, reader: str = "") -> Path:
    folder = root / dataset_name(id, "Cells")
    folder.mkdir()
    for pair in pairs:
        write_case(folder, pair, ending)
    names = [f"c{i}" for i in range(pairs[0].image.shape[0])]
    write_dataset_json(
        folder, channel_names=names, labels=LABELS, file_ending=ending, num_training=len(pairs), reader=reader
    )
    return folder


def edit_json(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same(first: Pair, second: Pair) -> None:
    assert first.image.dtype == second.image.dtype
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_allclose(first.spacing, second.spacing, rtol=1e-6)
    assert (first.geometry is None) == (second.geometry is None)
    if first.geometry and second.geometry:
        np.testing.assert_allclose(first.geometry.origin, second.geometry.origin, rtol=1e-6)
        np.testing.assert_allclose(first.geometry.direction, second.geometry.direction, atol=1e-6)


def with_image(tmp_path: Path, **files: bytes | np.ndarray | Image.Image) -> RawDataset:
    """A one-case dataset whose `image` or `label` file is replaced."""
    folder = make_dataset(tmp_path, [make_pair()])
    for part, content in files.items():
        path = folder / ("imagesTr/a_0000.png" if part == "image" else "labelsTr/a.png")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            (Image.fromarray(content) if isinstance(content, np.ndarray) else content).save(path)
    return read_dataset(folder)

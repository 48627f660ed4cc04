"""Tiny nnU-Net datasets of bright blobs, for tests that run nnU-Net itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jdm.data.raw_dataset import Pair, RawDataset, read_dataset, write_case, write_dataset_json

LABELS = {"background": 0, "blob": 1}


def blob_pair(case_id: str, seed: int, side: int = 64) -> Pair:
    """A grey image of two discs on noise, uint8 (1, side, side), with its mask."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    label = np.zeros((side, side), np.uint8)
    for _ in range(2):
        row, column = random.integers(12, side - 12, 2)
        label[(rows - row) ** 2 + (columns - column) ** 2 < random.integers(5, 10) ** 2] = 1
    image = 60 + 100 * label + random.normal(0, 15, label.shape)
    return Pair(case_id, image.clip(1, 255).astype(np.uint8)[None], label, (1.0, 1.0), None)


def write_blobs(folder: Path, ids: list[str], test_ids: list[str] = [], side: int = 64) -> RawDataset:  # noqa: B006
    """Write a raw dataset of blobs; the pixels depend on the ids only."""
    for case_ids, images, labels in ((ids, "imagesTr", "labelsTr"), (test_ids, "imagesTs", "labelsTs")):
        for case_id in case_ids:
            pair = blob_pair(case_id, sum(map(ord, folder.name + images + case_id)), side)
            write_case(folder, pair, ".png", labels_folder=labels, images_folder=images)
    write_dataset_json(folder, channel_names=["grey"], labels=LABELS, file_ending=".png", num_training=len(ids))
    return read_dataset(folder)


def write_provenance(synthetic: RawDataset, real: RawDataset, training_ids: list[str], fold: int | str = 0) -> None:
    """The provenance.json that jdm-export would write."""
    held_out = sorted(set(real.cases) - set(training_ids))
    generator = {
        "dataset": real.name,
        "fold": fold,
        "training_ids": training_ids,
        "held_out_ids": held_out,
        "checkpoint_sha256": "0" * 64,
    }
    content = {"jdm_version": "0", "generator": generator, "ratio": 2.0, "count": len(synthetic.cases)}
    (synthetic.folder / "provenance.json").write_text(json.dumps(content), encoding="utf-8")


def write_real_and_synthetic(raw: Path) -> tuple[RawDataset, RawDataset]:
    """Eight real, four test and sixteen "synthetic" cases; the generator's fold is 0."""
    from jdm.data.splits import fold_split

    real = write_blobs(raw / "Dataset011_Blobs", [f"r{i:02d}" for i in range(8)], [f"t{i:02d}" for i in range(4)])
    synthetic = write_blobs(raw / "Dataset511_Blobs_syn", [f"syn_{i:03d}" for i in range(16)])
    write_provenance(synthetic, real, fold_split(real, 0)[0])
    return real, synthetic

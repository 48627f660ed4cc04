"""Tiny datasets, plans and trained runs, for tests of the line from a dataset to an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import jdm.train.loop
from jdm.config.settings import Config, NetworkConfig, from_dict, validate
from jdm.data.raw_dataset import Geometry, Pair, RawDataset, read_dataset, write_case, write_dataset_json
from jdm.plan.fingerprint import fingerprint
from jdm.plan.rules import plan
from jdm.train.checkpoint import Checkpoint, run_folder
from jdm.train.loop import train

jdm.train.loop._GRID_PAIRS = jdm.train.loop._GRID_STEPS = 2  # pictures that no test looks at
torch.set_num_threads(1)  # two busy threads of a shared machine wait for each other

TINY = NetworkConfig(
    base_channels=8, channel_multipliers=(1, 1), blocks_per_level=1, attention_factors=(2,), attention_heads=2
)


def picture(
    case_id: str, seed: int, shape: tuple[int, ...], channels: int = 1, classes: int = 2, dtype: str = "uint8",
    spacing: tuple[float, ...] = (),
) -> Pair:  # fmt: skip
    """Stripes of all classes on noise; the image shows the label."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(1 + rng.random(classes))  # class shares differ from picture to picture
    along = (np.arange(shape[-1]) + rng.integers(0, shape[-1])) % shape[-1]
    label = np.searchsorted(edges / edges[-1], along / shape[-1], side="right")
    label = np.broadcast_to(label, shape).astype(np.uint8)
    top = 255 if dtype == "uint8" else 3000
    image = label * (top * 0.6 / (classes - 1)) + top * rng.uniform(0.1, 0.35, (channels, *shape))
    spacing = spacing or (1.0,) * len(shape)
    geometry = None
    if len(shape) == 3:
        geometry = Geometry((0.0,) * 3, tuple(np.eye(3).ravel().tolist()))
    return Pair(case_id, image.astype(dtype), label, spacing, geometry)


def write_pictures(
    raw: Path, name: str = "Dataset021_Stripes", cases: int = 5, shape: tuple[int, ...] = (16, 24), **kind: Any
) -> RawDataset:
    """A raw dataset of `picture`s; `kind`: channels, classes, dtype, spacing, ending."""
    ending = kind.pop("ending", ".png" if len(shape) == 2 else ".nii.gz")
    folder = raw / name
    for index in range(cases):
        write_case(folder, picture(f"case_{index}", index, shape, **kind), ending)
    labels = {"background": 0, **{f"class{k}": k for k in range(1, kind.get("classes", 2))}}
    channel_names = [f"c{k}" for k in range(kind.get("channels", 1))]
    write_dataset_json(folder, channel_names=channel_names, labels=labels, file_ending=ending, num_training=cases)
    return read_dataset(folder)


def changed(config: Config, changes: dict[str, Any]) -> Config:
    return validate(from_dict(Config, changes, config))


def tiny_plan(dataset: RawDataset, ids: list[str], **changes: Any) -> Config:
    """The dataset's own plan with a network and a schedule of seconds."""
    config = plan(fingerprint(dataset, ids), precision="fp32")
    few = dataclasses.replace(
        config.train, steps=4, batch_size=2, validate_every=2, checkpoint_every=2, sample_every=100, warmup_steps=1
    )
    data = config.data
    config = dataclasses.replace(config, network=TINY, train=few, data=data)
    return changed(config, changes)


def tiny_run(dataset: RawDataset, classes: Mapping[str, str] | None = None, **changes: Any) -> Checkpoint:
    """Train a few steps on fold "all" with the last case held out, where jdm-export looks for it."""
    ids = list(dataset.cases)
    config = tiny_plan(dataset, ids[:-1], **changes)
    return train(config, dataset, "all", (ids[:-1], ids[-1:]), run_folder(dataset.name, "all"), classes=classes)

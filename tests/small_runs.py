"""Tiny datasets, plans and trained runs, for tests of the line from a dataset to an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jdm.config.checks import validate
from jdm.config.facts import Fingerprint, Foreground
from jdm.config.files import from_dict, merged, to_dict
from jdm.config.settings import Config, NetworkConfig
from jdm.data.raw_dataset import Geometry, Pair, RawDataset, read_dataset, write_case, write_dataset_json
from jdm.draw.run import Run
from jdm.plan.fingerprint import WIDEST_SPACING, fingerprint
from jdm.plan.rules import Machine, Plan, plan, usual_size
from jdm.train import loop, progress
from jdm.train.checkpoint import run_folder
from jdm.train.prepare import Prepared

loop.GRID_PAIRS = loop.GRID_STEPS = progress.GRID_PAIRS = progress.GRID_STEPS = 2  # pictures that no test looks at
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


def facts(**changes: Any) -> Fingerprint:
    """Facts of grey 8-bit pictures of 64 x 64 pixels with one class."""
    usual = Fingerprint(
        channel_names=("grey",), labels=("background", "object"), file_ending=".png", dtype="uint8", low=(0.0,),
        high=(255.0,), image_mean=(0.0,), image_std=0.5, class_shares=(0.5, 0.5), spacing=(1.0, 1.0),
        sizes=(((64, 64), 1, 30),), clipped=(0.0, 0.0), foreground=(Foreground((64, 64), (0.1, 0.1), (0.9, 0.9)),),
    )  # fmt: skip
    return dataclasses.replace(usual, **changes)


def of_classes(count: int, **changes: Any) -> Fingerprint:
    """The same with so many label values."""
    shares = (1 / count,) * count
    ranges = (Foreground((64, 64), (0.0,) * count, (1.0,) * count),)
    labels = tuple(f"class{value}" for value in range(count))
    return facts(labels=labels, class_shares=shares, clipped=(0.0,) * count, foreground=ranges, **changes)


def config_of(fingerprint: Fingerprint | None = None, **settings: Any) -> Config:
    """A config of the default settings, with some changed."""
    return changed(Config(facts=fingerprint or facts()), settings)


def changed(config: Config, changes: dict[str, Any]) -> Config:
    return validate(from_dict(Config, merged(to_dict(config), changes)))


def tiny_plan(dataset: RawDataset, ids: list[str], classes: Mapping[str, str] | None = None, **changes: Any) -> Config:
    """The dataset's own plan with a network and a schedule of seconds."""
    machine = Machine(precision="fp32")
    axis, dims = (None, 3) if changes.get("data", {}).get("dims") == 3 else (WIDEST_SPACING, 2)
    facts = fingerprint(dataset, ids, axis, classes, dims)
    config = plan(facts, usual_size("default", machine), machine).config
    config = dataclasses.replace(config, network=TINY)
    small = {
        "data": {"canvas_size": config.data.canvas_size},
        "train": {"steps": 4, "batch_size": 2, "validate_every": 2, "checkpoint_minutes": 0.0, "sample_every": 100,
                  "warmup_steps": 1},
    }  # fmt: skip
    return changed(config, merged(small, changes))


def prepared(
    dataset: RawDataset, config: Config, out_dir: Path, ids: tuple[list[str], list[str]],
    classes: Mapping[str, str] | None = None,
) -> Prepared:  # fmt: skip
    return Prepared(Plan(config, {}), dataset, "all", *ids, out_dir, classes, None)


def tiny_run(dataset: RawDataset, classes: Mapping[str, str] | None = None, **changes: Any) -> Run:
    """Train a few steps on fold "all" with the last case held out, where jdm-export looks for it."""
    ids, folder = list(dataset.cases), run_folder(dataset.name, "all")
    config = tiny_plan(dataset, ids[:-1], classes, **changes)
    checkpoint = loop.train(prepared(dataset, config, folder, (ids[:-1], ids[-1:]), classes))
    return Run(folder, checkpoint)

"""Kinds of volumes, through nnU-Net's own 3-D preprocessing and back: intensities, grids, formats, labels."""

import os
from typing import Any

import numpy as np
import pytest
from small_runs import tiny_run

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import jdm
from jdm.data.raw_dataset import (
    Geometry,
    Pair,
    RawDataset,
    open_dataset,
    read_case,
    read_dataset,
    write_case,
    write_dataset_json,
)
from nnunet_integration.host import preprocessed_shapes
from nnunet_integration.register import register

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TURN = np.deg2rad(20)
OBLIQUE = (np.cos(TURN), -np.sin(TURN), 0.0, np.sin(TURN), np.cos(TURN), 0.0, 0.0, 0.0, -1.0)
KINDS: dict[str, dict[str, Any]] = {
    "CT in Hounsfield units, padded with air": {"channels": ("CT",), "air": -1024},
    "four channels of MR with zero borders": {"channels": ("T1", "T1c", "T2", "FLAIR"), "air": 0, "low": 100},
    "real numbers": {"dtype": "float32"},
    "ten classes": {"classes": 10, "shape": (14, 20, 22)},
    "odd sides": {"shape": (9, 13, 11), "classes": 2},
    "slices five times as thick": {"spacing": (5.0, 1.0, 1.0), "shape": (9, 24, 20)},
    "one slice": {"shape": (1, 24, 20)},
    "mha": {"ending": ".mha"},
    "nrrd": {"ending": ".nrrd"},
    "oblique": {"direction": OBLIQUE},
    "mixed spacing": {"mixed": True},
}


def blocks(shape, classes: int, rng: np.random.Generator) -> np.ndarray:
    """A label of nested boxes around a middle that differs from case to case."""
    grids = np.meshgrid(*(np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in shape), indexing="ij")
    distance = np.max(np.abs(np.stack(grids) - rng.uniform(-0.15, 0.15, 3).reshape(3, 1, 1, 1)), axis=0)
    return np.clip(classes - np.ceil(distance * (classes + 1)), 0, classes - 1).astype(np.uint8)


def write_kind(
    raw, shape=(12, 20, 16), channels=("MR",), classes=3, dtype="int16", spacing=(1.5, 1.0, 1.0), ending=".nii.gz",
    direction=STRAIGHT, air=None, low=0, mixed=False,
) -> RawDataset:  # fmt: skip
    folder = raw / "Dataset041_Kind"
    for case in range(4):
        rng = np.random.default_rng(case)
        sides = tuple(side * 2 if mixed and case == 0 and axis == 1 else side for axis, side in enumerate(shape))
        label = blocks(sides, classes, rng)
        image = low + 40.0 * (1 + np.arange(len(channels)).reshape(-1, 1, 1, 1)) * label + rng.normal(0, 8, sides)
        if air is not None:
            image[..., :2], label[..., :2] = air, 0
        step = tuple(s / 2 if mixed and case == 0 and axis == 1 else s for axis, s in enumerate(spacing))
        pair = Pair(f"v{case}", image.astype(dtype), label, step, Geometry((5.0, -3.0, 20.0), direction))
        write_case(folder, pair, ending)
    labels = {"background": 0, **{f"organ{k}": k for k in range(1, classes)}}
    write_dataset_json(folder, channel_names=channels, labels=labels, file_ending=ending, num_training=4)
    return read_dataset(folder)


@pytest.mark.filterwarnings(r"ignore:unclosed file .*:ResourceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_volumes_of_every_kind_are_planned_trained_exported_and_preprocessed_by_nnunet(nnunet_folders, kind):
    real = write_kind(nnunet_folders["nnUNet_raw"], **KINDS[kind])
    tiny = {"network": {"base_channels": 8, "attention_heads": 2}, "train": {"batch_size": 2}}
    data = jdm.plan(jdm.TrainRequest("41", "all", settings=tiny)).config.data
    flat = kind == "one slice"
    assert data.dims == (2 if flat else 3)
    run = tiny_run(real, data={"dims": 3}, train={"steps": 1})
    jdm.export(jdm.ExportRequest("41", "all", id=541, count=2, steps=3, batch_size=2, given_masks="real", anyway=True))
    made, example = read_case(open_dataset(541), "syn_000001"), read_case(real, "v1")
    assert made.geometry is not None and example.geometry is not None
    assert made.label.shape == example.label.shape and made.spacing == pytest.approx(example.spacing)
    assert made.image.dtype == example.image.dtype and made.image.shape == example.image.shape
    np.testing.assert_allclose(made.geometry.direction, example.geometry.direction, atol=1e-6)
    low, high = run.config.facts.low, run.config.facts.high
    assert all(a <= channel.min() <= channel.max() <= b for a, b, channel in zip(low, high, made.image, strict=True))
    np.testing.assert_array_equal(made.label, example.label)
    if not flat:
        shapes = preprocessed_shapes(register(open_dataset(541), real, "3d_fullres").preprocessed, ["syn_000001"])
        assert len(shapes[0]) == 3

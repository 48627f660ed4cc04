"""Volumes trained, exported and read as volumes."""

import json
import os

import numpy as np
import pytest
from export_runs import contents, factory_of
from small_runs import picture, tiny_run, write_pictures

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import jdm
from jdm.data.raw_dataset import RawDataset, check_dataset, open_dataset, read_case, read_dataset, write_case
from jdm.evaluation.likeness import likeness
from jdm.plan.fingerprint import fingerprint
from jdm.plan.rules import Machine, plan, usual_size
from nnunet_integration.arms import ExperimentOptions
from nnunet_integration.experiment import run_experiment
from nnunet_integration.host import preprocessed_shapes
from nnunet_integration.register import plan_dataset, register

SHAPE, SPACING = (12, 18, 16), (1.5, 1.0, 1.2)
THREE = {"data": {"dims": 3}, "train": {"steps": 2}}
REQUEST = {"count": 3, "steps": 3, "batch_size": 2, "margin": 100.0, "anyway": True}


@pytest.fixture
def volumes(nnunet_folders) -> RawDataset:
    kind = {"shape": SHAPE, "classes": 3, "dtype": "int16", "spacing": SPACING}
    folder = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset031_Layers", cases=6, **kind).folder
    write_case(folder, picture("test_0", 100, **kind), ".nii.gz", "labelsTs", "imagesTs")
    return read_dataset(folder)


def planned(dataset: RawDataset, **settings):
    machine = Machine(precision="fp32")
    facts = fingerprint(dataset, list(dataset.cases), None, dims=3)
    return plan(facts, usual_size("default", machine), machine, settings=settings).config


def test_the_plan_takes_volumes_as_a_whole_at_their_spacing(volumes):
    config = planned(volumes)
    assert (config.data.dims, config.data.slice_axis, config.data.whole) == (3, None, True)
    assert config.facts.spacing == pytest.approx(SPACING) and config.facts.sizes == ((SHAPE, 1, 6),)
    assert all(p >= side for p, side in zip(config.data.patch_size, SHAPE, strict=True))


def test_large_volumes_are_trained_by_patches(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    config = planned(write_pictures(raw, "Dataset032_Large", cases=1, shape=(20, 150, 90), spacing=(1.0, 1.0, 1.0)))
    assert not config.data.whole
    assert config.data.patch_size == (20, 144, 96)  # about 64 x 64 x 64 voxels, as even as the volume allows


def test_volumes_larger_than_a_patch_train_where_nnunet_has_planned_them(nnunet_folders):
    raw, shape = nnunet_folders["nnUNet_raw"], (120, 100, 40)
    folder = write_pictures(raw, "Dataset032_Large", cases=2, shape=shape, spacing=(1.0, 1.0, 3.0)).folder
    dataset = read_dataset(folder)
    plan_dataset(dataset, "nnUNetPlans")
    plans = json.loads((nnunet_folders["nnUNet_preprocessed"] / dataset.name / "nnUNetPlans.json").read_text())
    assert plans["transpose_forward"] == [2, 0, 1]
    patch = plans["configurations"]["3d_fullres"]["patch_size"]
    dry = jdm.plan(jdm.TrainRequest("32", "all", settings={"data": {"dims": 3}})).config.data
    assert not dry.whole and dry.canvas_size == tuple(
        max(p, min(side, most)) for p, side, most in zip(dry.patch_size, shape, (*patch[1:], patch[0]), strict=True)
    )


def test_volumes_are_exported_as_the_real_ones_are_stored_and_repeat_to_the_byte(volumes):
    tiny_run(volumes, **THREE)
    first = jdm.export(jdm.ExportRequest("31", "all", id=531, **REQUEST)).folder
    made, before = open_dataset(531), contents(first)
    assert check_dataset(made) == []
    for case in made.cases:
        pair, real = read_case(made, case), read_case(volumes, volumes.cases[0])
        assert pair.label.shape == SHAPE and pair.spacing == pytest.approx(SPACING)
        assert pair.image.dtype == real.image.dtype
        assert pair.geometry.direction == real.geometry.direction
    shards = [jdm.ExportRequest("31", "all", id=531, shard=f"{n}/2", overwrite=n == 0, **REQUEST) for n in range(2)]
    assert contents([jdm.export(one) for one in shards][-1].folder) == before


def test_canvases_larger_than_the_patch_are_made_of_windows(volumes):
    data = {"dims": 3, "whole": False, "patch_size": [8, 8, 8], "canvas_size": [12, 18, 16]}
    tiny_run(volumes, data=data, train={"steps": 2})
    jdm.export(jdm.ExportRequest("31", "all", id=531, **REQUEST))
    assert read_case(open_dataset(531), "syn_000000").label.shape == SHAPE


@pytest.mark.filterwarnings(r"ignore:unclosed file .*\.nii\.gz:ResourceWarning")
def test_nnunet_preprocesses_and_trains_on_them_in_three_dimensions(volumes):
    tiny_run(volumes, **THREE)
    jdm.export(jdm.ExportRequest("31", "all", id=531, **REQUEST))
    done = register(open_dataset(531), volumes, "3d_fullres")
    of_real = done.preprocessed.parents[1] / volumes.name / "nnUNetPlans_3d_fullres"
    assert set(preprocessed_shapes(done.preprocessed, open_dataset(531).cases)) == set(
        preprocessed_shapes(of_real, volumes.cases)
    )
    _, results = run_experiment(
        ExperimentOptions(
            real="31", synthetic=("531",), fold=("all",), arms=("synthetic",), seeds=(0,), iterations=2, epochs=1,
            batch_size=2, configuration="3d_fullres", network_features=(8, 16, 16), threads=1, device="cpu",
        )
    )  # fmt: skip
    assert len(results["settings"]["patch_size"]) == 3


def test_drawn_volumes_that_copy_a_training_case_in_whole_or_in_part_are_found(volumes):
    run = tiny_run(volumes, **THREE)
    training = factory_of(run, jdm.ExportRequest("31", "all", id=531, **REQUEST)).training
    real, rng = read_case(volumes, volumes.cases[2]).image, np.random.default_rng(0)
    other = rng.normal(real.mean(), real.std(), real.shape)
    assert training.problem(other) is None
    for copied in (real, 0.5 * real[:, :, ::-1] + 9, np.where(np.arange(SHAPE[0])[:, None, None] < 3, real, other)):
        assert volumes.cases[2] in training.problem(copied)


def test_likeness_of_a_volume_is_that_of_its_slices():
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(1, 5, 20, 24)), (rng.random((5, 20, 24)) < 0.3).astype(np.uint8)
    slices = [likeness(image[:, n], label[n]) for n in range(5)]
    np.testing.assert_allclose(likeness(image, label), np.mean(slices, axis=0))

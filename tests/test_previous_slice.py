"""Slices that are conditioned on the slice before: what the network is given, and volumes that hold together."""

import itertools

import numpy as np
import pytest
import torch
from export_runs import rewritten
from small_runs import changed, tiny_plan, tiny_run, write_pictures

import jdm
from jdm.data.pairs import Batches, PairDataset, condition_features, previous_condition, sampling_condition
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.diffusion.model import build_denoiser
from jdm.errors import ConfigError

KIND = {"shape": (5, 16, 24), "dtype": "int16"}  # in each volume all slices have the same stripes, on other noise
ON = {"data": {"previous_slice": True}}


def test_a_sample_has_the_same_crop_of_the_slice_before_and_says_where_it_lies(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=3, **KIND)
    augment = {"probability": 1.0, "mirror_axes": (0, 1), "contrast": 0.0}
    config = tiny_plan(real, list(real.cases), **ON, augment=augment)
    pairs = PairDataset(real, list(real.cases), config)
    assert [pairs.follows(index) for index in range(6)] == [False, True, True, True, True, False]
    assert [pairs.position(index) for index in range(6)] == [-1, -0.5, 0, 0.5, 1, -1]

    x, condition = Batches(pairs, 200, seed=0)[0]
    now, before = x.chunk(2, 1)
    told, position, is_given, noise = condition[:, condition_features(2) :].T
    assert 0.8 < told.mean() < 1 and set(is_given.tolist()) == {0.0, 1.0}
    assert (position[told == 0] == 0).all() and (is_given[told == 0] == 0).all()
    assert (position[(told == 1) & (is_given == 0)] == -1).all()  # only a first slice has none before it
    given = is_given == 1
    assert torch.equal(now[given, 1:], before[given, 1:]) and not torch.equal(now[given, :1], before[given, :1])
    assert noise[given].min() >= 0 and noise[given].max() <= 0.5 and (noise[~given] == 0).all()


def test_the_network_sees_the_slice_before_only_if_it_is_told_so(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=2, **KIND)
    config = tiny_plan(real, list(real.cases), **ON)
    denoiser = build_denoiser(config, condition_features(2))
    random = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
    x, before = torch.randn(2, 2, 2, 16, 24, generator=random)
    sigma, both = torch.ones(2, 2), torch.cat([x, before], dim=1)

    def estimate(x, word):
        return denoiser(x, sigma, sampling_condition(config, previous=word).expand(2, -1))

    alone = estimate(x, previous_condition(0.0, None))
    assert torch.equal(estimate(both, previous_condition(0.0, None)), torch.cat([alone, before], dim=1))
    seen = estimate(both, previous_condition(0.0, 0.1))
    assert torch.equal(seen[:, 2:], before) and not torch.allclose(seen[:, :2], alone, atol=1e-3)
    assert not torch.equal(estimate(x, previous_condition(1.0, None)), alone)  # another position


def test_exported_volumes_hold_together_and_shards_make_the_same_files(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], name="Dataset061_Tied", cases=8, **KIND)
    train = {"steps": 250, "batch_size": 8, "validate_every": 200, "learning_rate": 3e-3, "select": "last"}
    overlap = {}
    for name, data in (("tied", ON["data"]), ("loose", {})):
        tiny_run(real, train=train, data=data)
        whole = {"count": 4, "steps": 6, "batch_size": 2, "anyway": True, "no_audit": True, "margin": 100.0}
        number = 561 if name == "tied" else 563
        made = jdm.export(jdm.ExportRequest("61", "all", id=number, name=name, **whole))
        volumes = [read_case(open_dataset(number), f"syn_{k:06d}").label for k in range(4)]
        overlap[name] = np.mean([dice(a, b) for volume in volumes for a, b in itertools.pairwise(volume)])
        if name == "tied":
            for shard in ("1/2", "0/2"):
                again = jdm.export(jdm.ExportRequest("61", "all", id=562, name="shards", shard=shard, **whole))
            for file in sorted((made.folder / "imagesTr").iterdir()):
                assert file.read_bytes() == (again.folder / "imagesTr" / file.name).read_bytes()
    assert overlap["tied"] > 0.85 > 0.75 > overlap["loose"], overlap


def test_slices_larger_than_the_patch_are_given_the_one_before_too(nnunet_folders):
    """Their middle is sampled first, so it is given the middle of the slice before."""
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=2, **KIND)
    patches = {**ON["data"], "whole": False, "patch_size": [8, 8], "canvas_size": [16, 24]}
    run = rewritten(tiny_run(real, train={"steps": 1}, data=patches), window_spread=0.5)
    whole = {"count": 1, "steps": 6, "anyway": True, "no_audit": True, "margin": 100.0}
    jdm.export(jdm.ExportRequest(str(run.folder), "", id=561, **whole))
    assert read_case(open_dataset(561), "syn_000000").label.shape == (5, 16, 24)


def dice(a, b):
    return 2 * np.sum((a > 0) & (b > 0)) / max(np.sum(a > 0) + np.sum(b > 0), 1)


def test_pictures_have_no_slice_before(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=2)
    config = tiny_plan(real, list(real.cases))
    with pytest.raises(ConfigError, match="previous_slice"):
        changed(config, ON)

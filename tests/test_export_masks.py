"""Exports for given masks: the masks come back, are used in turn, and new ones are plausible."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from export_runs import THESIS, asked, exported, manifest, visible, with_config
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small_runs import config_of, picture, tiny_run, write_pictures

import jdm
from jdm.data.image_io import read_raster, write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import open_dataset, read_case, write_case
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.export.amount import order_of
from jdm.export.masks import GivenMasks, deformed, recombined

REQUEST = asked(count=6, batch_size=4, margin=0.25, given_masks="real")


@pytest.fixture
def real(nnunet_folders):
    return write_pictures(nnunet_folders["nnUNet_raw"], classes=3)


def made(**changes):
    """The exported dataset, its manifest, and its files."""
    files = exported(REQUEST, **changes)
    return open_dataset(521), manifest(files), files


def masks_of(run, slices=None, **changes):
    order = order_of(run.checkpoint, asked(REQUEST, **changes))
    return GivenMasks(run, dataclasses.replace(order, slices=slices or order.slices))


def write_mask(folder, name, label):
    write_raster(folder / f"{name}.png", Raster(np.asarray(label, np.uint8)[None], (1.0, 1.0)))


def test_masks_of_the_training_cases_are_used_in_turn_and_come_back(real, run):
    dataset, records, files = made()
    training = sorted(run.checkpoint.metadata["training_ids"])
    assert run.checkpoint.metadata["held_out_ids"][0] not in training
    assert [record["mask_of"] for record in records] == [training[k % len(training)] for k in range(6)]
    for record in records:
        label = read_case(dataset, record["case_id"]).label
        np.testing.assert_array_equal(label, read_case(real, record["mask_of"]).label)
    images = [read_case(dataset, record["case_id"]).image for record in records]
    assert not np.array_equal(images[0], images[4])  # of the same mask
    assert json.loads(files["provenance.json"])["given_masks"] == "real"
    shutil.rmtree(dataset.folder)
    jdm.export(asked(REQUEST, shard="0/2"))
    assert made(shard="1/2")[2] == files


def test_masks_of_a_folder_keep_their_size(run, tmp_path):
    for name, shape in (("a", (16, 24)), ("b", (13, 20)), ("c", (30, 24))):
        label = np.zeros(shape)
        label[3:9, 4:15] = 2
        write_mask(tmp_path, name, label)
    dataset, records, _ = made(given_masks=str(tmp_path))
    assert [record["mask_of"] for record in records] == ["a", "b", "c"] * 2
    for record in records:
        label = read_case(dataset, record["case_id"]).label
        given = read_raster(tmp_path / f"{record['mask_of']}.png", label=True).array[0]
        parts = [given[top : top + 16] for top in range(max(1, len(given) - 15))]  # of "c", larger than the canvas
        assert any(np.array_equal(label, part) for part in parts)
    write_mask(tmp_path, "d", np.full((16, 24), 3))
    for folder, names in ((tmp_path, r"d\.png.* 3"), (tmp_path / "x", f"{tmp_path}/x")):
        with pytest.raises(DataError, match=names):
            made(given_masks=str(folder))


def test_masks_of_held_out_cases_are_refused(real, run, tmp_path):
    (held_out,) = run.checkpoint.metadata["held_out_ids"]
    for name in ("case_0", held_out):
        shutil.copy(real.folder / "labelsTr" / f"{name}.png", tmp_path)
    with pytest.raises(DataError, match=rf"{held_out}.*{real.name}"):
        made(given_masks=str(tmp_path))
    assert visible(real.folder.parent) == [real.name]
    shutil.rmtree(real.folder)  # the run knows the names of those that it held out
    with pytest.raises(DataError, match=held_out):
        made(given_masks=str(tmp_path))
    (tmp_path / f"{held_out}.png").unlink()
    assert made(given_masks=str(tmp_path))[1]


@pytest.mark.parametrize("split", ["held out", "test"])
def test_labels_of_cases_kept_back_are_refused_under_any_name(real, run, tmp_path, split):
    (case,) = run.checkpoint.metadata["held_out_ids"]
    if split == "test":
        case = "t"
        test = picture(case, 99, (16, 24), classes=3)
        write_case(real.folder, test, ".png", labels_folder="labelsTs", images_folder="imagesTs")
    shutil.copy(
        real.folder / ("labelsTs" if split == "test" else "labelsTr") / f"{case}.png", tmp_path / "innocent.png"
    )
    write_mask(tmp_path, "empty", np.zeros((16, 24)))
    with pytest.raises(DataError, match=rf"innocent.* {case} of {real.name}"):
        made(given_masks=str(tmp_path))


def test_two_sets_of_masks_are_not_mixed_and_bad_ones_cost_no_finished_work(real, run, tmp_path):
    for name in ("case_0", "case_1"):
        shutil.copy(real.folder / "labelsTr" / f"{name}.png", tmp_path / f"new_{name}.png")
    request = asked(REQUEST, given_masks=str(tmp_path))
    partial = jdm.export(asked(request, shard="0/2")).folder
    finished = sorted(f.name for f in (partial / "batches").iterdir())
    (tmp_path / "new_case_1.png").rename(tmp_path / "another.png")
    with pytest.raises(ExistsError, match=r"given_masks_sha256.*--overwrite"):
        jdm.export(asked(request, shard="1/2"))
    with pytest.raises(DataError):
        made(given_masks=str(tmp_path / "none"))
    assert finished and sorted(f.name for f in (partial / "batches").iterdir()) == finished


def test_deformed_masks_are_new_and_plausible(real, run):
    dataset, records, files = made(given_masks="deformed")
    masks = [read_case(real, case).label for case in real.cases]
    least, most = (
        np.array(json.loads(files["provenance.json"])["real_foreground_range"][e]) for e in ("least", "most")
    )
    slack = 0.25 * np.maximum(most - least, 0.1 * most)
    for record in records:
        label = read_case(dataset, record["case_id"]).label
        assert label.shape == (16, 24) and not any(np.array_equal(label, mask) for mask in masks)
        shares = np.bincount(label.ravel(), minlength=3) / label.size
        assert (shares >= least - slack).all() and (shares <= most + slack).all()
    assert made(given_masks="deformed")[2] == files


def test_volumes_of_given_masks_are_slices_of_one_case(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(4, 16, 16), spacing=(3.0, 1.0, 1.0), dtype="int16")
    run = tiny_run(real, train={"steps": 2})
    dataset, records, _ = made(count=3)
    for record in records:
        pair, given = read_case(dataset, record["case_id"]), read_case(real, record["mask_of"])
        np.testing.assert_array_equal(pair.label, given.label)
        assert pair.spacing == pytest.approx(given.spacing)
    few = masks_of(run, slices=2).label(0)
    np.testing.assert_array_equal(few, read_case(real, "case_0").label[[0, 3]])


def test_patches_of_masks_fill_the_canvas(real, run):
    patches = with_config(run, {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [16, 32]}})
    masks = masks_of(patches)
    label = read_case(real, "case_1").label
    expected = np.pad(label, [(0, 0), (4, 4)], mode="symmetric")  # narrower than the canvas
    np.testing.assert_array_equal(masks.label(1)[0], expected)
    assert masks.encoded(1).shape == (3, 16, 32)
    part = masks_of(patches, canvas_size=(8, 8)).label(1)[0]
    windows = np.lib.stride_tricks.sliding_window_view(label, (8, 8)).reshape(-1, 8, 8)
    assert part.shape == (8, 8) and any(np.array_equal(part, window) for window in windows)


def test_the_thesis_preset_gets_masks_by_replacement(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    tiny_run(real, **THESIS, train={"steps": 1}, codec={"mask_amplitude": 1.0})
    for sampler in ("ancestral", "ddim"):
        dataset, records, _ = made(count=2, sampler=sampler)
        for record in records:
            given = read_case(real, record["mask_of"]).label
            np.testing.assert_array_equal(read_case(dataset, record["case_id"]).label, given)
    with pytest.raises(ConfigError, match=r"--sampler is ode.*ddim"):
        made(sampler="ode")


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label = np.zeros((1, 40, 40), np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, 34, 2)
        label[:, top : top + 4, left : left + 5] = rng.integers(1, 3)
    return label


@given(st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_a_deformed_mask_has_the_values_and_the_size_of_its_own(seed):
    first, second = blobs(seed), blobs(seed + 1)
    bent, again = (deformed(first, second, config_of(), np.random.default_rng(seed)) for _ in range(2))
    assert bent.shape == first.shape and bent.dtype == first.dtype
    assert set(np.unique(bent)) <= set(np.unique(first)) | set(np.unique(second))
    np.testing.assert_array_equal(bent, again)


def components(label: np.ndarray) -> set[tuple[int, ...]]:
    numbers, count = ndimage.label(label > 0)
    return {tuple(np.where(numbers == k, label, 0).ravel().tolist()) for k in range(1, count + 1)}


@given(st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_recombination_keeps_components_whole(seed):
    first, second = blobs(seed), blobs(seed + 1)
    found = components(recombined(first, second, np.random.default_rng(seed)))
    assert found <= components(first) | components(second)


def test_a_single_organ_is_not_recombined():
    organ = np.zeros((1, 40, 40), np.uint8)
    organ[0, 5:12, 5:12] = 1
    np.testing.assert_array_equal(recombined(organ, blobs(3), np.random.default_rng(0)), organ)


@pytest.mark.parametrize(("axes", "places"), [((), 1), ((0,), 2), ((0, 1), 4)])
def test_masks_are_flipped_only_where_the_plan_allows(axes, places):
    still = {"scale": 0.0, "rotation_degrees": 0.0, "translation": 0.0, "mirror_axes": axes}
    label = np.zeros((1, 40, 40), np.uint8)
    label[0, 5:15, 5:15] = 1  # a quarter: where it lies shows the flips
    bent = [deformed(label, label, config_of(augment=still), np.random.default_rng(k)) for k in range(40)]
    assert len({tuple((np.argwhere(m[0]).mean(0) > 19.5).tolist()) for m in bent}) == places

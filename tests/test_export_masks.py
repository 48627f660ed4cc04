"""Exports for given masks: the masks come back, are used in turn, and new ones are plausible."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jdm.plan.foreground import ForegroundRange
from small_runs import changed, tiny_run, write_pictures

import jdm.cli.export
from jdm.config.settings import Config
from jdm.data.image_io import read_raster, write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import open_dataset, read_case, read_dataset
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.export.masks import GivenMasks, deformed, recombined
from jdm.export.pairs import export
from jdm.export.request import ExportRequest, check_request

REQUEST = ExportRequest(
    id=521, name="Stripes_syn", count=6, canvas_size=(16, 24), steps=3, batch_size=4, seed=4, given_masks="real"
)  # fmt: skip
ANY = ForegroundRange((0.0,) * 3, (1.0,) * 3, 1.0)


@pytest.fixture
def real(nnunet_folders):
    return write_pictures(nnunet_folders["nnUNet_raw"], classes=3)


def exported(checkpoint, real, request=REQUEST, **options):
    done = export(checkpoint, real, request, overwrite=True, **options)
    files = {str(f.relative_to(done.folder)): f.read_bytes() for f in done.folder.rglob("*") if f.is_file()}
    manifest = [json.loads(line) for line in (done.folder / "manifest.jsonl").read_text().splitlines()]
    return open_dataset(request.id), files, manifest


def test_masks_of_the_training_cases_are_used_in_turn_and_come_back(real, checkpoint):
    made, files, manifest = exported(checkpoint, real)
    training = sorted(checkpoint.metadata["training_ids"])
    assert [line["mask_of"] for line in manifest] == [training[k % len(training)] for k in range(6)]
    assert checkpoint.metadata["held_out_ids"][0] not in training
    for line in manifest:
        pair = read_case(made, line["case_id"])
        np.testing.assert_array_equal(pair.label, read_case(real, line["mask_of"]).label)
    images = [read_case(made, line["case_id"]).image for line in manifest]
    assert not np.array_equal(images[0], images[4])  # of the same mask
    provenance = json.loads((made.folder / "provenance.json").read_text())
    assert provenance["given_masks"] == "real"

    shutil.rmtree(made.folder)
    export(checkpoint, real, REQUEST, shard=(0, 2))
    _, sharded, _ = exported(checkpoint, real, shard=(1, 2))
    assert sharded == files


def test_masks_of_a_folder_keep_their_size(real, checkpoint, tmp_path):
    shapes = {"a": (16, 24), "b": (13, 20), "c": (30, 24)}
    for name, shape in shapes.items():
        label = np.zeros((1, *shape), np.uint8)
        label[:, 3:9, 4:15] = 2
        write_raster(tmp_path / f"{name}.png", Raster(label, (1.0, 1.0)))
    request = dataclasses.replace(REQUEST, given_masks=str(tmp_path))
    made, _, manifest = exported(checkpoint, real, request)
    assert [line["mask_of"] for line in manifest] == ["a", "b", "c"] * 2
    for line in manifest:
        label = read_case(made, line["case_id"]).label
        given = read_raster(tmp_path / f"{line['mask_of']}.png", label=True).array[0]
        if line["mask_of"] == "c":  # larger than the canvas: a part of it
            assert any(np.array_equal(label, given[top : top + 16]) for top in range(15))
        else:
            np.testing.assert_array_equal(label, given)
    write_raster(tmp_path / "d.png", Raster(np.full((1, 16, 24), 3, np.uint8), (1.0, 1.0)))
    with pytest.raises(DataError, match="the label holds 3; expected only"):
        export(checkpoint, real, request, overwrite=True)
    with pytest.raises(DataError, match="is no folder"):
        export(checkpoint, real, dataclasses.replace(request, given_masks=str(tmp_path / "x")), overwrite=True)


def test_masks_of_held_out_cases_are_refused(real, checkpoint, tmp_path):
    (held_out,) = checkpoint.metadata["held_out_ids"]
    for name in (checkpoint.metadata["training_ids"][0], held_out):
        shutil.copy(real.folder / "labelsTr" / f"{name}.png", tmp_path)
    before = sorted(f.name for f in real.folder.parent.iterdir())
    request = dataclasses.replace(REQUEST, given_masks=str(tmp_path))
    with pytest.raises(DataError, match=rf"masks {held_out} are named as cases of .*leave them out"):
        export(checkpoint, real, request)
    assert sorted(f.name for f in real.folder.parent.iterdir()) == before
    (tmp_path / f"{held_out}.png").unlink()
    assert exported(checkpoint, real, request)[2]


@pytest.mark.parametrize("split", ["held out", "test"])
def test_labels_of_cases_kept_back_are_refused_under_any_name(real, checkpoint, tmp_path, split):
    (case,) = checkpoint.metadata["held_out_ids"]
    if split == "test":
        for kind, name in (("images", "t_0000.png"), ("labels", "t.png")):
            (real.folder / f"{kind}Ts").mkdir()
            source = real.folder / f"{kind}Tr" / (f"{case}_0000.png" if kind == "images" else f"{case}.png")
            shutil.copy(source, real.folder / f"{kind}Ts" / name)
        label = read_raster(real.folder / "labelsTs" / "t.png", label=True).array
        label[0, 0] = 1 - label[0, 0].clip(0, 1)  # another one than the held-out case's
        write_raster(real.folder / "labelsTs" / "t.png", Raster(label, (1.0, 1.0)))
        real, case = read_dataset(real.folder), "t"
    folder = "labelsTs" if split == "test" else "labelsTr"
    shutil.copy(real.folder / folder / f"{case}.png", tmp_path / "innocent.png")
    write_raster(tmp_path / "empty.png", Raster(np.zeros((1, 16, 24), np.uint8), (1.0, 1.0)))
    request = dataclasses.replace(REQUEST, given_masks=str(tmp_path))
    with pytest.raises(DataError, match=rf"mask innocent is the label of {case} of .*never saw.*leave them out"):
        export(checkpoint, real, request)


def test_two_sets_of_masks_are_not_mixed_and_bad_ones_cost_no_finished_work(real, checkpoint, tmp_path):
    for name in checkpoint.metadata["training_ids"][:2]:
        shutil.copy(real.folder / "labelsTr" / f"{name}.png", tmp_path / f"new_{name}.png")
    request = dataclasses.replace(REQUEST, given_masks=str(tmp_path))
    export(checkpoint, real, request, shard=(0, 2))
    (partial,) = real.folder.parent.glob(".jdm-partial-*_syn")
    finished = sorted(f.name for f in (partial / "batches").iterdir())
    (tmp_path / f"new_{name}.png").rename(tmp_path / "another.png")
    with pytest.raises(ExistsError, match="other settings"):
        export(checkpoint, real, request, shard=(1, 2))
    gone = dataclasses.replace(REQUEST, given_masks=str(tmp_path / "none"))
    with pytest.raises(DataError):
        export(checkpoint, real, gone, overwrite=True)
    assert finished and sorted(f.name for f in (partial / "batches").iterdir()) == finished


def test_deformed_masks_are_new_and_plausible(real, checkpoint):
    made, files, manifest = exported(checkpoint, real, dataclasses.replace(REQUEST, given_masks="deformed"))
    masks = [read_case(real, case).label for case in real.cases]
    provenance = json.loads((made.folder / "provenance.json").read_text())
    least, most = (np.array(provenance["real_foreground_range"][end]) for end in ("least", "most"))
    for line in manifest:
        label = read_case(made, line["case_id"]).label
        assert label.shape == (16, 24) and not any(np.array_equal(label, mask) for mask in masks)
        shares = np.bincount(label.ravel(), minlength=3) / label.size
        slack = 0.25 * np.maximum(most - least, 0.1 * most)
        assert (shares >= least - slack).all() and (shares <= most + slack).all()
    assert exported(checkpoint, real, dataclasses.replace(REQUEST, given_masks="deformed"))[1] == files


def test_volumes_of_given_masks_are_slices_of_one_case(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(4, 16, 16), spacing=(3.0, 1.0, 1.0), dtype="int16")
    checkpoint = tiny_run(real, train={"steps": 2})
    request = dataclasses.replace(REQUEST, canvas_size=(16, 16), slices=4, count=3)
    made, _, manifest = exported(checkpoint, real, request)
    for line in manifest:
        pair, given = read_case(made, line["case_id"]), read_case(real, line["mask_of"])
        np.testing.assert_array_equal(pair.label, given.label)
        assert pair.spacing == pytest.approx(given.spacing)
    masks = GivenMasks(real, list(real.cases), checkpoint.config, dataclasses.replace(request, slices=2), ANY)
    np.testing.assert_array_equal(masks.label(0), read_case(real, "case_0").label[[0, 3]])


def test_patches_of_masks_fill_the_canvas(real, checkpoint):
    config = changed(checkpoint.config, {"data": {"whole": False, "canvas_size": (16, 32)}})
    request = dataclasses.replace(REQUEST, canvas_size=(16, 32))
    masks = GivenMasks(real, list(real.cases), config, request, ANY)
    label = read_case(real, "case_1").label
    expected = np.pad(label, [(0, 0), (4, 4)], mode="symmetric")  # narrower than the canvas
    np.testing.assert_array_equal(masks.label(1)[0], expected)
    assert masks.encoded([1]).shape == (1, 3, 16, 32)
    small = dataclasses.replace(REQUEST, canvas_size=(8, 8))
    part = GivenMasks(real, list(real.cases), config, small, ANY).label(1)[0]
    assert part.shape == (8, 8)
    windows = np.lib.stride_tricks.sliding_window_view(label, (8, 8)).reshape(-1, 8, 8)
    assert any(np.array_equal(part, window) for window in windows)


def test_the_thesis_preset_gets_masks_by_replacement(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    thesis = {
        "preset": "thesis", "train": {"steps": 1}, "augment": {"probability": 0.0}, "codec": {"mask_amplitude": 1.0},
    }  # fmt: skip
    checkpoint = tiny_run(real, **thesis)
    for sampler in ("ancestral", "ddim"):
        made, _, manifest = exported(checkpoint, real, dataclasses.replace(REQUEST, count=2, sampler=sampler))
        for line in manifest:
            given = read_case(real, line["mask_of"]).label
            np.testing.assert_array_equal(read_case(made, line["case_id"]).label, given)


def blobs(seed: int, shape: tuple[int, ...] = (1, 40, 40)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, 34, 2)
        label[:, top : top + 4, left : left + 5] = rng.integers(1, 3)
    return label


@given(st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_a_deformed_mask_has_the_values_and_the_size_of_its_own(seed):
    first, second = blobs(seed), blobs(seed + 1)
    made = deformed(first, second, Config(), np.random.default_rng(seed))
    assert made.shape == first.shape and made.dtype == first.dtype
    assert set(np.unique(made)) <= set(np.unique(first)) | set(np.unique(second))
    np.testing.assert_array_equal(made, deformed(first, second, Config(), np.random.default_rng(seed)))


@given(st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_recombination_keeps_components_whole(seed):
    first, second = blobs(seed), blobs(seed + 1)
    made = recombined(first, second, np.random.default_rng(seed))
    for pixel in np.argwhere(made > 0):
        value = made[tuple(pixel)]
        assert value in (first[tuple(pixel)], second[tuple(pixel)])
    from scipy import ndimage

    def components(label):
        numbers, count = ndimage.label(label > 0)
        return {tuple(np.where(numbers == k, label, 0).ravel().tolist()) for k in range(1, count + 1)}

    assert components(made) <= components(first) | components(second)


def test_a_single_organ_is_not_recombined():
    organ = np.zeros((1, 20, 20), np.uint8)
    organ[0, 5:12, 5:12] = 1
    np.testing.assert_array_equal(
        recombined(organ, blobs(3, (1, 40, 40))[:, :20, :20], np.random.default_rng(0)), organ
    )


def test_masks_are_flipped_only_where_the_plan_allows():
    still = changed(Config(), {"augment": {"scale": 0.0, "rotation_degrees": 0.0, "translation": 0.0}})
    label = np.zeros((1, 40, 40), np.uint8)
    label[0, 5:15, 5:15] = 1  # a quarter: where it lies shows the flips
    for axes, places in (((), 1), ((0,), 2), ((0, 1), 4)):
        config = changed(still, {"augment": {"mirror_axes": axes}})
        made = [deformed(label, label, config, np.random.default_rng(k)) for k in range(40)]
        centres = {tuple((np.argwhere(m[0]).mean(0) > 19.5).tolist()) for m in made}
        assert len(centres) == places


def test_the_command_and_settings_that_do_not_fit(real, checkpoint, monkeypatch, capsys, tmp_path):
    with pytest.raises(ConfigError, match="--masks is 'estimated' with --given-masks"):
        check_request(checkpoint.config, dataclasses.replace(REQUEST, masks="estimated"))
    words = ["jdm-export", "21", "all", "--id", "522", "--count", "2", "--steps", "3"]
    monkeypatch.setattr(sys, "argv", [*words, "--given-masks", "deformed"])
    jdm.cli.export.main()
    assert "2 pairs in" in capsys.readouterr().out
    assert json.loads((open_dataset(522).folder / "provenance.json").read_text())["masks"] == "sampled"
    monkeypatch.setattr(sys, "argv", [*words, "--overwrite", "--given-masks", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as stopped:
        jdm.cli.export.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "is no folder" in error and len(error.splitlines()) == 1

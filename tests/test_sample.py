"""jdm-sample: what is given stays bit for bit, files are of the dataset's kind, and bad input is one clear line."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import changed, picture, tiny_run, write_pictures

import jdm.cli.sample
from jdm.data.image_io import read_raster, write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import Pair, read_case, write_case
from jdm.draw.canvas import CaseCanvas, around, decoded, in_type, seam
from jdm.draw.drawer import Drawer, evaluations, planned_seconds
from jdm.draw.given import painted
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.sample.modes import draw_planes, sample
from jdm.sample.output import Row, write_sheet
from jdm.sample.request import SampleRequest, check_request, known_numbers
from jdm.sample.starts import _inpainting, prepare

FAST = SampleRequest("given-images", steps=3, samples=2, jump_length=1, repetitions=2, batch_size=3, seed=4)


@pytest.fixture(scope="module")
def run(two_channel_run):
    return two_channel_run


@pytest.fixture(scope="module")
def volumes(run):
    real = write_pictures(
        run[0].folder.parent, "Dataset022_Slabs", shape=(4, 16, 16), spacing=(3.0, 1.0, 1.0), dtype="int16"
    )
    return real, tiny_run(real, train={"steps": 2})


def asked(mode, **changes) -> SampleRequest:
    return dataclasses.replace(FAST, mode=mode, **changes)


def sampled(out: Path) -> dict[str, Pair]:
    """The pairs of an output folder, which are read as a dataset would be."""
    ids = sorted(path.name.partition(".")[0] for path in (out / "labelsTr").iterdir())
    content = json.loads((out / "dataset.json").read_text())
    assert content["numTraining"] == len(ids)
    pairs = {}
    for case in ids:
        channels = [read_raster(f) for f in sorted((out / "imagesTr").glob(f"{case}_*"))]
        label = read_raster(out / "labelsTr" / f"{case}{content['file_ending']}", label=True)
        image = np.concatenate([c.array for c in channels])
        pairs[case] = Pair(case, image, label.array[0], label.spacing, label.geometry)
    return pairs


def test_masks_give_images_and_come_back(run, tmp_path):
    real, checkpoint = run
    shutil.copytree(real.folder / "labelsTr", tmp_path / "masks")
    out = tmp_path / "out"
    sample(checkpoint, real, asked("given-masks", folder=str(tmp_path / "masks")), out)
    pairs = sampled(out)
    assert sorted(pairs) == [f"{case}_s{k}" for case in real.cases for k in range(2)]
    for name, pair in pairs.items():
        given = read_case(real, name[:-3])
        np.testing.assert_array_equal(pair.label, given.label)
        assert pair.image.shape == given.image.shape and pair.image.dtype == np.uint8 and np.ptp(pair.image) > 0
    assert not np.array_equal(pairs["case_0_s0"].image, pairs["case_0_s1"].image)


def test_a_sample_depends_on_its_seed_alone(run, tmp_path):
    real, checkpoint = run
    folder = str(real.folder / "labelsTr")
    for name, changes in (("a", {}), ("b", {}), ("more", {"samples": 3}), ("other", {"seed": 5})):
        sample(checkpoint, real, asked("given-masks", folder=folder, batch_size=1, **changes), tmp_path / name)
    first, again, more, other = (sampled(tmp_path / name) for name in ("a", "b", "more", "other"))
    for name, pair in first.items():
        np.testing.assert_array_equal(pair.image, again[name].image)
        np.testing.assert_array_equal(pair.image, more[name].image)
        assert not np.array_equal(pair.image, other[name].image)


def test_slices_may_be_left_out_without_changing_the_others(volumes):
    real, checkpoint = volumes
    request = asked("given-masks", folder=str(real.folder / "labelsTr"), batch_size=1)
    starts = prepare(checkpoint, real, request)[:2]
    whole = draw_planes(Drawer(checkpoint, request, "cpu"), starts, request)
    few = [dataclasses.replace(start, planes=start.planes[2:3]) for start in starts]
    part = draw_planes(Drawer(checkpoint, request, "cpu"), few, request)
    for s, k in np.ndindex(2, request.samples):
        assert list(part[s][k]) == [2] and list(whole[s][k]) == [0, 1, 2, 3]
        np.testing.assert_array_equal(part[s][k][2][0], whole[s][k][2][0])


@pytest.mark.parametrize(("exact", "repetitions"), [(True, 1), (False, 1), (False, 2)])
def test_a_mask_is_honoured_exactly_or_by_replacement(run, exact, repetitions):
    real, checkpoint = run
    request = asked("given-masks", folder=str(real.folder / "labelsTr"), repetitions=repetitions)
    starts = prepare(checkpoint, real, request)
    drawer = Drawer(checkpoint, request, "cpu")
    levels = []
    drawer.denoiser.register_forward_pre_hook(lambda _, arguments: levels.append(arguments[1].clone()))
    drawn = draw_planes(drawer, starts, request, exact=exact)
    told = torch.cat(levels)  # the network's: of the image, of the mask
    assert (told[:, 0] > 0).all()
    assert (told[:, 1] == 0).all() if exact else (told[:, 1] == told[:, 0]).all()
    jumps = 0 if repetitions == 1 else 2  # of one step each, from the two levels that leave room for one
    assert len(told) == len(starts) * request.samples * (2 * request.steps - 1 + 2 * jumps)
    for start, samples in zip(starts, drawn, strict=True):
        for planes in samples:
            np.testing.assert_array_equal(planes[0][1], start.case.label[0])


def test_inpainting_leaves_everything_outside_as_it_was(run, tmp_path):
    real, checkpoint = run
    box = (4, 6, 12, 18)
    sample(checkpoint, real, asked("inpaint", cases=("case_1",), box=box, feather=1), tmp_path / "out")
    before = read_case(real, "case_1")
    inside = np.zeros(before.label.shape, dtype=bool)
    inside[4:12, 6:18] = True
    pairs = sampled(tmp_path / "out")
    assert sorted(pairs) == ["case_1_s0", "case_1_s1"]
    for pair in pairs.values():
        assert pair.image.dtype == before.image.dtype
        np.testing.assert_array_equal(pair.image[:, ~inside], before.image[:, ~inside])
        np.testing.assert_array_equal(pair.label[~inside], before.label[~inside])
        assert (pair.image[:, inside] != before.image[:, inside]).mean() > 0.5


def test_what_is_inpainted_is_not_known_in_the_padding(run, tmp_path):
    real, checkpoint = run
    patch = {"data": {"patch_size": [24, 32], "canvas_size": [24, 32]}}  # pictures of 16 x 24 are padded by 4
    case = CaseCanvas(read_case(real, "case_1"), changed(checkpoint.config, patch))
    start = _inpainting(case, real, asked("inpaint", cases=("case_1",), box=(0, 6, 3, 18)))
    where = start.planes[0].where
    rows, columns = np.nonzero(~where.all(axis=0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 6, 10, 21)  # rows 1 to 3 mirror 4 to 6


def test_inpainting_adds_and_removes_a_lesion(run, tmp_path):
    real, checkpoint = run
    before = read_case(real, "case_2")
    region = np.zeros((1, *before.label.shape), np.uint8)
    region[0, 3:13, 5:20] = 7
    write_raster(tmp_path / "region.png", Raster(region, (1.0, 1.0)))
    options = {"cases": ("case_2",), "region": str(tmp_path / "region.png"), "feather": 0}
    for lesion, value in (("class2", 2), ("background", 0)):
        out = tmp_path / lesion
        sample(checkpoint, real, asked("inpaint", lesion=lesion, **options), out)
        for pair in sampled(out).values():
            assert (pair.label[region[0] > 0] == value).all()
            np.testing.assert_array_equal(pair.label[region[0] == 0], before.label[region[0] == 0])
            np.testing.assert_array_equal(pair.image[:, region[0] == 0], before.image[:, region[0] == 0])


def test_a_lesion_may_be_a_class_above_255(run):
    """The files of a case hold no more bits than its own classes need; the dataset's may need more."""
    many = dataclasses.replace(run[0], labels={f"class{k}": k for k in range(301)})
    config = changed(run[1].config, {"codec": {"classes": 301, "mask_code": "bits"}, "noise": {"data_mean": []}})
    case = CaseCanvas(read_case(many, "case_2"), config)
    start = _inpainting(case, many, asked("inpaint", box=(3, 5, 13, 20), lesion="class300", feather=0))
    (plane,) = start.planes
    made = start.finish({plane.number: decoded(config, plane.canvas, plane.canvas.x)})
    assert set(np.unique(made.label)) == {*np.unique(case.pair.label), 300}


def test_the_seam_and_the_lesion_of_a_box():
    region = np.zeros((9, 9), dtype=bool)
    region[2:7, 1:8] = True
    weight = seam(region, 2)
    assert (weight[~region] == 0).all() and (weight[region] > 0).all() and weight[4, 4] == 1
    np.testing.assert_allclose(weight[2:5, 4], [1 / 3, 2 / 3, 1])
    assert (seam(region, 0)[region] == 1).all()
    assert seam(region, 50).max() == 1  # narrow as it is
    stacked = np.stack([region, ~region, np.zeros_like(region)])
    by_slice = seam(stacked, 2, slice_axis=0)
    np.testing.assert_array_equal(by_slice[0], weight)
    assert (by_slice[2] == 0).all() and (by_slice[1][region] == 0).all()
    ellipse = painted(region, (2, 1, 7, 8), background=False)
    assert not (ellipse & ~region).any() and ellipse[4, 4] and ellipse[4, 1] and not ellipse[2, 1]
    assert abs(ellipse.sum() - np.pi * 2.5 * 3.5) < 4
    assert (painted(region, (2, 1, 7, 8), background=True) == region).all()


def test_the_part_around_a_region_holds_it_and_a_patch():
    region = np.zeros((100, 30), dtype=bool)
    region[95:97, 10:12] = True
    rows, columns = around(region, (16, 24))
    assert rows.start <= 87 and rows.stop == 100 and rows.stop - rows.start >= 16
    assert (columns.start, columns.stop) == (0, 24)
    region[:] = False
    region[0, 0] = True
    assert all(part.start == 0 and part.stop >= 16 for part in around(region, (16, 24)))


def test_a_channel_is_sampled_from_another_one(run, tmp_path):
    real, checkpoint = run
    request = asked("known-channels", channels=("c1", "mask"), cases=("case_0", "case_3"))
    sample(checkpoint, real, request, tmp_path / "out")
    for name, pair in sampled(tmp_path / "out").items():
        before = read_case(real, name[:-3])
        np.testing.assert_array_equal(pair.image[1], before.image[1])
        np.testing.assert_array_equal(pair.label, before.label)
        assert not np.array_equal(pair.image[0], before.image[0])
    assert known_numbers(("0", "mask"), ("c0", "c1"), 2, 3) == [0, 2, 3, 4]
    for names, problem in ((("c7",), "'c7'"), (("2",), "'2'"), (("0", "1", "mask"), "every channel")):
        with pytest.raises(ConfigError, match=problem):
            known_numbers(names, ("c0", "c1"), 2, 3)


def test_variations_go_further_from_the_pair_the_higher_the_level(run, tmp_path):
    real, checkpoint = run
    distances = []
    for level in (0.01, 0.3, 5.0):
        out = tmp_path / str(level)
        sample(checkpoint, real, asked("vary", cases=("case_0", "case_1"), level=level), out)
        distances.append(
            np.mean(
                [
                    np.abs(pair.image.astype(float) - read_case(real, name[:-3]).image).mean()
                    for name, pair in sampled(out).items()
                ]
            )
        )
        if level == 0.01:
            assert all((p.label == read_case(real, name[:-3]).label).all() for name, p in sampled(out).items())
    assert distances == sorted(distances) and distances[0] < 3 < distances[-1]


@pytest.mark.parametrize("cases", [(), ("case_0", "case_1")])
def test_an_interpolation_is_a_strip_from_one_end_to_the_other(run, tmp_path, cases):
    real, checkpoint = run
    request = asked("interpolate", cases=cases, points=5, steps=12)
    assert sample(checkpoint, real, request, tmp_path / "out") == 5
    pairs = list(sampled(tmp_path / "out").values())
    assert [pair.case_id for pair in pairs] == [f"interpolated_{k:02d}" for k in range(5)]
    away = [np.abs(pair.image.astype(float) - pairs[0].image).mean() for pair in pairs]
    assert away[0] == 0 and away[1] < away[-1]
    if cases:
        ends = [read_case(real, case) for case in cases]
        to_ends = [[np.abs(p.image.astype(float) - end.image).mean() for end in ends] for p in (pairs[0], pairs[-1])]
        assert to_ends[0][0] < to_ends[0][1] and to_ends[1][1] < to_ends[1][0]


def test_volumes_keep_their_grid(volumes, tmp_path):
    real, checkpoint = volumes
    box = (1, 2, 3, 3, 12, 14)
    sample(checkpoint, real, asked("inpaint", cases=("case_1",), box=box, feather=0, samples=1), tmp_path / "inpaint")
    before, after = read_case(real, "case_1"), sampled(tmp_path / "inpaint")["case_1_s0"]
    inside = np.zeros(before.label.shape, dtype=bool)
    inside[1:3, 2:12, 3:14] = True
    np.testing.assert_array_equal(after.image[:, ~inside], before.image[:, ~inside])
    assert (after.image[:, inside] != before.image[:, inside]).mean() > 0.5
    sample(checkpoint, real, asked("inpaint", cases=("case_1",), box=box, lesion="background"), tmp_path / "gone")
    core = sampled(tmp_path / "gone")["case_1_s0"].label[1:3, 5:9, 6:11]
    assert before.label[1:3, 5:9, 6:11].any() and not core.any()
    assert after.spacing == pytest.approx(before.spacing) and after.geometry == before.geometry

    request = asked("given-images", folder=str(real.folder / "imagesTr"))
    sample(checkpoint, real, request, tmp_path / "labels")
    label = read_raster(tmp_path / "labels" / "labels" / "case_0.nii.gz", label=True)
    uncertainty = read_raster(tmp_path / "labels" / "uncertainty" / "case_0.nii.gz")
    assert label.array[0].shape == uncertainty.array[0].shape == (4, 16, 16)
    assert (
        label.spacing == pytest.approx((3.0, 1.0, 1.0)) and 0 <= uncertainty.array.min() <= uncertainty.array.max() <= 1
    )

    sample(checkpoint, real, asked("interpolate", cases=("case_0", "case_1"), points=2), tmp_path / "strip")
    assert all(pair.label.shape == (1, 16, 16) for pair in sampled(tmp_path / "strip").values())


def test_the_sheet_of_volumes_shows_the_slice_in_focus(tmp_path):
    label = np.zeros((3, 8, 8), np.uint8)
    label[0] = 1
    image = np.zeros((1, 3, 8, 8), np.uint8)
    image[0, 2] = np.arange(64).reshape(8, 8)
    focus = np.zeros(label.shape, dtype=bool)
    focus[2, 1] = True
    pair = Pair("a", image, label, (1.0, 1.0, 1.0))
    shown = {}
    for name, row in (("label", Row([pair])), ("focus", Row([pair], focus))):
        write_sheet(tmp_path, [row])
        with Image.open(tmp_path / "sheet.png") as sheet:
            shown[name] = len(np.unique(np.asarray(sheet.convert("L").crop((8, 8, 120, 120)))))
    assert shown["focus"] > 30 and shown["label"] < 5


def test_the_way_to_the_planned_grid_and_back(volumes):
    """Another spacing and arbitrary units: the case's own grid, type and intensities return."""
    _, checkpoint = volumes
    config = dataclasses.replace(
        checkpoint.config, data=dataclasses.replace(checkpoint.config.data, case_mean=(100.0,), case_std=(30.0,))
    )
    pair = picture("a", 3, (5, 24, 24), spacing=(3.0, 0.8, 0.8), dtype="int16")
    case = CaseCanvas(pair, config)
    assert case.label.shape == (5, 19, 19)
    image = case.native_image(case.image)
    assert image.shape == pair.image.shape and image.dtype == np.int16
    assert np.abs(image.astype(float) - pair.image).mean() < 0.1 * np.ptp(pair.image)
    assert (case.native_label(case.label) == pair.label).mean() > 0.9
    same = CaseCanvas(dataclasses.replace(pair, spacing=(3.0, 1.0, 1.0)), config)
    np.testing.assert_allclose(same.native_image(same.image), pair.image, atol=1)
    np.testing.assert_array_equal(same.native_label(same.label), pair.label)
    assert in_type(np.array([-4.0, 3.6, 300.0]), np.dtype("uint8")).tolist() == [0, 4, 255]


def test_the_thesis_preset_knows_by_replacement(run, tmp_path):
    real, _ = run
    small = write_pictures(real.folder.parent, "Dataset023_Thesis")
    thesis = {
        "preset": "thesis", "train": {"steps": 1}, "augment": {"probability": 0.0}, "codec": {"mask_amplitude": 1.0},
    }  # fmt: skip
    checkpoint = tiny_run(small, **thesis)
    sample(checkpoint, small, asked("given-masks", folder=str(small.folder / "labelsTr")), tmp_path / "out")
    for name, pair in sampled(tmp_path / "out").items():
        np.testing.assert_array_equal(pair.label, read_case(small, name[:-3]).label)


def test_a_weaker_checkpoint_guides(run, tmp_path):
    real, checkpoint = run
    request = asked("vary", level=2.0, cases=("case_0",), samples=1)
    sample(checkpoint, real, request, tmp_path / "plain")
    own = dataclasses.replace(request, guidance=3.0)
    sample(checkpoint, real, own, tmp_path / "own", weaker=checkpoint)
    plain, guided = (sampled(tmp_path / name)["case_0_s0"].image for name in ("plain", "own"))
    assert np.abs(plain.astype(int) - guided).max() <= 1  # by itself, nowhere
    worse = dataclasses.replace(checkpoint, weights={k: 1.3 * w for k, w in checkpoint.weights.items()})
    sample(checkpoint, real, own, tmp_path / "worse", weaker=worse)
    assert not np.array_equal(sampled(tmp_path / "worse")["case_0_s0"].image, plain)
    codec = dataclasses.replace(checkpoint.config.codec, classes=4)
    other = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, codec=codec))
    held_out = checkpoint.metadata["held_out_ids"]
    seen = {**checkpoint.metadata, "training_ids": [*checkpoint.metadata["training_ids"], *held_out]}
    leaking = dataclasses.replace(checkpoint, metadata=seen)
    for asks, weaker, problem in (
        (own, None, "with neither a class nor a --guide"),
        (own, leaking, f"was trained on {held_out[0]}, which the guided one never saw"),
        (request, worse, "with a --guide"),
        (own, other, "codec.classes: 4, expected 3"),
    ):
        with pytest.raises(ConfigError, match=problem):
            sample(checkpoint, real, asks, tmp_path / "none", weaker=weaker)
    assert not (tmp_path / "none").exists()


def refused(run, request, problem, kind=DataError):
    real, checkpoint = run
    with pytest.raises(kind, match=problem) as caught:
        prepare(checkpoint, real, request)
    assert "\n" not in str(caught.value)


def test_bad_conditions_are_one_clear_line(run, tmp_path):

    folder = tmp_path / "given"
    refused(run, asked("given-images", folder=str(folder)), "is no folder")
    folder.mkdir()
    refused(run, asked("given-masks", folder=str(folder)), "has no .png files, found none at all")
    write_raster(folder / "a.png", Raster(np.full((1, 16, 24), 5, np.uint8), (1.0, 1.0)))
    refused(run, asked("given-masks", folder=str(folder)), "the label holds 5; expected only 0")
    refused(run, asked("given-images", folder=str(folder)), "expected a name like case_0000.png")
    write_raster(folder / "a.png", Raster(np.zeros((1, 160, 24), np.uint8), (1.0, 1.0)))
    refused(run, asked("given-masks", folder=str(folder)), r"the size is \(160, 24\)")
    other = write_pictures(tmp_path, "Dataset031_Other", classes=2)
    refused(run, asked("given-masks", folder=str(other.folder / "labelsTr")), "another dataset: its labels")
    refused(run, asked("given-images", folder=str(other.folder / "imagesTr")), "another dataset: its channel_names")
    shutil.copytree(other.folder / "imagesTr", tmp_path / "loose")
    refused(run, asked("given-images", folder=str(tmp_path / "loose")), "has 1 channels; expected 2")
    pair = picture("deep", 0, (16, 24), channels=2)
    write_case(tmp_path / "wide", Pair("deep", pair.image.astype(np.uint16), pair.label, pair.spacing), ".png")
    refused(run, asked("given-images", folder=str(tmp_path / "wide" / "imagesTr")), "pixels are uint16; expected uint8")
    (tmp_path / "wide" / "imagesTr" / "deep_0000.png").unlink()
    refused(run, asked("given-images", folder=str(tmp_path / "wide" / "imagesTr")), "channel 0 of its case is missing")
    refused(run, asked("vary", level=0.4, cases=("nobody",)), "no training case 'nobody'")


def test_bad_regions_are_one_clear_line(run, tmp_path):
    case = {"cases": ("case_0",)}
    refused(run, asked("inpaint", box=(0, 0, 99, 5), **case), "--box is .* inside case case_0", ConfigError)
    refused(run, asked("inpaint", box=(4, 4, 4, 9), **case), "--box is", ConfigError)
    refused(run, asked("inpaint", box=(0, 0, 5), **case), "2 first pixels", ConfigError)
    refused(run, asked("inpaint", **case), "neither way; expected one of them", ConfigError)
    refused(run, asked("inpaint", box=(0, 0, 5, 5), lesion="wart", **case), "--lesion is 'wart'", ConfigError)
    for shape, problem in (((1, 8, 8), r"the size is \(8, 8\)"), ((1, 16, 24), "no pixel is marked")):
        path = tmp_path / "region.png"
        write_raster(path, Raster(np.zeros(shape, np.uint8), (1.0, 1.0)))
        refused(run, asked("inpaint", region=str(path), **case), problem)


def test_bad_settings_name_their_flag(run):
    config = run[1].config
    for changes, flag in (
        ({"samples": 0}, "--samples"), ({"steps": 2}, "--steps"), ({"jump_length": 0}, "--jump-length"),
        ({"mode": "inpaint", "box": (0, 0, 5, 5), "jump_length": 3}, "--jump-length"),
        ({"repetitions": 0}, "--repetitions"), ({"batch_size": 0}, "--batch-size"), ({"overlap": 1.0}, "--overlap"),
        ({"seed": -1}, "--seed"),
        ({"guidance": 0.0}, "--guidance"), ({"mode": "vary", "level": 0.0}, "--vary"), ({"points": 1}, "--points"),
        ({"mode": "interpolate", "cases": ("a",)}, "--interpolate"), ({"feather": -1}, "--feather"),
        ({"sampler": "ancestral"}, "--sampler"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=flag):
            check_request(config, dataclasses.replace(FAST, **changes))


@pytest.mark.parametrize("mode", ["given-images", "given-masks", "vary", "interpolate", "bits-per-dim", "inpaint"])
def test_three_steps_are_enough_where_nothing_is_resampled(run, mode):
    request = SampleRequest(mode, steps=3, level=0.4, box=(0, 0, 5, 5) if mode == "inpaint" else ())
    check_request(run[1].config, dataclasses.replace(request, repetitions=1))
    if mode != "inpaint":
        check_request(run[1].config, request)


def test_nothing_is_overwritten_without_leave(run, tmp_path):
    real, checkpoint = run
    out, request = tmp_path / "out", asked("vary", level=0.4, cases=("case_0",), samples=1)
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match="holds no samples"):
            sample(checkpoint, real, request, out, overwrite=overwrite)
    assert (out / "thesis.doc").read_text() == "mine"
    sample(checkpoint, real, request, tmp_path / "new")
    before = {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    with pytest.raises(ExistsError, match="--overwrite"):
        sample(checkpoint, real, request, tmp_path / "new")
    with pytest.raises(DataError):
        sample(checkpoint, real, dataclasses.replace(request, cases=("nobody",)), tmp_path / "new", overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()} == before
    sample(checkpoint, real, dataclasses.replace(request, samples=2), tmp_path / "new", overwrite=True)
    assert len(sampled(tmp_path / "new")) == 2


def command(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["jdm-sample", "21", "all", *words])
    jdm.cli.sample.main()


def test_the_command(run, tmp_path, monkeypatch, capsys):
    real, _ = run
    fast = ("--steps", "3", "--jump-length", "1", "--samples", "1")
    words = ("--given-masks", str(real.folder / "labelsTr"), *fast)
    command(monkeypatch, *words, "--dry-run")
    said = capsys.readouterr().out
    assert "given-masks: 5 samples of 5 cases with heun-stochastic, 3 steps; about 1 minute" in said
    target = Path(said.split("; into ")[1].strip())
    assert not target.exists() and target.parts[-2:] == ("sampled", "given-masks")
    command(monkeypatch, *words)
    assert "5 samples in" in capsys.readouterr().out and (target / "sheet.png").is_file()
    for words, problem in (
        ((), "found nothing given; expected exactly one of --given-images"),
        (("--vary", "0.4", "--inpaint", "case_0"), "found --inpaint and --vary"),
        (("--interpolate", "case_0"), "--interpolate is 'case_0'"),
        (("--interpolate", "noise", "--out", str(target)), "exists; expected a free name"),
        (("--vary", "0.4", "--cases", "x"), "no training case 'x'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, *words, *fast)
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and problem in error and len(error.splitlines()) == 1
    command(monkeypatch, "--interpolate", "noise", *fast, "--points", "2", "--dry-run", "--out", str(tmp_path / "x"))
    assert "interpolate: 2 samples of 0 cases with heun, 3 steps" in capsys.readouterr().out


def test_what_a_sample_costs(run):
    _, checkpoint = run
    whole = asked("given-masks", steps=18, jump_length=3, repetitions=4)
    assert evaluations(checkpoint.config, whole) == 35
    assert evaluations(checkpoint.config, dataclasses.replace(whole, mode="inpaint")) == 2 * (18 + 5 * 3 * 3) - 1
    assert evaluations(checkpoint.config, dataclasses.replace(whole, mode="vary", sampler="ddim")) == 18
    assert planned_seconds(checkpoint, whole, [(16, 24)] * 3 + [(32, 24)], "cpu") > 0

"""jdm-sample and jdm.sample: what is given stays bit for bit, files are of the dataset's kind, and bad input is one
clear line."""

import dataclasses
import json
import shutil
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from export_runs import THESIS, contents, copied, elsewhere, rewritten
from PIL import Image
from small_runs import changed, picture, tiny_run, write_pictures

import jdm
from jdm.cli.convert import KINDS
from jdm.data.image_io import read_raster, write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import Pair, read_case, write_case
from jdm.diffusion.repaint import Resampling
from jdm.draw.canvas import CaseCanvas, around, decoded, in_type, seam
from jdm.draw.cost import evaluations
from jdm.draw.drawer import Drawer
from jdm.draw.given import painted
from jdm.draw.run import Run
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.sample.channels import known_numbers
from jdm.sample.inpaint import inpainting
from jdm.sample.modes import prepare
from jdm.sample.output import Row, write_sheet
from jdm.sample.request import MODES, SampleRequest, check_request, way_for
from jdm.sample.starts import draw_planes

COMMANDS = sorted(point.name for point in distribution("jdm").entry_points if point.group == "console_scripts")
PARTS = [("jdm-sample", mode) for mode in MODES] + [("jdm-convert", kind) for kind in KINDS]


@pytest.fixture(scope="module")
def run(two_channel_run):
    return two_channel_run


@pytest.fixture(scope="module")
def real(run):
    return run.real()


@pytest.fixture(scope="module")
def volumes(real):
    kind = {"shape": (4, 16, 16), "spacing": (3.0, 1.0, 1.0), "dtype": "int16"}
    return tiny_run(write_pictures(real.folder.parent, "Dataset022_Slabs", **kind), train={"steps": 2})


def asked(mode, dataset="21", **changes) -> SampleRequest:
    fast = {"samples": 2, "batch_size": 3, "seed": 4}
    solved = mode == "likelihood" or (mode == "segment" and changes.get("masks") != "sampled")
    steps = {} if solved else {"steps": 3}
    repeated = {"repetitions": 2, "jump_length": 1} if mode in ("inpaint", "channels") else {}
    return MODES[mode](dataset, "all", **{**fast, **steps, **repeated, **changes})


def sampled(out: Path, mode, **changes) -> dict[str, Pair]:
    """The pairs of a sample, which are read as a dataset would be."""
    assert jdm.sample(asked(mode, out=out, **changes)).folder == out
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


@pytest.mark.parametrize("words", [(name,) for name in COMMANDS] + PARTS, ids=" ".join)
def test_help_fits_a_terminal(words, typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, text, told = typed(*words, "--help")
    assert status == 0, told
    most = 68 if words == ("jdm-experiment",) else 52
    assert sum(1 + max(0, len(line) - 1) // 80 for line in text.rstrip().splitlines()) <= most


@pytest.mark.parametrize(
    ("mode", "options", "count"),
    [
        ("segment", {"images": "imagesTr"}, 5),
        ("images", {"masks": "labelsTr"}, 5),
        ("inpaint", {"case": "case_1", "box": (4, 6, 12, 18)}, 1),
        ("channels", {"known": ("c1",), "cases": ("case_0", "case_2")}, 2),
        ("vary", {}, 1),  # the one held-out case
        ("interpolate", {"points": 2}, 2),
        ("likelihood", {"cases": ("case_4", "case_1"), "tolerance": 0.1}, 2),
    ],
)
def test_each_mode_is_a_function_that_writes_into_the_run(run, real, mode, options, count):
    options = {key: real.folder / value if key in ("images", "masks") else value for key, value in options.items()}
    made = jdm.sample(asked(mode, samples=1, **options))
    assert (made.folder, made.count) == (run.folder / "sampled" / mode, count)
    assert str(made.folder) in made.summary and "\n" not in made.summary
    record = json.loads((made.folder / "samples.json").read_text())
    assert record["generator"]["checkpoint_sha256"] == run.checkpoint.sha256
    assert (mode == "likelihood") is not (made.folder / "sheet.png").is_file()


def test_the_folder_of_a_run_alone_is_enough_where_no_real_case_is_given(run, real, tmp_path, monkeypatch, typed):
    for folder in ("imagesTr", "labelsTr"):
        shutil.copytree(real.folder / folder, tmp_path / folder)
    given = {"segment": {"images": tmp_path / "imagesTr"}, "images": {"masks": tmp_path / "labelsTr"}}
    home = {m: jdm.sample(asked(m, samples=1, out=tmp_path / m, **given.get(m, {}))) for m in (*given, "interpolate")}
    there = elsewhere(run, tmp_path / "elsewhere", monkeypatch).folder
    for mode, made in home.items():
        words = (*given.get(mode, {}).values(), "--samples", 1, "--batch-size", 3, "--seed", 4)
        steps = () if mode == "segment" else ("--steps", 3)
        status, _, told = typed("jdm-sample", mode, there, *words, *steps)
        assert status == 0, told
        assert contents(there / "sampled" / mode) == contents(made.folder)
    for words in (
        ("jdm-sample", "inpaint", there, "case_0", "--box", 0, 0, 5, 5),
        ("jdm-sample", "channels", there, "--known", "c0"),
        ("jdm-sample", "vary", there),
        ("jdm-sample", "interpolate", there, "--between", "case_0", "case_1", "--out", tmp_path / "strip"),
        ("jdm-sample", "likelihood", there),
        *(("jdm-export", there, "--id", 521, "--count", 2, "--given-masks", masks) for masks in ("real", "deformed")),
    ):
        status, _, told = typed(*words)
        assert status == 2 and told.count("\n") == 1 and real.name in told and "nnUNet_raw" in told
        assert (words[-1] if words[0] == "jdm-export" else words[1]) in told
    assert not list((tmp_path / "elsewhere" / "raw").iterdir())


def test_masks_come_back_with_images_that_depend_on_the_seed_alone(real, tmp_path):
    first, again, more, other = (
        sampled(tmp_path / str(k), "images", masks=real.folder / "labelsTr", batch_size=1, **changes)
        for k, changes in enumerate(({}, {}, {"samples": 3}, {"seed": 5}))
    )
    assert sorted(first) == [f"{case}_s{k}" for case in real.cases for k in range(2)]
    for name, pair in first.items():
        given = read_case(real, name[:-3])
        np.testing.assert_array_equal(pair.label, given.label)
        assert pair.image.shape == given.image.shape and pair.image.dtype == np.uint8 and np.ptp(pair.image) > 0
        np.testing.assert_array_equal(pair.image, again[name].image)
        np.testing.assert_array_equal(pair.image, more[name].image)
        assert not np.array_equal(pair.image, other[name].image)
    assert not np.array_equal(first["case_0_s0"].image, first["case_0_s1"].image)


def drawer_of(run: Run, request: SampleRequest, **options) -> Drawer:
    return Drawer(run.checkpoint, request, way_for(run.config, request), "cpu", **options)


def test_slices_may_be_left_out_without_changing_the_others(volumes):
    request = asked("images", masks=volumes.real().folder / "labelsTr", batch_size=1)
    starts = prepare(volumes, request)[:2]
    few = [dataclasses.replace(start, planes=start.planes[2:3]) for start in starts]
    drawer = drawer_of(volumes, request)
    whole, part = (draw_planes(drawer, some, request, drawer.samples) for some in (starts, few))
    for s, k in np.ndindex(2, request.samples):
        assert list(part[s][k]) == [2] and list(whole[s][k]) == [0, 1, 2, 3]
        np.testing.assert_array_equal(part[s][k][2][0], whole[s][k][2][0])


@pytest.mark.parametrize(("exact", "repetitions"), [(True, 1), (False, 1), (False, 2)])
def test_a_mask_is_honoured_exactly_or_by_replacement(run, real, exact, repetitions):
    request = asked("images", masks=real.folder / "labelsTr")
    starts, levels = prepare(run, request), []
    drawer = drawer_of(run, request, resampling=Resampling(1, repetitions))
    drawer.denoiser.register_forward_pre_hook(lambda _, arguments: levels.append(arguments[1].clone()))
    drawn = draw_planes(drawer, starts, request, lambda jobs: drawer.samples(jobs, exact=exact))
    told = torch.cat(levels)  # the network's: of the image, of the mask
    assert (told[:, 0] > 0).all()
    assert (told[:, 1] == 0).all() if exact else (told[:, 1] == told[:, 0]).all()
    jumps = 0 if repetitions == 1 else 2  # of one step each, from the two levels that leave room for one
    assert len(told) == len(starts) * request.samples * (request.steps + jumps)
    for start, samples in zip(starts, drawn, strict=True):
        for planes in samples:
            np.testing.assert_array_equal(planes[0][1], start.case.label[0])


def test_inpainting_leaves_everything_outside_as_it_was(real, tmp_path):
    before = read_case(real, "case_1")
    inside = np.zeros(before.label.shape, dtype=bool)
    inside[4:12, 6:18] = True
    pairs = sampled(tmp_path / "out", "inpaint", case="case_1", box=(4, 6, 12, 18), feather=1)
    assert sorted(pairs) == ["case_1_s0", "case_1_s1"]
    for pair in pairs.values():
        assert pair.image.dtype == before.image.dtype
        np.testing.assert_array_equal(pair.image[:, ~inside], before.image[:, ~inside])
        np.testing.assert_array_equal(pair.label[~inside], before.label[~inside])
        assert (pair.image[:, inside] != before.image[:, inside]).mean() > 0.5


def test_what_is_inpainted_is_not_known_in_the_padding(run, real):
    patch = {"data": {"patch_size": [24, 32], "canvas_size": [24, 32]}}  # pictures of 16 x 24 are padded by 4
    case = CaseCanvas(read_case(real, "case_1"), changed(run.config, patch))
    where = inpainting(case, asked("inpaint", case="case_1", box=(0, 6, 3, 18)), None).planes[0].where
    rows, columns = np.nonzero(~where.all(axis=0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 6, 10, 21)  # rows 1 to 3 mirror 4 to 6


def test_inpainting_adds_and_removes_a_lesion(real, tmp_path):
    before, region = read_case(real, "case_2"), np.zeros((1, 16, 24), np.uint8)
    region[0, 3:13, 5:20] = 7
    write_raster(tmp_path / "region.png", Raster(region, (1.0, 1.0)))
    inside = region[0] > 0
    for lesion, value in (("class2", 2), ("background", 0)):
        options = {"case": "case_2", "region": tmp_path / "region.png", "feather": 0, "lesion": lesion}
        for pair in sampled(tmp_path / lesion, "inpaint", **options).values():
            assert (pair.label[inside] == value).all()
            np.testing.assert_array_equal(pair.label[~inside], before.label[~inside])
            np.testing.assert_array_equal(pair.image[:, ~inside], before.image[:, ~inside])


def test_a_lesion_may_be_a_class_above_255(run, real):
    """The files of a case hold no more bits than its own classes need; the dataset's may need more."""
    labels = [f"class{k}" for k in range(301)]
    many = {"labels": labels, "class_shares": [1 / 301] * 301, "clipped": [], "foreground": []}
    config = changed(run.config, {"facts": many, "codec": {"mask_code": "bits"}})
    case = CaseCanvas(read_case(real, "case_2"), config)
    start = inpainting(case, asked("inpaint", case="case_2", box=(3, 5, 13, 20), feather=0), 300)
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
    by_slice = seam(np.stack([region, ~region, np.zeros_like(region)]), 2, slice_axis=0)
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


def test_a_channel_is_sampled_from_another_one(real, tmp_path):
    for name, pair in sampled(tmp_path / "out", "channels", known=("c1", "mask"), cases=("case_0", "case_3")).items():
        before = read_case(real, name[:-3])
        np.testing.assert_array_equal(pair.image[1], before.image[1])
        np.testing.assert_array_equal(pair.label, before.label)
        assert not np.array_equal(pair.image[0], before.image[0])
    assert known_numbers(("0", "mask"), ("c0", "c1"), 3) == [0, 2, 3, 4]
    for names, problem in ((("c7",), "--known.*'c7'"), (("2",), "--known.*'2'"), (("0", "1", "mask"), "--known")):
        with pytest.raises(ConfigError, match=problem):
            known_numbers(names, ("c0", "c1"), 3)


def away(pair: Pair, other: Pair) -> float:
    return float(np.abs(pair.image.astype(float) - other.image).mean())


def test_variations_go_further_from_the_pair_the_higher_the_level(real, tmp_path):
    distances = []
    for level in (0.01, 0.3, 5.0):
        pairs = sampled(tmp_path / str(level), "vary", cases=("case_0", "case_1"), level=level)
        distances.append(np.mean([away(pair, read_case(real, name[:-3])) for name, pair in pairs.items()]))
        if level == 0.01:
            assert all((p.label == read_case(real, name[:-3]).label).all() for name, p in pairs.items())
    assert distances == sorted(distances) and distances[0] < 3 < distances[-1]


@pytest.mark.parametrize("between", [(), ("case_0", "case_1")])
def test_an_interpolation_is_a_strip_from_one_end_to_the_other(real, tmp_path, between):
    pairs = sampled(tmp_path / "out", "interpolate", between=between, points=5, steps=12)
    assert list(pairs) == [f"interpolated_{k:02d}" for k in range(5)]
    first, second, *_, last = pairs.values()
    assert away(second, first) < away(last, first)
    if between:
        ends = [read_case(real, case) for case in between]
        assert away(first, ends[0]) < away(first, ends[1]) and away(last, ends[1]) < away(last, ends[0])


def test_volumes_keep_their_grid(volumes, tmp_path):
    real, box = volumes.real(), (1, 2, 3, 3, 12, 14)
    asked_for = {"dataset": "22", "case": "case_1", "box": box, "samples": 1}
    before = read_case(real, "case_1")
    after = sampled(tmp_path / "inpaint", "inpaint", feather=0, **asked_for)["case_1_s0"]
    inside = np.zeros(before.label.shape, dtype=bool)
    inside[1:3, 2:12, 3:14] = True
    np.testing.assert_array_equal(after.image[:, ~inside], before.image[:, ~inside])
    assert (after.image[:, inside] != before.image[:, inside]).mean() > 0.5
    assert after.spacing == pytest.approx(before.spacing) and after.geometry == before.geometry
    gone = sampled(tmp_path / "gone", "inpaint", lesion="background", **asked_for)["case_1_s0"].label
    assert before.label[1:3, 5:9, 6:11].any() and not gone[1:3, 5:9, 6:11].any()

    jdm.sample(asked("segment", "22", images=real.folder / "imagesTr", out=tmp_path / "labels"))
    label = read_raster(tmp_path / "labels" / "labels" / "case_0.nii.gz", label=True)
    uncertainty = read_raster(tmp_path / "labels" / "uncertainty" / "case_0.nii.gz").array
    assert label.array[0].shape == uncertainty[0].shape == (4, 16, 16)
    assert label.spacing == pytest.approx((3.0, 1.0, 1.0)) and 0 <= uncertainty.min() <= uncertainty.max() <= 1

    strip = sampled(tmp_path / "strip", "interpolate", dataset="22", between=("case_0", "case_1"), points=2)
    assert all(pair.label.shape == (1, 16, 16) for pair in strip.values())


def test_the_sheet_of_volumes_shows_the_slice_in_focus(tmp_path):
    label, focus, image = np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8), bool), np.zeros((1, 3, 8, 8), np.uint8)
    label[0] = 1
    image[0, 2] = np.arange(64).reshape(8, 8)
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
    config = changed(volumes.config, {"facts": {"case_mean": [100.0], "case_std": [30.0]}})
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


def test_the_thesis_preset_knows_by_replacement(real, tmp_path):
    small = write_pictures(real.folder.parent, "Dataset023_Thesis")
    tiny_run(small, **THESIS, train={"steps": 1}, codec={"mask_amplitude": 1.0})
    pairs = sampled(tmp_path / "out", "images", dataset="23", masks=small.folder / "labelsTr", steps=4)
    for name, pair in pairs.items():
        np.testing.assert_array_equal(pair.label, read_case(small, name[:-3]).label)


def test_a_weaker_checkpoint_guides(run, tmp_path):
    options = {"level": 2.0, "cases": ("case_0",), "samples": 1}
    worse = rewritten(copied(run, tmp_path / "worse_run"), lambda weight: 1.3 * weight)
    plain, own, pushed = (
        sampled(tmp_path / name, "vary", **options, **guided)["case_0_s0"].image.astype(int)
        for name, guided in (
            ("plain", {}), ("own", {"guidance": 3.0, "guide": run.folder}),
            ("pushed", {"guidance": 3.0, "guide": worse.folder}),
        )
    )  # fmt: skip
    assert np.abs(plain - own).max() <= 1  # by itself, nowhere
    assert not np.array_equal(pushed, plain)
    assert json.loads((tmp_path / "pushed" / "samples.json").read_text())["guide_sha256"] == worse.checkpoint.sha256


def refused(mode, names, **changes):
    with pytest.raises((ConfigError, DataError), match=names) as caught:
        jdm.sample(asked(mode, overwrite=True, **changes))
    assert "\n" not in str(caught.value)


def test_bad_conditions_are_one_clear_line(run, tmp_path):
    folder = tmp_path / "given"
    refused("segment", str(folder), images=folder)
    folder.mkdir()
    refused("images", rf"{folder} has no \.png files", masks=folder)
    write_raster(folder / "a.png", Raster(np.full((1, 16, 24), 5, np.uint8), (1.0, 1.0)))
    refused("images", r"a\.png.* 5; expected only 0", masks=folder)
    refused("segment", r"a\.png.*case_0000\.png", images=folder)
    write_raster(folder / "a.png", Raster(np.zeros((1, 160, 24), np.uint8), (1.0, 1.0)))
    refused("images", r"\(160, 24\)", masks=folder)
    other = write_pictures(tmp_path, "Dataset031_Other", classes=2).folder
    refused("images", "labelsTr .*labels are", masks=other / "labelsTr")
    refused("segment", "imagesTr .*channel_names are", images=other / "imagesTr")
    shutil.copytree(other / "imagesTr", tmp_path / "loose")
    refused("segment", "has 1 channels; expected 2", images=tmp_path / "loose")
    pair = picture("deep", 0, (16, 24), channels=2)
    wide = tmp_path / "wide" / "imagesTr"
    write_case(tmp_path / "wide", Pair("deep", pair.image.astype(np.uint16), pair.label, pair.spacing), ".png")
    refused("segment", r"deep_0000\.png.*uint16; expected uint8", images=wide)
    (wide / "deep_0000.png").unlink()
    refused("segment", r"missing .*deep_0000\.png", images=wide)
    refused("vary", "'nobody'", cases=("nobody",))


def test_bad_regions_are_one_clear_line(run, tmp_path):
    for names, changes in (
        ("--box is .*case_0", {"box": (0, 0, 99, 5)}),
        ("--box is", {"box": (4, 4, 4, 9)}),
        ("--box is .*0, 0, 5", {"box": (0, 0, 5)}),
        ("--box, --inside or --region", {}),
        ("--lesion is 'wart'.*class2", {"box": (0, 0, 5, 5), "lesion": "wart"}),
    ):
        refused("inpaint", names, case="case_0", **changes)
    path = tmp_path / "region.png"
    for shape, names in (((1, 8, 8), rf"{path} .*8x8.*16x24"), ((1, 16, 24), f"{path}: no pixel")):
        write_raster(path, Raster(np.zeros(shape, np.uint8), (1.0, 1.0)))
        refused("inpaint", names, case="case_0", region=path)


INPAINT = {"case": "a", "box": (0, 0, 5, 5)}


@pytest.mark.parametrize(
    ("mode", "changes", "flag"),
    [
        ("vary", {"samples": 0}, "--samples"), ("vary", {"steps": 2}, "--steps"), ("vary", {"level": 0.0}, "--level"),
        ("vary", {"batch_size": 0}, "--batch-size"), ("vary", {"overlap": 1.0}, "--overlap"),
        ("vary", {"seed": -1}, "--seed"), ("vary", {"guidance": 0.0}, "--guidance"),
        ("vary", {"sampler": "ancestral"}, "--sampler"), ("vary", {"eta": 0.5}, "--eta"),
        ("inpaint", {**INPAINT, "jump_length": 0}, "--jump-length"),
        ("inpaint", {**INPAINT, "jump_length": 3}, "--jump-length"),
        ("inpaint", {**INPAINT, "repetitions": 0}, "--repetitions"),
        ("inpaint", {**INPAINT, "feather": -1}, "--feather"),
        ("inpaint", {**INPAINT, "sampler": "ode"}, "--sampler is ode"),
        ("channels", {"known": (), "repetitions": 0}, "--repetitions"),
        ("interpolate", {"points": 1}, "--points"), ("interpolate", {"between": ("a",)}, "--between"),
        ("interpolate", {"sampler": "heun-stochastic"}, "--sampler"),
        ("interpolate", {"sampler": "ddim", "eta": 0.5}, "--sampler.*--eta"),
        ("likelihood", {"probes": 0}, "--probes is 0"), ("likelihood", {"guidance": 2.0}, "--guidance is 2.0"),
        ("likelihood", {"tolerance": -1.0}, "--tolerance is -1.0"), ("likelihood", {"snr": 0.1}, "--snr is 0.1.* ode"),
    ],
)  # fmt: skip
def test_bad_settings_name_their_flag(run, mode, changes, flag):
    request = asked(mode, **changes)
    with pytest.raises(ConfigError, match=flag):
        check_request(run.config, request, way_for(run.config, request))


@pytest.mark.parametrize("mode", sorted(MODES))
def test_three_steps_are_enough_where_nothing_is_resampled(run, mode):
    given = {
        "segment": {"images": Path()},
        "classify": {"images": Path(), "steps": None},
        "images": {"masks": Path()},
        "channels": {"known": ()},
        "inpaint": INPAINT,
    }
    once = {"repetitions": 1, "jump_length": 3} if mode in ("inpaint", "channels") else {}
    request = asked(mode, **given.get(mode, {}), **once)
    check_request(run.config, request, way_for(run.config, request))


def test_nothing_is_overwritten_without_leave(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    one = {"cases": ("case_0",), "samples": 1}
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match=f"{out} .*--out"):
            jdm.sample(asked("vary", out=out, overwrite=overwrite, **one))
    assert contents(out) == {"thesis.doc": b"mine"}
    new = tmp_path / "new"
    sampled(new, "vary", **one)
    before = contents(new)
    with pytest.raises(ExistsError, match="--overwrite"):
        jdm.sample(asked("vary", out=new, **one))
    refused("vary", "nobody", out=new, cases=("nobody",))
    assert contents(new) == before
    assert len(sampled(new, "vary", overwrite=True, cases=("case_0",))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]


def test_the_command(run, real, tmp_path, typed):
    fast, out = ("--steps", 3, "--samples", 1), tmp_path / "out"
    words = ("jdm-sample", "images", 21, "all", real.folder / "labelsTr", *fast, "--out", out)
    status, said, _ = typed(*words, "--dry-run")
    assert status == 0 and not out.exists()
    assert all(part in said for part in ("5 samples of 5 cases", "dpmpp-2m, 3 steps", "1 minute", str(out)))
    assert "5 samples in" in typed(*words)[1] and (out / "sheet.png").is_file()
    for words, names in (
        ((), "images"),
        (("interpolate", 21, "all", "--between", "case_0", *fast), "--between"),
        (("interpolate", 21, "all", "--out", out, *fast), f"{out} exists"),
        (("vary", 21, "all", "--cases", "x", "--overwrite", *fast), "'x'"),
        (("vary", 99, "all"), "99"),
        (("vary", tmp_path), str(tmp_path)),
    ):
        status, _, told = typed("jdm-sample", *words)
        assert status == 2 and names in told
        assert not words or told.count("\n") == 1
    for words, part in (
        (("interpolate", 21, "all", "--points", 2, "--steps", 3), "2 samples of 0 cases with heun, 3 steps"),
        (("likelihood", 21, "all"), "1 crops per case"),
    ):
        status, said, _ = typed("jdm-sample", *words, "--samples", 1, "--dry-run", "--overwrite")
        assert status == 0 and part in said


def test_what_a_sample_costs(run):
    for mode, changes, resampling, count in (
        ("images", {"masks": Path()}, None, 19),
        ("inpaint", INPAINT, Resampling(3, 4), 18 + 5 * 3 * 3 + 1),
        ("vary", {"sampler": "heun"}, None, 36),
    ):
        request = asked(mode, **{**changes, "steps": 18})
        assert evaluations(run.config, request, way_for(run.config, request), resampling) == count

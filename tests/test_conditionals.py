"""scripts/conditionals.py: the sheets and numbers of every way of conditional sampling, on a run of seconds."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import tiny_run, write_pictures

from jdm.data.image_io import write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import Geometry, Pair, read_case, read_dataset, write_case, write_dataset_json
from jdm.errors import ExistsError
from jdm.sample.request import SampleRequest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
PARTS = ("masks", "images", "inpaint", "vary", "interpolate", "compare")


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        names = ("conditionals", "conditional_scene", "conditional_edits", "conditional_sheets")
        yield [importlib.import_module(name) for name in names]


def ball(case_id: str, seed: int) -> Pair:
    """A bright ellipsoid on noise, int16 (1, 4, 16, 16), foreground in every slice and at no border of one."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((4, 16, 16)) - np.array([1.5, *rng.uniform(6, 9, 2)]).reshape(3, 1, 1, 1)
    label = (z**2 + y**2 + x**2 < rng.uniform(9, 16)).astype(np.uint8)
    image = 300.0 * label + rng.normal(500, 60, label.shape)
    geometry = Geometry((0.0,) * 3, tuple(np.eye(3).ravel().tolist()))
    return Pair(case_id, image.astype(np.int16)[None], label, (1.0,) * 3, geometry)


@pytest.fixture(scope="module")
def scene(modules, tmp_path_factory):
    """Volumes of balls with two test cases, whose predictions are their references, and a segmenter that errs."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("nnunet")
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "jdm_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        folder = root / "nnUNet_raw" / "Dataset024_Balls"
        for number in range(5):
            write_case(folder, ball(f"case_{number}", number), ".nii.gz")
        for number in (7, 8):
            pair = ball(f"test_{number}", number)
            write_case(folder, pair, ".nii.gz", "labelsTs", "imagesTs")
            write_raster(root / f"{pair.case_id}.nii.gz", Raster(pair.label[None], pair.spacing, pair.geometry))
        labels = {"background": 0, "ball": 1}
        write_dataset_json(folder, channel_names=["a"], labels=labels, file_ending=".nii.gz", num_training=5)
        real = read_dataset(folder)
        checkpoint = tiny_run(real, train={"steps": 2})

        def segmenter(image, spacing):
            assert image.dtype == np.float32 and image.ndim == 4 and len(spacing) == 3
            return (image[0] > np.median(image[0])).astype(np.uint8), np.zeros(1)

        request = SampleRequest("vary", samples=2, steps=4, jump_length=1, repetitions=2, points=3, seed=1)
        yield modules[1].Scene(
            checkpoint, real, segmenter, root, root / "out", request, ("test_7", "test_8"),
            ("case_4", "case_0"), 2, (0.1, 1.0), 1, "cpu",
        )  # fmt: skip


@pytest.fixture(scope="module")
def found(scene, modules):
    scene.out.mkdir()
    parts = {name: modules[0].PARTS[name](scene) for name in PARTS}
    return json.loads(json.dumps(parts, allow_nan=True))


def test_conditions_are_honoured(found):
    assert found["masks"]["mask_pixels_changed"] == 0
    assert found["inpaint"]["pixels_changed_outside"] == {"image": 0, "label": 0}
    assert found["inpaint"]["anew_distance_inside"] > 0 == found["inpaint"]["real_distance_inside"]
    assert found["inpaint"]["removed_foreground_given"] < found["inpaint"]["real_foreground_given"]


def test_the_ceiling_and_the_host_are_those_of_the_same_slices(scene, found, modules):
    assert found["images"]["nnunet"]["mean"] == 1  # its predictions are the references
    expected = []
    for case in scene.test_ids:
        pair = read_case(scene.dataset, case, test=True)
        numbers = modules[1].chosen_planes(pair.label, 2)
        image, label = pair.image[0, numbers].astype(float), pair.label[numbers]
        segmented = image > np.median(image)
        expected.append(2 * (segmented & (label == 1)).sum() / (segmented.sum() + (label == 1).sum()))
    # the plan's intensities are those of the case on another scale
    assert found["masks"]["ceiling"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_distances_start_at_nothing(found):
    for name, strips in (("pairs", 1), ("noise", 2)):
        some = found["interpolate"][name]
        assert some["strips"] == strips and some["distance"][0] == 0 < some["distance"][-1]
    levels = found["vary"]["rows"]
    assert [row["level"] for row in levels] == [0.1, 1.0]
    assert 0 < levels[0]["distance"]["mean"] < levels[1]["distance"]["mean"] and found["vary"]["monotone_mean"]


def test_ways_are_counted_in_network_evaluations(found):
    counts = {(row["condition"], row["way"]): row["evaluations"] for row in found["compare"]["rows"]}
    for condition in ("given-masks", "given-images"):
        assert counts[condition, "exact"] == counts[condition, "replacement"] == 7
        assert counts[condition, "RePaint"] == 7 + 3 * 2  # three jumps of a step


def test_a_known_channel_stays_and_the_others_are_sampled(scene, modules, tmp_path, nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], channels=2, classes=3)
    other = dataclasses.replace(
        scene, checkpoint=tiny_run(real, train={"steps": 2}), dataset=real, out=tmp_path, edit_ids=("case_0", "case_1"),
    )  # fmt: skip
    part = modules[0].PARTS["channels"](other)
    assert part["known_pixels_changed"] == 0 and part["cases"] == 2
    assert part["distance_own"]["mean"] > 0 and part["distance_other"]["mean"] > 0
    assert 0 <= part["mask_dice"]["mean"] <= 1
    assert "0 of its pixels were changed" in "".join(modules[0].markdown({
        "generator": {**scene.checkpoint.metadata, "sha256": "a"}, "conditions": (), "edited": (),
        "settings": {"sampler": "heun", "steps": 4, "samples": 2, "planes": 2},
        "parts": {"channels": {**part, "cpu_minutes": 0.1, "run": {"command": "", "commit": "", "hardware": ""}}},
    }))  # fmt: skip
    with Image.open(tmp_path / "channels.png") as sheet:
        assert sheet.width > 300


def test_pairs_of_each_class_are_counted_by_label(scene, modules, tmp_path, nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], classes=3)
    told = {case: "ab"[number % 2] for number, case in enumerate(real.cases)}
    checkpoint = tiny_run(real, train={"steps": 2}, network={"class_names": ("a", "b")}, classes=told)
    other = dataclasses.replace(scene, checkpoint=checkpoint, dataset=real, out=tmp_path)
    assert "classes" in modules[0].fitting(checkpoint.config) and "classes" not in modules[0].fitting(scene.config)
    part = modules[0].PARTS["classes"](other)
    assert [(row["class"], row["images"]) for row in part["rows"][:2]] == [("a", "real"), ("a", "scale 1")]
    assert len(part["rows"]) == 8
    labels = np.concatenate(
        [read_case(real, case).label.ravel() for case in ("case_0", "case_2")]
    )  # case_4 is held out
    expected = [(labels == value).sum() / (labels > 0).sum() for value in (1, 2)]
    assert part["rows"][0]["pairs"] == 2 and part["rows"][0]["shares"] == pytest.approx(expected)
    assert (tmp_path / "classes.png").is_file()


def test_every_part_has_its_sheet_and_its_section(scene, found, modules):
    run = {"command": "python scripts/conditionals.py", "commit": "abc", "hardware": "a core"}
    text = modules[0].markdown({
        "generator": {**scene.checkpoint.metadata, "sha256": scene.checkpoint.sha256},
        "settings": {"sampler": "heun", "steps": 4, "samples": 2, "planes": 2},
        "conditions": scene.test_ids, "edited": scene.edit_ids,
        "parts": {name: {**part, "cpu_minutes": 0.1, "run": run} for name, part in found.items()},
    })  # fmt: skip
    pictures = sorted(path.name for path in scene.out.iterdir())
    assert len(pictures) == len(PARTS) and all(f"({name})" in text for name in pictures)
    assert text.count("## ") == len(PARTS) and text.count("at commit abc") == len(PARTS)
    assert "training cases (held out of the generator's training: 1)" in text


def test_finished_parts_are_kept_and_other_runs_refused(scene, modules, tmp_path, monkeypatch):
    script = modules[0]
    circumstances = {"settings": {"steps": 4}}
    monkeypatch.setattr(script, "prepared", lambda options: (scene, circumstances))
    monkeypatch.setattr(script, "markdown", lambda content: " ".join(content["parts"]))
    calls = []
    monkeypatch.setattr(script, "PARTS", {name: lambda _, name=name: calls.append(name) or {} for name in PARTS})
    options = script.Options("24", "all", out=tmp_path, parts=("vary",))
    script.main(options)
    script.main(dataclasses.replace(options, parts=("vary", "masks")))
    assert calls == ["vary", "masks"] and (tmp_path / "results.md").read_text() == "vary masks"
    circumstances["settings"] = {"steps": 5}
    with pytest.raises(ExistsError, match="steps: 4, expected 5"):
        script.main(options)


def test_slices_are_chosen_by_a_rule(modules):
    label = np.zeros((10, 3, 3), int)
    label[2:8, 1, 1] = 1
    chosen = modules[1].chosen_planes
    assert chosen(label, 1) == [5] and chosen(label, 2) == [3, 6] and chosen(label, 0) == list(range(10))
    assert chosen(label, 100) == [2, 3, 4, 5, 6, 7] and chosen(np.zeros((4, 3, 3)), 2) == [1, 3]


def test_the_box_of_a_slice_and_steps_across_its_border(modules):
    label = np.zeros((4, 9, 9), np.uint8)
    label[1, 4, 4], label[2, 3:5, 4:8] = 1, 2
    pair = Pair("a", np.zeros((1, 4, 9, 9)), label, (1.0,) * 3)
    assert modules[2]._box(pair, 0) == ((2, 1, 2, 3, 7, 9), 2)
    region = np.zeros((5, 5), bool)
    region[1:3, 1:3] = True
    assert modules[2]._border_step(np.where(region, 3.0, 1.0)[None], region) == 2
    assert modules[2]._border_step(np.indices((5, 5))[:1] * 1.0, region) == 0.5  # only along one of two axes


def test_a_sheet_is_small_and_its_outlines_are_coloured(modules, tmp_path):
    sheets = modules[3]
    label = np.zeros((20, 16), int)
    label[:, :8] = 1
    noise = np.random.default_rng(0).random((20, 16))
    tiles = [sheets.Tile(noise, label, label > 0), sheets.Tile(noise, map=True)]
    sheets.write_sheet(
        tmp_path / "a.png", "title", ["one", "two"], [sheets.Line("case", tiles[:1]), sheets.Line("", tiles)]
    )
    sheets.write_sheet(tmp_path / "b.png", "title", ["one"], [sheets.Line("case", [sheets.Tile(noise)])], plain=False)
    for name, coloured in (("a", True), ("b", False)):
        assert (tmp_path / f"{name}.png").stat().st_size <= sheets.MOST_BYTES
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        assert (np.ptp(pixels, axis=-1) > 60).any() == coloured

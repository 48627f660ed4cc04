"""scripts/conditionals.py: the sheets and numbers of every way of conditional sampling, on a run of seconds."""

import dataclasses
import json
from pathlib import Path

import conditional_sheets as sheets
import conditionals
import numpy as np
import pytest
from conditional_edits import border_step, box_of
from conditional_scene import Options, Scene, chosen_planes
from PIL import Image
from small_runs import tiny_run, write_pictures

from jdm.data.image_io import write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import Geometry, Pair, read_case, read_dataset, write_case, write_dataset_json
from jdm.diffusion.repaint import Resampling
from jdm.errors import ExistsError

PARTS = ("masks", "images", "inpaint", "vary", "interpolate", "compare")


def ball(case_id: str, seed: int) -> Pair:
    """A bright ellipsoid on noise, int16 (1, 4, 16, 16), foreground in every slice and at no border of one."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((4, 16, 16)) - np.array([1.5, *rng.uniform(6, 9, 2)]).reshape(3, 1, 1, 1)
    label = (z**2 + y**2 + x**2 < rng.uniform(9, 16)).astype(np.uint8)
    image = 300.0 * label + rng.normal(500, 60, label.shape)
    geometry = Geometry((0.0,) * 3, tuple(np.eye(3).ravel().tolist()))
    return Pair(case_id, image.astype(np.int16)[None], label, (1.0,) * 3, geometry)


@pytest.fixture(scope="module")
def scene(module_folders):
    """Volumes of balls with two test cases, whose predictions are their references, and a segmenter that errs."""
    root = module_folders["jdm_results"].parent
    folder = module_folders["nnUNet_raw"] / "Dataset024_Balls"
    for number in range(5):
        write_case(folder, ball(f"case_{number}", number), ".nii.gz")
    for number in (7, 8):
        pair = ball(f"test_{number}", number)
        write_case(folder, pair, ".nii.gz", "labelsTs", "imagesTs")
        write_raster(root / f"{pair.case_id}.nii.gz", Raster(pair.label[None], pair.spacing, pair.geometry))
    labels = {"background": 0, "ball": 1}
    write_dataset_json(folder, channel_names=["a"], labels=labels, file_ending=".nii.gz", num_training=5)
    real = read_dataset(folder)

    def segmenter(image, spacing):
        assert image.dtype == np.float32 and image.ndim == 4 and len(spacing) == 3
        return (image[0] > np.median(image[0])).astype(np.uint8), np.zeros(1)

    options = Options(
        "24", "all", out=root / "out", cases=2, edits=2, planes=2, samples=2, levels=(0.1, 1.0), steps=4, seed=1
    )
    (root / "out").mkdir()
    return Scene(tiny_run(real, train={"steps": 2}), real, options, segmenter, root, Resampling(1, 2))


@pytest.fixture(scope="module")
def found(scene):
    parts = {name: conditionals.PARTS[name](scene) for name in PARTS}
    return json.loads(json.dumps(parts, allow_nan=True))


def page(scene: Scene, parts: dict) -> str:
    """results.md of some parts."""
    about = {"cpu_minutes": 0.1, "run": {"command": "python scripts/conditionals.py", "commit": "abc", "hardware": "?"}}
    kept = {name: {**part, **about} for name, part in parts.items()}
    return conditionals.markdown({**conditionals.circumstances(scene), "parts": kept})


def of(scene: Scene, out: Path, **kind) -> Scene:
    """A scene of other cases, written elsewhere."""
    classes = kind.pop("told", None)
    real = write_pictures(out / "nnUNet_raw", **kind)
    given = None if classes is None else {case: classes[n % len(classes)] for n, case in enumerate(real.cases)}
    run = tiny_run(real, given, train={"steps": 2})
    return dataclasses.replace(scene, run=run, dataset=real, options=dataclasses.replace(scene.options, out=out))


def test_conditions_are_honoured(found):
    assert found["masks"]["mask_pixels_changed"] == 0
    assert found["inpaint"]["pixels_changed_outside"] == {"image": 0, "label": 0}
    assert found["inpaint"]["anew_distance_inside"] > 0 == found["inpaint"]["real_distance_inside"]
    assert found["inpaint"]["removed_foreground_given"] < found["inpaint"]["real_foreground_given"]


def test_the_ceiling_and_the_host_are_those_of_the_same_slices(scene, found):
    assert found["images"]["nnunet"]["mean"] == 1  # its predictions are the references
    expected = []
    for case in scene.test_ids:
        pair = read_case(scene.dataset, case, test=True)
        numbers = chosen_planes(pair.label, 2)
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
    for condition, count in (("given-masks", 4), ("given-images", 5)):  # with the outlines of the masks
        assert counts[condition, "exact"] == counts[condition, "replacement"] == count
        assert counts[condition, "RePaint"] == count + 3  # jumps of a step


def test_a_known_channel_stays_and_the_others_are_sampled(scene, tmp_path, nnunet_folders):
    other = of(scene, tmp_path, channels=2, classes=3)
    part = conditionals.PARTS["channels"](other)
    assert part["known_pixels_changed"] == 0 and part["cases"] == 2
    assert part["distance_own"]["mean"] > 0 and part["distance_other"]["mean"] > 0
    assert 0 <= part["mask_dice"]["mean"] <= 1
    assert "0 of its pixels were changed" in page(other, {"channels": part})
    with Image.open(tmp_path / "channels.png") as sheet:
        assert sheet.width > 300


def test_pairs_of_each_class_are_counted_by_label(scene, tmp_path, nnunet_folders):
    other = of(scene, tmp_path, classes=3, told="ab")
    assert "classes" in conditionals.fitting(other.config) and "classes" not in conditionals.fitting(scene.config)
    part = conditionals.PARTS["classes"](other)
    assert [(row["class"], row["images"]) for row in part["rows"][:2]] == [("a", "real"), ("a", "scale 1")]
    assert len(part["rows"]) == 8
    labels = np.concatenate([read_case(other.dataset, f"case_{k}").label.ravel() for k in (0, 2)])  # 4 is held out
    expected = [(labels == value).sum() / (labels > 0).sum() for value in (1, 2)]
    assert part["rows"][0]["pairs"] == 2 and part["rows"][0]["shares"] == pytest.approx(expected)
    assert (tmp_path / "classes.png").is_file()


def test_every_part_has_its_sheet_and_its_section(scene, found):
    text = page(scene, found)
    pictures = sorted(path.name for path in scene.options.out.iterdir())
    assert len(pictures) == len(PARTS) and all(f"({name})" in text for name in pictures)
    assert text.count("## ") == len(PARTS) and text.count("at commit abc") == len(PARTS)
    assert "training cases (held out of the generator's training: 1)" in text


def test_finished_parts_are_kept_and_other_runs_refused(scene, tmp_path, capsys):
    options = dataclasses.replace(scene.options, out=tmp_path, parts=("interpolate",))  # asks no segmenter
    conditionals.main(options)
    first = (tmp_path / "results.json").read_bytes()
    conditionals.main(options)
    assert "interpolate: kept" in capsys.readouterr().out and (tmp_path / "results.json").read_bytes() == first
    assert "## Interpolation" in (tmp_path / "results.md").read_text()
    with pytest.raises(ExistsError, match=r"results\.json .*steps: 4, expected 5"):
        conditionals.main(dataclasses.replace(options, steps=5))


def test_slices_are_chosen_by_a_rule():
    label = np.zeros((10, 3, 3), int)
    label[2:8, 1, 1] = 1
    assert chosen_planes(label, 1) == [5] and chosen_planes(label, 2) == [3, 6]
    assert chosen_planes(label, 0) == list(range(10)) and chosen_planes(label, 100) == [2, 3, 4, 5, 6, 7]
    assert chosen_planes(np.zeros((4, 3, 3)), 2) == [1, 3]


def test_the_box_of_a_slice_and_steps_across_its_border():
    label = np.zeros((4, 9, 9), np.uint8)
    label[1, 4, 4], label[2, 3:5, 4:8] = 1, 2
    pair = Pair("a", np.zeros((1, 4, 9, 9)), label, (1.0,) * 3)
    assert box_of(pair, 0) == ((2, 1, 2, 3, 7, 9), 2)
    assert box_of(Pair("a", pair.image[:, 1], label[1], (1.0,) * 2), None) == ((2, 2, 7, 7), 0)
    region = np.zeros((5, 5), bool)
    region[1:3, 1:3] = True
    assert border_step(np.where(region, 3.0, 1.0)[None], region) == 2
    assert border_step(np.indices((5, 5))[:1] * 1.0, region) == 0.5  # only along one of two axes


def test_a_sheet_is_small_and_its_outlines_are_coloured(tmp_path):
    label = np.zeros((20, 16), int)
    label[:, :8] = 1
    noise = np.random.default_rng(0).random((20, 16))
    tiles = [sheets.Tile(noise, label, label > 0), sheets.Tile(noise, map=True)]
    lines = [sheets.Line("case", tiles[:1]), sheets.Line("", tiles)]
    sheets.write_sheet(tmp_path / "a.png", "title", ["one", "two"], lines)
    sheets.write_sheet(tmp_path / "b.png", "title", ["one"], [sheets.Line("case", [sheets.Tile(noise)])], plain=False)
    for name, coloured in (("a", True), ("b", False)):
        assert (tmp_path / f"{name}.png").stat().st_size <= sheets.MOST_BYTES
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        assert (np.ptp(pixels, axis=-1) > 60).any() == coloured

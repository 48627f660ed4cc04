"""jdm-sample segment: the model of pairs as a segmenter, and how uncertain it is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import save_pickle
from export_runs import THESIS
from PIL import Image
from small_runs import changed, config_of, of_classes, picture, tiny_run, write_pictures

import jdm
from jdm.data.codec import PairCodec
from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import Pair, read_case, write_case
from jdm.draw.drawer import Drawer, Job
from jdm.errors import ConfigError
from jdm.sample.modes import prepare
from jdm.sample.output import write_segmentation
from jdm.sample.request import check_request, estimates, way_for
from jdm.sample.segment import Segmentation, estimated_shares, shares_of

BITS = {"codec": {"mask_code": "bits"}}


@pytest.fixture(scope="module")
def run(two_channel_run):
    return two_channel_run


def asked(run, **changes) -> jdm.SegmentRequest:
    fast = {"steps": 3, "samples": 3, "batch_size": 3, "seed": 4, "images": run.real().folder / "imagesTr"}
    if changes.get("masks") != "sampled":
        del fast["steps"]  # nothing is sampled
    return jdm.SegmentRequest(run.kind.name, "all", **{**fast, **changes})


def drawer_of(run, request) -> tuple[Drawer, list[int]]:
    """A drawer, and the sizes of the batches that its network is called with."""
    drawer, calls = Drawer(run.checkpoint, request, way_for(run.config, request), "cpu"), []
    drawer.denoiser.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    return drawer, calls


@pytest.mark.parametrize("masks", [None, "estimated", "sampled"])
def test_images_give_masks_and_how_uncertain_they_are(run, tmp_path, masks):
    real = run.real()
    assert jdm.sample(asked(run, masks=masks, out=tmp_path / "out")).count == len(real.cases)
    for case in real.cases:
        label = read_raster(tmp_path / "out" / "labels" / f"{case}.png", label=True).array[0]
        uncertainty = read_raster(tmp_path / "out" / "uncertainty" / f"{case}.png").array[0]
        assert label.shape == uncertainty.shape == read_case(real, case).label.shape
        assert set(np.unique(label)) <= {0, 1, 2} and uncertainty.dtype == np.uint8
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        columns = 2 + (3 if masks == "sampled" else 0)
        assert sheet.width > 2 * columns * 50 and sheet.height > len(real.cases) * 64
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert record["mode"] == "segment" and record["masks"] == (masks or "estimated")
    assert record["generator"]["checkpoint_sha256"] == run.checkpoint.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nnunet_averages_the_probabilities_with_its_own(run, tmp_path):
    real = run.real()
    jdm.sample(asked(run, save_probabilities=True, out=tmp_path / "out"))
    ours, theirs, merged = tmp_path / "out" / "labels", tmp_path / "nnunet", tmp_path / "merged"
    theirs.mkdir()
    shutil.copy(real.folder / "dataset.json", theirs)
    (theirs / "plans.json").write_text(json.dumps({"image_reader_writer": "NaturalImage2DIO"}))
    expected = {}
    for number, case in enumerate(real.cases):
        with np.load(ours / f"{case}.npz") as stored:
            own = stored["probabilities"]
        label = read_raster(ours / f"{case}.png", label=True).array
        assert own.shape == (3, *label.shape)
        np.testing.assert_allclose(own.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(own.argmax(axis=0), label)
        other = np.random.default_rng(number).dirichlet([1, 1, 1], label.shape).astype(np.float32)
        other = np.moveaxis(other, -1, 0)
        np.savez_compressed(theirs / f"{case}.npz", probabilities=other)
        save_pickle({"spacing": (999, 1, 1)}, str(theirs / f"{case}.pkl"))
        expected[case] = (own + other).argmax(axis=0)
    command = Path(sys.executable).with_name("nnUNetv2_ensemble")
    subprocess.run([command, "-i", theirs, ours, "-o", merged, "-np", "1"], check=True, capture_output=True)
    for case, label in expected.items():
        np.testing.assert_array_equal(read_raster(merged / f"{case}.png", label=True).array, label)


def test_agreement_is_the_majority_and_its_entropy():
    votes = [np.array([0, 0, 0, 2]), np.array([0, 1, 1, 0]), np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0])]
    label, uncertainty = Segmentation(shares_of(votes, 3)).most_probable()
    assert label.tolist() == [0, 1, 1, 0]  # of equals the lowest
    quarter, half = -0.25 * np.log(0.25), -0.5 * np.log(0.5)
    expected = np.array([0, quarter - 0.75 * np.log(0.75), half + 2 * quarter, 2 * half]) / np.log(3)
    np.testing.assert_allclose(uncertainty, expected, atol=1e-12)
    shares = shares_of([np.array([0]), np.array([1]), np.array([2])], 3)
    assert Segmentation(shares).most_probable()[1].tolist() == pytest.approx([1.0])


def test_a_class_above_255_is_no_other_one(run, tmp_path):
    label = np.arange(250, 266, dtype=np.uint16).reshape(4, 4)
    found, uncertainty = Segmentation(shares_of([label] * 2, 300)).most_probable()
    write_segmentation(tmp_path, run.kind, Pair("a", np.zeros((1, 4, 4)), found, (1.0, 1.0)), uncertainty)
    np.testing.assert_array_equal(read_raster(tmp_path / "labels" / "a.png", label=True).array[0], label)


@pytest.mark.parametrize(("code", "classes"), [("binary", 2), ("one-hot", 2), ("one-hot", 5)])
def test_the_mean_of_masks_stands_for_their_probabilities(code, classes):
    codec = PairCodec(config_of(of_classes(classes), codec={"mask_code": code, "mask_amplitude": 0.3}))
    hard = codec.encode(np.zeros((1, 1, classes)), np.arange(classes)[None])[1:]
    np.testing.assert_allclose(codec.probabilities(hard)[:, 0], np.eye(classes), atol=1e-4)
    chances = np.random.default_rng(0).dirichlet(np.ones(classes), 6)
    np.testing.assert_allclose(codec.probabilities((0.3 * chances @ codec.words).T), chances.T, atol=1e-4)


def test_an_estimate_is_one_evaluation_that_sees_the_image_alone(run):
    drawer, calls = drawer_of(run, asked(run))
    start = prepare(run, asked(run))[0]
    (plane,) = start.planes
    x, where = plane.canvas.x, plane.where
    image = np.array([1, 1, -1, -1, -1], np.float32).reshape(5, 1, 1)  # the signs of its two channels, and the mask's
    first, masked = drawer.estimates([Job(x, where, 5), Job(image * x, where, 5)])
    assert calls == [2]
    np.testing.assert_array_equal(first, masked)
    np.testing.assert_array_equal(first[:2], x[:2])
    assert not np.array_equal(drawer.estimates([Job(-image * x, where, 5)])[0][2:], first[2:])
    ((shares,),) = [list(planes.values()) for planes in estimated_shares(drawer, [start], asked(run))]
    assert shares.shape == (3, *read_case(run.real(), start.case.pair.case_id).label.shape)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)


def test_volumes_of_another_spacing_are_segmented_on_their_own_grid(run, tmp_path):
    kind = {"shape": (4, 16, 16), "spacing": (3.0, 1.0, 1.0), "dtype": "int16"}
    slabs = tiny_run(write_pictures(run.real().folder.parent, "Dataset022_Slabs", **kind), train={"steps": 1})
    fine = picture("fine", 3, (5, 24, 24), dtype="int16", spacing=(3.0, 0.7, 0.7))
    write_case(tmp_path / "given", fine, ".nii.gz")
    request = asked(slabs, images=tmp_path / "given" / "imagesTr", out=tmp_path / "out")
    assert jdm.sample(request).count == 1
    for name in ("labels", "uncertainty"):
        raster = read_raster(tmp_path / "out" / name / "fine.nii.gz", label=name == "labels")
        assert raster.array.shape[1:] == (5, 24, 24) and raster.spacing == pytest.approx(fine.spacing)
    (start,) = prepare(slabs, request)
    (planes,) = estimated_shares(drawer_of(slabs, request)[0], [start], request)
    shares = start.case.native_shares(np.stack([planes[k] for k in range(5)]))
    assert shares.shape == (2, 5, 24, 24)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)


def test_cases_are_estimated_in_batches_whose_size_changes_nothing(run):
    starts, found = prepare(run, asked(run)), {}
    for size in (1, 6, 64):
        request = asked(run, batch_size=size)
        drawer, calls = drawer_of(run, request)
        found[size] = [planes[0] for planes in estimated_shares(drawer, starts, request)]
        assert len(found[size]) == len(starts) and sum(calls) == 3 * len(starts)
    for size in (1, 6):
        np.testing.assert_allclose(np.stack(found[size]), np.stack(found[64]), atol=1e-5)
    assert not np.allclose(found[1][0], found[1][1], atol=1e-5)


@pytest.mark.parametrize(
    ("plan", "changes", "names"),
    [
        (THESIS, {"masks": "estimated"}, "--masks.*'thesis'"),
        (BITS, {"masks": "estimated"}, "--masks.* 3 classes in analog bits"),
        ({}, {"sampler": "ddim"}, r"--sampler is ddim.*--masks sampled"),
        ({}, {"steps": 9}, r"--steps is 9.*--masks sampled"),
        ({}, {"guidance": 2.0}, r"--guidance is 2\.0.*--masks sampled"),
    ],
)
def test_masks_are_estimated_where_they_can_be(run, plan, changes, names):
    config = changed(run.config, plan)
    assert estimates(config, asked(run)) == (plan == {}) and not estimates(config, asked(run, masks="sampled"))
    with pytest.raises(ConfigError, match=names) as caught:
        check_request(config, asked(run, **changes), way_for(config, asked(run)))
    assert "\n" not in str(caught.value)


def test_the_command_says_how_it_segments(run, typed, tmp_path):
    words = ("jdm-sample", "segment", 21, "all", run.real().folder / "imagesTr", "--out", tmp_path / "out")
    for more, said in (
        (("--dry-run",), "20 samples of 5 cases with estimated masks; about 1 minute"),
        (("--dry-run", "--masks", "sampled"), "20 samples of 5 cases with dpmpp-2m, 18 steps"),
        (("--samples", 1), "5 segmented cases in"),
    ):
        status, printed, told = typed(*words, *more)
        assert status == 0 and said in printed, told

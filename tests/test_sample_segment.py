"""jdm-sample --given-images: the model of pairs as a segmenter, and how uncertain it is."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_runs import picture, tiny_run, write_pictures

import jdm.cli.sample
from jdm.config.settings import CodecConfig
from jdm.data.codec import PairCodec
from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import Pair, read_case, write_case
from jdm.draw.drawer import Drawer, Job, evaluations
from jdm.errors import ConfigError
from jdm.sample.modes import _segmentations, sample
from jdm.sample.request import SampleRequest, check_request, estimates
from jdm.sample.segment import Segmentation, estimated_shares, shares_of
from jdm.sample.starts import prepare

FAST = SampleRequest("given-images", steps=3, samples=3, jump_length=1, repetitions=2, batch_size=3, seed=4)


@pytest.fixture(scope="module")
def run(two_channel_run):
    return two_channel_run


def asked(real, **changes) -> SampleRequest:
    return dataclasses.replace(FAST, folder=str(real.folder / "imagesTr"), **changes)


@pytest.mark.parametrize("masks", [None, "estimated", "sampled"])
def test_images_give_masks_and_how_uncertain_they_are(run, tmp_path, masks):
    real, checkpoint = run
    assert sample(checkpoint, real, asked(real, masks=masks), tmp_path / "out") == len(real.cases)
    for case in real.cases:
        pair = read_case(real, case)
        label = read_raster(tmp_path / "out" / "labels" / f"{case}.png", label=True).array[0]
        uncertainty = read_raster(tmp_path / "out" / "uncertainty" / f"{case}.png").array[0]
        assert label.shape == uncertainty.shape == pair.label.shape
        assert set(np.unique(label)) <= {0, 1, 2} and uncertainty.dtype == np.uint8
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        columns = 2 + (3 if masks == "sampled" else 0)
        assert sheet.width > 2 * columns * 50 and sheet.height > len(real.cases) * 64
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert record["mode"] == "given-images" and record["masks"] == (masks or "estimated")
    assert record["generator"]["checkpoint_sha256"] == checkpoint.sha256
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


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
    """The labels of given images are made to hold the dataset's classes."""
    start = SimpleNamespace(
        case=SimpleNamespace(pair=Pair("a", np.zeros((1, 4, 4)), np.zeros((4, 4), np.uint8), (1, 1)))
    )
    many = dataclasses.replace(run[0], labels={f"class{k}": k for k in range(300)})
    label = np.arange(250, 266, dtype=np.uint16).reshape(4, 4)
    _segmentations(tmp_path, many, [start], [Segmentation(shares_of([label] * 2, many.classes))])
    np.testing.assert_array_equal(read_raster(tmp_path / "labels" / "a.png", label=True).array[0], label)


@pytest.mark.parametrize(("code", "classes"), [("binary", 2), ("one-hot", 2), ("one-hot", 5)])
def test_the_mean_of_masks_stands_for_their_probabilities(code, classes):
    codec = PairCodec(CodecConfig(mask_code=code, classes=classes, mask_amplitude=0.3))
    hard = codec.encode(np.zeros((1, 1, classes)), np.arange(classes)[None])[1:]
    np.testing.assert_allclose(codec.probabilities(hard)[:, 0], np.eye(classes), atol=1e-4)
    chances = np.random.default_rng(0).dirichlet(np.ones(classes), 6)
    np.testing.assert_allclose(codec.probabilities((0.3 * chances @ codec.words).T), chances.T, atol=1e-4)


def test_an_estimate_is_one_evaluation_that_sees_the_image_alone(run):
    real, checkpoint = run
    drawer = Drawer(checkpoint, asked(real), "cpu")
    assert (
        evaluations(checkpoint.config, asked(real)) == 1 < evaluations(checkpoint.config, asked(real, masks="sampled"))
    )
    start = prepare(checkpoint, real, asked(real))[0]
    (plane,) = start.planes
    calls = []
    hook = drawer.denoiser.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    other = plane.canvas.x.copy()
    other[2:] *= -1  # another mask, another image
    first, masked = drawer.estimates([Job(plane.canvas.x, plane.where, 5), Job(other, plane.where, 5)])
    hook.remove()
    assert calls == [2]
    np.testing.assert_array_equal(first, masked)
    np.testing.assert_array_equal(first[:2], plane.canvas.x[:2])
    changed = plane.canvas.x.copy()
    changed[:2] *= -1
    assert not np.array_equal(drawer.estimates([Job(changed, plane.where, 5)])[0][2:], first[2:])
    ((shares,),) = [list(planes.values()) for planes in estimated_shares(drawer, [start], asked(real))]
    assert shares.shape == (3, *read_case(real, start.case.pair.case_id).label.shape)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)


def test_volumes_of_another_spacing_are_segmented_on_their_own_grid(run, tmp_path):
    shape, spacing = (4, 16, 16), (3.0, 1.0, 1.0)
    real = write_pictures(run[0].folder.parent, "Dataset022_Slabs", shape=shape, spacing=spacing, dtype="int16")
    checkpoint = tiny_run(real, train={"steps": 1})
    fine = dataclasses.replace(picture("fine", 3, (5, 24, 24), dtype="int16"), spacing=(3.0, 0.7, 0.7))
    write_case(tmp_path / "given", fine, real.file_ending)
    request = dataclasses.replace(FAST, folder=str(tmp_path / "given" / "imagesTr"))
    assert sample(checkpoint, real, request, tmp_path / "out") == 1
    for name in ("labels", "uncertainty"):
        (found,) = (tmp_path / "out" / name).iterdir()
        raster = read_raster(found, label=name == "labels")
        assert raster.array.shape[1:] == (5, 24, 24) and raster.spacing == pytest.approx(fine.spacing)
    (start,) = prepare(checkpoint, real, request)
    (planes,) = estimated_shares(Drawer(checkpoint, request, "cpu"), [start], request)
    shares = start.case.native_shares(np.stack([planes[k] for k in range(5)]))
    assert shares.shape == (2, 5, 24, 24)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)


def test_cases_are_estimated_in_batches_whose_size_changes_nothing(run):
    real, checkpoint = run
    starts = prepare(checkpoint, real, asked(real))
    found = {}
    for size in (1, 6, 64):
        request = asked(real, batch_size=size)
        drawer, calls = Drawer(checkpoint, request, "cpu"), []
        drawer.denoiser.register_forward_pre_hook(lambda _, arguments, calls=calls: calls.append(len(arguments[0])))
        found[size] = [planes[0] for planes in estimated_shares(drawer, starts, request)]
        assert len(found[size]) == len(starts) and sum(calls) == 3 * len(starts)
    for case in range(len(starts)):
        np.testing.assert_allclose(found[1][case], found[64][case], atol=1e-5)
        np.testing.assert_allclose(found[6][case], found[64][case], atol=1e-5)
    assert not np.allclose(found[1][0], found[1][1], atol=1e-5)


def test_what_cannot_be_estimated_is_refused_in_one_line(run):
    real, checkpoint = run
    thesis = dataclasses.replace(checkpoint.config, preset="thesis")
    codec = dataclasses.replace(checkpoint.config.codec, mask_code="bits", classes=14)
    bits = dataclasses.replace(checkpoint.config, codec=codec)
    assert estimates(checkpoint.config, asked(real))
    assert not estimates(thesis, asked(real)) and not estimates(bits, asked(real))
    assert not estimates(checkpoint.config, asked(real, masks="sampled"))
    for config, request, problem in (
        (thesis, asked(real, masks="estimated"), "--masks is 'estimated' for preset 'thesis'"),
        (bits, asked(real, masks="estimated"), "for 14 classes in analog bits"),
        (checkpoint.config, asked(real, guidance=2.0), "--guidance is 2.0; expected 1, or --masks sampled"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            check_request(config, request)
        assert "\n" not in str(caught.value)


def test_the_command_says_how_it_segments(run, monkeypatch, capsys, tmp_path):
    real, _ = run
    words = ["jdm-sample", "21", "all", "--given-images", str(real.folder / "imagesTr"), "--out", str(tmp_path / "out")]
    for more, said in (
        (["--dry-run"], "20 samples of 5 cases with estimated masks; about 1 minute"),
        (["--dry-run", "--masks", "sampled"], "20 samples of 5 cases with heun-stochastic, 25 steps"),
        (["--samples", "1"], "5 segmented cases in"),
    ):
        monkeypatch.setattr(sys, "argv", words + more)
        jdm.cli.sample.main()
        assert said in capsys.readouterr().out

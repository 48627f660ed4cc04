"""Raw datasets: what is written comes back, nnU-Net reads it too, and what is not right is refused by name."""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_miniatures import LABELS, edit_json, make_dataset, make_pair, same, with_image

from jdm.data.raw_dataset import (
    FILE_ENDINGS,
    NATURAL_ENDINGS,
    Pair,
    check_dataset,
    read_case,
    read_dataset,
    read_image,
    slice_axis,
    validate_labels,
    write_case,
)
from jdm.errors import DataError

# ---------------------------------------------------------------- what is written comes back


TYPES = ("float16", *["uint8", "uint16", "int8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    ending=st.sampled_from(FILE_ENDINGS), channels=st.integers(1, 4),
    dtype=st.sampled_from(TYPES),
    shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_round_trip(ending: str, channels: int, dtype: str, shape: tuple[int, ...], seed: int) -> None:
    allowed = {".png": ("uint8", "uint16"), ".bmp": ("uint8",), ".tif": TYPES}.get(ending, TYPES[1:])
    assume(dtype in allowed)
    pair = make_pair("x_1", ending, channels, dtype, seed, shape[1:] if ending in NATURAL_ENDINGS else shape)
    with tempfile.TemporaryDirectory() as root:
        folder = make_dataset(Path(root), [pair], ending)
        dataset = read_dataset(folder)
        same(read_case(dataset, "x_1"), pair)
        assert dataset.classes == 3
        assert not [f for f in folder.rglob(".*")], "no temporary files are left"


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_equal_pairs_give_equal_bytes(tmp_path: Path, ending: str) -> None:
    pair = make_pair(ending=ending, channels=1)
    contents = []
    for name in ("first", "second"):
        write_case(tmp_path / name, pair, ending)
        contents.append({f.name: f.read_bytes() for f in (tmp_path / name).rglob("*") if f.is_file()})
    assert contents[0] == contents[1]
    if ending == ".nii.gz":
        assert all(data[4:8] == bytes(4) for data in contents[0].values()), "gzip's time stamp is zero"


def test_colour_is_one_file_and_deep_colour_png_is_three(tmp_path: Path) -> None:
    write_case(tmp_path / "a", make_pair(channels=3), ".png")
    write_case(tmp_path / "b", make_pair(channels=3, dtype="uint16"), ".png")
    write_case(tmp_path / "c", make_pair(channels=3, dtype="uint16"), ".tif")
    assert [len(list((tmp_path / x / "imagesTr").iterdir())) for x in "abc"] == [1, 3, 1]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(tmp_path, make_pair(), ".png")
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.png")}

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_case(tmp_path, make_pair(seed=1), ".png")
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize(
    ("pair", "ending", "match"),
    [
        (make_pair(dtype="float32"), ".png", r"a_0000\.png.*float32.*uint8"),
        (make_pair(case_id="../a"), ".png", r"'\.\./a'"),
        (Pair("a", np.zeros((1, 2, 2), np.uint8), np.zeros((2, 3), np.uint8), (1.0, 1.0)), ".png", r"\(2, 3\)"),
        (Pair("a", np.zeros((1, 2, 2), np.uint8), -np.ones((2, 2), np.int8), (1.0, 1.0)), ".png", "-1"),
        (make_pair(ending=".nii.gz"), ".png", r"a_0000\.png.*\(1, 4, 7, 5\)"),
    ],
)
def test_unwritable_pairs_are_refused(tmp_path: Path, pair: Pair, ending: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        write_case(tmp_path, pair, ending)


# ---------------------------------------------------------------- nnU-Net reads it too


@pytest.mark.parametrize(("ending", "channels"), [(".png", 3), (".bmp", 1), (".tif", 3), (".nii.gz", 2), (".nrrd", 1)])
def test_nnunet_reads_the_same(tmp_path: Path, ending: str, channels: int) -> None:
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    pair = make_pair(ending=ending, channels=channels)
    dataset = read_dataset(make_dataset(tmp_path, [pair], ending))
    reader = NaturalImage2DIO() if ending in NATURAL_ENDINGS else SimpleITKIO()
    image, properties = reader.read_images([str(f) for f in dataset.image_files("a")])
    label, _ = reader.read_seg(str(dataset.label_file("a")))
    np.testing.assert_array_equal(image.reshape(pair.image.shape), pair.image)
    np.testing.assert_array_equal(label.reshape(pair.label.shape), pair.label)
    if ending not in NATURAL_ENDINGS:
        np.testing.assert_allclose(properties["spacing"], pair.spacing, rtol=1e-6)


class _InProcess:
    """Stands in for the worker processes of nnU-Net's check, which take many seconds to start."""

    def Pool(self, _: int) -> "_InProcess":  # noqa: N802
        return self

    def __enter__(self) -> "_InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def starmap(self, function, arguments):  # type: ignore[no-untyped-def]
        return list(itertools.starmap(function, arguments))


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_nnunets_integrity_check_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    from nnunetv2.experiment_planning import verify_dataset_integrity as check
    from nnunetv2.utilities import utils

    monkeypatch.setattr(check.multiprocessing, "get_context", lambda _: _InProcess())
    monkeypatch.setattr(utils, "Pool", lambda processes: _InProcess())
    folder = make_dataset(tmp_path, [make_pair(c, ending, seed=ord(c)) for c in "abc"], ending)
    check.verify_dataset_integrity(str(folder), 1)
    assert check_dataset(read_dataset(folder)) == []


# ---------------------------------------------------------------- labels and dataset.json


def test_values_outside_the_labels_name_value_file_and_cure(tmp_path: Path) -> None:
    dataset = with_image(tmp_path, label=np.full((7, 5), 255, np.uint8))
    with pytest.raises(DataError, match=r"a\.png.* 255.*0 \(background\), 1 .*jdm-convert"):
        read_case(dataset, "a")
    with pytest.raises(DataError, match=r"here.* -1, 0\.5"):
        validate_labels(np.array([-1, 0.5, 1]), LABELS, "here")
    validate_labels(np.array([0, 2.0]), LABELS, "here")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": {"background": 0, "a": [1, 2]}}, r"labels.*regions .*a\b"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, r"labels.*ignore .*2\b"),
        ({"labels": {"background": 0, "a": 2}}, r"labels.*'a': 2.*0 \(background\), 1, 2"),
        ({"labels": {"background": 0, "a": True}}, r"'a' is True.*0 \(background\), 1, 2"),
        ({"labels": {"0": "background"}}, r"'0' is 'background'.*0 \(background\), 1, 2"),
        ({"labels": {"background": 1, "a": 0}}, r"labels.*'background': 1.*background 0"),
        ({"labels": {"background": 0}}, r"labels.*{'background': 0}"),
        ({"labels": None}, r"labels.*None"),
        ({"channel_names": {"1": "x"}}, r"channel_names.*{'1': 'x'}"),
        ({"channel_names": ["x"]}, r"channel_names.*\['x'\]"),
        ({"file_ending": ".jpg"}, r"file_ending.*'\.jpg'.*\.png"),
        ({"file_ending": [".png"]}, r"file_ending.*\['\.png'\].*\.png"),
        ({"numTraining": 5}, r"numTraining.* 5\b.* 2\b"),
        ({"dataset": {"a": {"images": []}}}, r"\"dataset\".*\"images\""),
    ],
)  # fmt: skip
def test_dataset_json_is_checked(tmp_path: Path, changes: dict, match: str) -> None:
    folder = make_dataset(tmp_path, [make_pair("a"), make_pair("b", seed=1)])
    edit_json(folder, **changes)
    with pytest.raises(DataError, match=rf"dataset\.json.*{match}"):
        read_dataset(folder)


def test_a_dataset_needs_its_name_and_its_json(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, [make_pair()])
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json.*JSON"):
        read_dataset(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"Dataset007_Cells.*dataset\.json.*jdm-convert"):
        read_dataset(folder)
    with pytest.raises(DataError, match=r"cells.*Dataset\d{3}_"):
        read_dataset(folder.rename(tmp_path / "cells"))


def test_channel_order_and_test_cases(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, [make_pair("b"), make_pair("a_0000", seed=1)])
    write_case(folder, make_pair("t", seed=2), ".png", "labelsTs", "imagesTs")
    write_case(folder, make_pair("u", seed=3), ".png", "labelsTs", "imagesTs")
    (folder / "labelsTs" / "u.png").unlink()
    (folder / "imagesTr" / "._b_0000.png").write_bytes(b"dirt")
    dataset = read_dataset(folder)
    assert dataset.cases == ("a_0000", "b")
    assert dataset.test_cases == ("t", "u")
    same(read_case(dataset, "t", test=True), make_pair("t", seed=2))
    np.testing.assert_array_equal(read_image(dataset, "u", test=True)[0], make_pair("u", seed=3).image)
    with pytest.raises(DataError, match=r"'u'.*labelsTs"):
        read_case(dataset, "u", test=True)
    with pytest.raises(DataError, match=r"'z'.*a_0000, b"):
        read_case(dataset, "z")
    (finding,) = check_dataset(dataset)
    assert "labelsTs" in finding.text and "u" in finding.text and not finding.must


def test_every_missing_file_is_listed(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, [make_pair(c, channels=2, seed=ord(c)) for c in "abc"])
    (folder / "labelsTr/a.png").unlink()
    (folder / "labelsTr/c.png").unlink()
    with pytest.raises(DataError, match=r" 2 .*labelsTr/a\.png.*labelsTr/c\.png"):
        read_dataset(folder)
    (folder / "imagesTr/a_0000.png").unlink()
    (folder / "imagesTr/b_0001.png").unlink()
    with pytest.raises(DataError, match=r" 2 .*a_0000\.png.*b_0001\.png"):
        read_dataset(folder)
    (folder / "imagesTr/odd.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"odd\.png.*_0000\.png"):
        read_dataset(folder)


# ---------------------------------------------------------------- what nnU-Net's check misses


def test_findings_beyond_nnunets_check(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    empty = Pair("e", make_pair(seed=5).image, np.zeros((7, 5), np.uint8), (1.0, 1.0))
    folder = make_dataset(root, [make_pair("a"), make_pair("A", seed=1), make_pair("b"), empty])
    write_case(folder, make_pair("t", seed=1), ".png", "labelsTs", "imagesTs")
    (folder / "labelsTr/extra.png").write_bytes((folder / "labelsTr/b.png").read_bytes())
    outside = (folder / "labelsTr/e.png").rename(tmp_path / "e.png")
    (folder / "labelsTr/e.png").symlink_to(outside)
    findings = check_dataset(read_dataset(folder))
    texts = [finding.text for finding in findings]
    for named in (
        ("2 cases", "training case b", "training case a"), ("A and a",), ("1 case,", "empty", "training case e"),
        ("labelsTr", "extra"), ("1 case,", "links", "training case e"),
    ):  # fmt: skip
        assert sum(all(name in text for name in named) for text in texts) == 1, named
    assert len(texts) == 5 and not any(finding.must for finding in findings)


def test_unreadable_cases_are_findings(tmp_path: Path) -> None:
    (finding,) = check_dataset(with_image(tmp_path, image=b""))
    assert finding.must and "a_0000.png" in finding.text and "0 bytes" in finding.text


# ---------------------------------------------------------------- the slice axis


@pytest.mark.parametrize(
    ("shapes", "spacing", "axis"),
    [
        ([(20, 64, 48)], (3.0, 0.5, 0.5), 0),
        ([(64, 20, 48)], (0.5, 3.0, 0.5), 1),
        ([(64, 48, 20)], (1.0, 1.0, 1.0), 0),
        ([(1, 8, 40)] * 2, (0.3, 0.5, 0.5), 0),
        ([(8, 40, 1)] * 2, (0.5, 0.5, 0.3), 2),
        ([(1, 8, 40), (12, 8, 40)], (0.3, 0.5, 0.5), 0),
        ([(1, 8, 40), (8, 1, 40), (8, 1, 40)], (5.0, 0.5, 0.5), 1),
        ([(1, 1, 40)], (0.3, 0.5, 9.0), 1),
    ],
)
def test_volumes_are_cut_along_the_axis_of_one_slice_or_the_widest_spacing(shapes, spacing, axis) -> None:
    assert slice_axis(shapes, spacing) == axis


@pytest.mark.parametrize("across", [0.3, 499.5])
def test_volumes_of_one_slice_that_nnunet_cuts_into_lines_are_a_finding(nnunet_folders, across) -> None:
    """With a slice thinner than its pixels nnU-Net plans patches of one line; the spacing that is told mends that."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_integration.host import read_plans
    from nnunet_integration.register import plan_dataset

    pairs = [make_pair(case, ".nii.gz", 1, "int16", seed, (1, 36, 40)) for seed, case in enumerate("abcde")]
    pairs = [dataclasses.replace(pair, spacing=(across, 0.5, 0.5)) for pair in pairs]
    dataset = read_dataset(make_dataset(nnunet_folders["nnUNet_raw"], pairs, ".nii.gz"))
    must = [finding.text for finding in check_dataset(dataset) if finding.must]
    assert [("0.5" in text, "499.5" in text) for text in must] == [(True, True)] * (across < 0.5)
    plan_dataset(dataset, "nnUNetPlans")
    plans = PlansManager(read_plans(nnunet_folders["nnUNet_preprocessed"] / dataset.name, "nnUNetPlans"))
    assert (1 in plans.get_configuration("2d").patch_size) == (plans.transpose_forward[0] != 0) == (across < 0.5)

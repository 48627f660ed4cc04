"""Raw datasets: what is written comes back, nnU-Net reads it too, and what is not right is refused by name."""

import itertools
import json
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from jdm.data import raster
from jdm.data.raw_dataset import (
    FILE_ENDINGS,
    NATURAL_ENDINGS,
    Geometry,
    Pair,
    RawDataset,
    check_dataset,
    dataset_name,
    nnunet_folder,
    open_dataset,
    read_case,
    read_dataset,
    read_image,
    used_ids,
    validate_labels,
    write_case,
    write_dataset_json,
)
from jdm.errors import ConfigError, DataError

LABELS = {"background": 0, "cell": 1, "nucleus": 2}


def make_pair(
    case_id: str = "a", ending: str = ".png", channels: int = 3, dtype: str = "uint8", seed: int = 0,
    shape: tuple[int, ...] | None = None,
) -> Pair:  # fmt: skip
    rng = np.random.default_rng(seed)
    natural = ending in NATURAL_ENDINGS
    shape = shape or ((7, 5) if natural else (4, 7, 5))
    image = (rng.random((channels, *shape)) * 200).astype(dtype)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    if natural:
        return Pair(case_id, image, label, (1.0, 1.0))
    geometry = Geometry((1.5, 2.0, -3.0), (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    return Pair(case_id, image, label, (3.0, 0.5, 0.25), geometry)


def make_dataset(root: Path, pairs: list[Pair], ending: str = ".png", id: int = 7, **extra: object) -> Path:
    folder = root / dataset_name(id, "Cells")
    folder.mkdir()
    for pair in pairs:
        write_case(folder, pair, ending)
    names = [f"c{i}" for i in range(pairs[0].image.shape[0])]
    write_dataset_json(
        folder, channel_names=names, labels=LABELS, file_ending=ending, num_training=len(pairs), extra=extra
    )
    return folder


def edit_json(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same(first: Pair, second: Pair) -> None:
    assert first.image.dtype == second.image.dtype
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_allclose(first.spacing, second.spacing, rtol=1e-6)
    assert (first.geometry is None) == (second.geometry is None)
    if first.geometry and second.geometry:
        np.testing.assert_allclose(first.geometry.origin, second.geometry.origin, rtol=1e-6)
        np.testing.assert_allclose(first.geometry.direction, second.geometry.direction, atol=1e-6)


# ---------------------------------------------------------------- what is written comes back


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    ending=st.sampled_from(FILE_ENDINGS), channels=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "float32", "float64"]),
    shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_round_trip(ending: str, channels: int, dtype: str, shape: tuple[int, ...], seed: int) -> None:
    allowed = {".png": ("uint8", "uint16"), ".bmp": ("uint8",)}.get(ending)
    assume(allowed is None or dtype in allowed)
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
        (make_pair(dtype="float32"), ".png", "cannot hold"),
        (make_pair(case_id="../a"), ".png", "plain file name"),
        (Pair("a", np.zeros((1, 2, 2), np.uint8), np.zeros((2, 3), np.uint8), (1.0, 1.0)), ".png", r"\(2, 3\)"),
        (Pair("a", np.zeros((1, 2, 2), np.uint8), -np.ones((2, 2), np.int8), (1.0, 1.0)), ".png", "-1"),
        (make_pair(ending=".nii.gz"), ".png", "cannot hold"),
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


# ---------------------------------------------------------------- pictures as found in the wild


def with_image(tmp_path: Path, **files: bytes | np.ndarray | Image.Image) -> RawDataset:
    """A one-case dataset whose `image` or `label` file is replaced."""
    folder = make_dataset(tmp_path, [make_pair()])
    for part, content in files.items():
        path = folder / ("imagesTr/a_0000.png" if part == "image" else "labelsTr/a.png")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            (Image.fromarray(content) if isinstance(content, np.ndarray) else content).save(path)
    return read_dataset(folder)


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path: Path) -> None:
    pixels = np.full((7, 5, 4), 255, np.uint8)
    pixels[..., :3] = np.arange(3)
    dataset = with_image(tmp_path, image=pixels)
    np.testing.assert_array_equal(read_case(dataset, "a").image[:, 0, 0], [0, 1, 2])
    pixels[3, 2, 3] = 9
    Image.fromarray(pixels).save(dataset.image_files("a")[0])
    with pytest.raises(DataError, match=r"a_0000.png: has a transparent alpha channel \(lowest value 9"):
        read_case(dataset, "a")


def test_palette_is_colours_in_an_image_and_indices_in_a_label(tmp_path: Path) -> None:
    indices = (np.arange(35) % 3).astype(np.uint8).reshape(7, 5)
    picture = Image.fromarray(indices)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    pair = read_case(with_image(tmp_path, image=picture, label=picture), "a")
    np.testing.assert_array_equal(pair.label, indices)
    np.testing.assert_array_equal(pair.image[:, 0, 1], [40, 50, 60])


def test_tiff_with_planes_compression_and_palette(tmp_path: Path) -> None:
    pair = make_pair(ending=".tif")
    folder = make_dataset(tmp_path, [pair], ".tif")
    path = folder / "imagesTr/a_0000.tif"
    tifffile.imwrite(path, pair.image, photometric="rgb", planarconfig="separate", compression="lzw", byteorder=">")
    same(read_case(read_dataset(folder), "a"), pair)
    tifffile.imwrite(path, np.zeros((4, 7, 5), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="pages"):
        read_case(read_dataset(folder), "a")


def test_equal_label_channels_collapse_and_others_are_refused(tmp_path: Path) -> None:
    grey = make_pair().label
    dataset = with_image(tmp_path, label=np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(read_case(dataset, "a").label, grey)
    findings = check_dataset(dataset)
    assert len(findings) == 1
    assert "several channels" in findings[0]
    Image.fromarray(np.stack([grey, grey, 1 - (grey > 0).astype(np.uint8)], -1)).save(dataset.label_file("a"))
    with pytest.raises(DataError, match=r"a.png: the label has 3 channels that differ"):
        read_case(dataset, "a")


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "0 bytes"),
        (b"hello, this is text", "kind unknown; expected png"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "kind jpeg; expected png"),
        (png_header(7, 5)[:-20], "truncated"),
        (png_header(20_000, 20_000), "400000000 pixels"),
        (png_header(11_600, 11_600), "134560000 pixels"),
        (png_header(7, 5, depth=16), "16-bit colour PNG"),
    ],
)
def test_damaged_pictures_are_refused_by_name(tmp_path: Path, content: bytes, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_case(with_image(tmp_path, image=content), "a")
    assert "a_0000.png" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ending=st.sampled_from(FILE_ENDINGS), share=st.floats(0.0, 0.97))
def test_truncated_files_never_pass(ending: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as root:
        pair = make_pair(ending=ending, channels=1, shape=(20, 30) if ending in NATURAL_ENDINGS else (5, 20, 30))
        dataset = read_dataset(make_dataset(Path(root), [pair], ending))
        path = dataset.image_files("a")[0]
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(DataError, match="a_0000"):
            read_case(dataset, "a")


def test_volume_limit_is_checked_by_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_dataset(make_dataset(tmp_path, [make_pair(ending=".nrrd", channels=1)], ".nrrd"))
    monkeypatch.setattr("jdm.data.image_io.MAX_VOXELS", 100)
    with pytest.raises(DataError, match="announces 140 pixels; expected at most 100"):
        read_case(dataset, "a")
    assert raster.MAX_VOXELS > 1e9


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_headers_that_name_another_file_are_refused(tmp_path: Path, ending: str) -> None:
    dataset = read_dataset(make_dataset(tmp_path, [make_pair(ending=ending, channels=1)], ending))
    path = dataset.image_files("a")[0]
    if ending == ".mha":
        header = (
            "ObjectType = Image\nNDims = 3\nDimSize = 5 7 4\nElementType = MET_UCHAR\nElementDataFile = /etc/hosts\n"
        )
    else:
        header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 7 4\nencoding: raw\ndata file: ../../hosts\n\n"
    path.write_text(header)
    with pytest.raises(DataError, match="keeps its voxels in another file"):
        read_case(dataset, "a")


def test_nan_and_infinite_pixels_are_refused(tmp_path: Path) -> None:
    for k, (ending, bad) in enumerate([(".tif", np.nan), (".nii.gz", np.inf)]):
        pair = make_pair(ending=ending, channels=1, dtype="float32")
        pair.image.flat[3] = bad
        dataset = read_dataset(make_dataset(tmp_path, [pair], ending, id=k + 1))
        with pytest.raises(DataError, match="1 pixels are NaN or infinite"):
            read_case(dataset, "a")


# ---------------------------------------------------------------- volumes


def test_a_four_dimensional_volume_is_channels(tmp_path: Path) -> None:
    pair = make_pair(ending=".nii.gz", channels=2)
    folder = make_dataset(tmp_path, [pair], ".nii.gz")
    first, second = sorted((folder / "imagesTr").iterdir())
    image = SimpleITK.JoinSeries([SimpleITK.ReadImage(str(first)), SimpleITK.ReadImage(str(second))])
    SimpleITK.WriteImage(image, str(first))
    second.unlink()
    same(read_case(read_dataset(folder), "a"), pair)


def test_disagreeing_channels_and_labels_are_refused(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, [make_pair(ending=".nii.gz", channels=2)], ".nii.gz")
    dataset = read_dataset(folder)
    path = dataset.label_file("a")
    label = SimpleITK.ReadImage(str(path))
    label.SetSpacing((1.0, 1.0, 1.0))
    SimpleITK.WriteImage(label, str(path))
    with pytest.raises(DataError, match=r"a.nii.gz: the label's spacing is \(1.0, 1.0, 1.0\)"):
        read_case(dataset, "a")
    SimpleITK.WriteImage(label[:-1], str(path))
    with pytest.raises(DataError, match=r"the label's size is \(4, 7, 4\), the image's \(4, 7, 5\)"):
        read_case(dataset, "a")
    image = SimpleITK.ReadImage(str(dataset.image_files("a")[1]))
    SimpleITK.WriteImage(SimpleITK.Cast(image, SimpleITK.sitkFloat32), str(dataset.image_files("a")[1]))
    with pytest.raises(DataError, match="float32"):
        read_case(dataset, "a")


def test_a_turned_label_header_is_a_finding(tmp_path: Path) -> None:
    dataset = read_dataset(make_dataset(tmp_path, [make_pair(ending=".nii.gz", channels=1)], ".nii.gz"))
    path = dataset.label_file("a")
    label = SimpleITK.ReadImage(str(path))
    label.SetOrigin((0.0, 0.0, 9.0))
    SimpleITK.WriteImage(label, str(path))
    assert ["another origin" in finding for finding in check_dataset(dataset)] == [True]


# ---------------------------------------------------------------- labels and dataset.json


def test_values_outside_the_labels_name_value_file_and_cure(tmp_path: Path) -> None:
    dataset = with_image(tmp_path, label=np.full((7, 5), 255, np.uint8))
    with pytest.raises(DataError, match=r"a.png: the label holds 255; expected only 0 \(background\), 1 .*jdm-convert"):
        read_case(dataset, "a")
    with pytest.raises(DataError, match=r"here: the label holds -1, 0\.5"):
        validate_labels(np.array([-1, 0.5, 1]), LABELS, "here")
    validate_labels(np.array([0, 2.0]), LABELS, "here")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": {"background": 0, "a": [1, 2]}}, "regions are not supported yet"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "ignore label is not supported yet"),
        ({"labels": {"background": 0, "a": 2}}, "consecutive"),
        ({"labels": {"background": 0, "a": True}}, "consecutive"),
        ({"labels": {"0": "background"}}, "consecutive"),
        ({"labels": {"background": 1, "a": 0}}, "background 0"),
        ({"labels": {"background": 0}}, "at least one class"),
        ({"labels": None}, "labels is None"),
        ({"channel_names": {"1": "x"}}, "channel_names"),
        ({"channel_names": ["x"]}, "channel_names"),
        ({"file_ending": ".jpg"}, "'.jpg'; expected one of .png"),
        ({"numTraining": 5}, "numTraining is 5, found 2"),
        ({"dataset": {"a": {"images": []}}}, "expected \"dataset\""),
    ],
)  # fmt: skip
def test_dataset_json_is_checked(tmp_path: Path, changes: dict, match: str) -> None:
    folder = make_dataset(tmp_path, [make_pair("a"), make_pair("b", seed=1)])
    edit_json(folder, **changes)
    with pytest.raises(DataError, match=match):
        read_dataset(folder)


def test_a_dataset_needs_its_name_and_its_json(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, [make_pair()])
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_dataset(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"no dataset.json"):
        read_dataset(folder)
    with pytest.raises(DataError, match="Dataset011_MoNuSeg"):
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
    with pytest.raises(DataError, match="test case 'u' has no label"):
        read_case(dataset, "u", test=True)
    with pytest.raises(DataError, match="no training case 'z'; expected one of a_0000, b"):
        read_case(dataset, "z")
    assert ["test images have no label" in f for f in check_dataset(dataset)] == [True]


def test_every_missing_file_is_listed(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, [make_pair(c, channels=2, seed=ord(c)) for c in "abc"])
    (folder / "labelsTr/a.png").unlink()
    (folder / "labelsTr/c.png").unlink()
    with pytest.raises(DataError, match=r"2 training labels are missing .*a\.png.*c\.png"):
        read_dataset(folder)
    (folder / "imagesTr/a_0000.png").unlink()
    (folder / "imagesTr/b_0001.png").unlink()
    with pytest.raises(DataError, match=r"2 image files are missing .*a_0000\.png.*b_0001\.png"):
        read_dataset(folder)
    (folder / "imagesTr/odd.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"odd.png: expected a name like case_0000.png"):
        read_dataset(folder)


# ---------------------------------------------------------------- explicit paths


def explicit(folder: Path, image: str, label: str = "labelsTr/a.png") -> None:
    edit_json(folder, dataset={"a": {"images": [image], "label": label}})


def test_explicit_paths_are_followed_inside(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    raw = nnunet_folders["nnUNet_raw"]
    folder = make_dataset(raw, [make_pair()])
    other = raw / "Dataset008_Merged"
    other.mkdir()
    write_dataset_json(other, channel_names=["R", "G", "B"], labels=LABELS, file_ending=".png", num_training=1)
    for image in (f"../{folder.name}/imagesTr/a_0000.png", f"$nnUNet_raw/{folder.name}/imagesTr/a_0000.png"):
        explicit(other, image, str(folder / "labelsTr/a.png"))
        same(read_case(read_dataset(other), "a"), make_pair())
    assert check_dataset(read_dataset(other)) == []


def test_explicit_paths_that_leave_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    folder = make_dataset(root, [make_pair()])
    outside = tmp_path / "outside.png"
    outside.write_bytes((folder / "imagesTr/a_0000.png").read_bytes())
    (folder / "link.png").symlink_to(outside)
    for path in ("../../outside.png", str(outside), "link.png", "$HOME/x.png"):
        explicit(folder, path)
        with pytest.raises(DataError, match="outside the dataset"):
            read_dataset(folder)
    explicit(folder, "imagesTr/none.png", "labelsTr/none.png")
    with pytest.raises(DataError, match=r"2 files it names are missing .*imagesTr/none.png.*labelsTr/none.png"):
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
    findings = "\n".join(check_dataset(read_dataset(folder)))
    for expected in (
        "training case b: its image equals that of training case a",
        "test case t: its image equals that of training case A",
        "training case a: its id differs from A in upper and lower case only",
        "training case e: its label is empty",
        "1 labels in labelsTr have no image: extra",
        "outside the dataset",
    ):
        assert expected in findings
    assert findings.count("\n") == 5


def test_unreadable_cases_are_findings(tmp_path: Path) -> None:
    assert ["0 bytes" in f for f in check_dataset(with_image(tmp_path, image=b""))] == [True]


# ---------------------------------------------------------------- finding datasets


def test_open_by_id_name_and_full_name(nnunet_folders: dict[str, Path]) -> None:
    folder = make_dataset(nnunet_folders["nnUNet_raw"], [make_pair()], id=11)
    for key in (11, "11", "011", "Cells", "Dataset011_Cells"):
        assert open_dataset(key).folder == folder
    for key in (12, "", "..", "Dataset011_Cells/", "²"):
        with pytest.raises(ConfigError, match="Dataset011_Cells"):
            open_dataset(key)
    assert used_ids() == {11: [folder]}
    twin = nnunet_folders["nnUNet_results"] / "Dataset011_Other"
    twin.mkdir()
    assert used_ids() == {11: [folder, twin]}
    with pytest.raises(ConfigError, match="belongs to Dataset011_Cells and to Dataset011_Other"):
        open_dataset(11)


def test_folders_that_are_unset_show_the_line_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ConfigError, match="export nnUNet_raw="):
        nnunet_folder("nnUNet_raw")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="mkdir -p"):
        nnunet_folder("nnUNet_raw")


def test_dataset_names() -> None:
    assert dataset_name(7, "A_b-c.1") == "Dataset007_A_b-c.1"
    for id, name in ((0, "A"), (1000, "A"), (1, ""), (1, "a/b"), (1, "../a"), (1, "a b")):
        with pytest.raises(ConfigError):
            dataset_name(id, name)

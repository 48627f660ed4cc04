"""Files that nnU-Net reads otherwise than jdm, or not at all: one line a kind, with a cure that works."""

import contextlib
import gzip
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from PIL import Image
from raw_miniatures import LABELS, edit_json, make_dataset, make_pair

import jdm.cli.convert
from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_dataset
from jdm.errors import DataError


def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (7, 5, 3), dtype=np.uint8)


def opaque(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full((7, 5), np.iinfo(pixels.dtype).max, pixels.dtype)])


def palette(indices: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return picture


def saved(picture: Image.Image, **how: object) -> Callable[[Path], None]:
    return lambda path: picture.save(path, **how)


def tiff(array: np.ndarray, **how: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, array, **{"photometric": "minisblack", **how})


UPRIGHT_TAG = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
COLOURS = np.arange(768, dtype=np.uint16).reshape(3, 256) * 80
PICTURES = {
    "rgba.png": saved(Image.fromarray(opaque(rgb()))),
    "la.png": saved(Image.fromarray(rgb()[..., 0]).convert("LA")),
    "palette.png": saved(palette(rgb()[..., 0] % 3)),
    "palette.bmp": saved(palette(rgb()[..., 0] % 3)),
    "bits.png": saved(Image.fromarray(rgb()[..., 0] > 99)),
    "bits.bmp": saved(Image.fromarray(rgb()[..., 0] > 99)),
    "grey16.png": saved(Image.fromarray(rgb()[..., 0].astype(np.uint16) * 257)),
    "exif.png": saved(Image.fromarray(rgb()), exif=UPRIGHT_TAG),
    "jpeg.png": saved(Image.fromarray(rgb()), format="JPEG"),
    "cmyk.png": saved(Image.fromarray(rgb()).convert("CMYK"), format="JPEG"),
    "frames.png": saved(Image.fromarray(rgb()), save_all=True, append_images=[Image.fromarray(255 - rgb())]),
    "rgba.tif": tiff(opaque(rgb()), photometric="rgb", extrasamples=["unassalpha"]),
    "la.tif": tiff(opaque(rgb()[..., 0]), planarconfig="contig", extrasamples=["unassalpha"]),
    "palette.tif": tiff(rgb()[..., 0] % 3, photometric="palette", colormap=COLOURS),
    "planes.tif": tiff(np.moveaxis(rgb(), -1, 0), photometric="rgb", planarconfig="separate"),
    "cmyk.tif": tiff(opaque(rgb()), photometric="separated"),
    "bits.tif": tiff(rgb()[..., 0] > 99),
    "white.tif": tiff(rgb()[..., 0], photometric="miniswhite"),
    "pages3.tif": tiff(np.moveaxis(rgb(), -1, 0)),
    "pages.tif": tiff(np.stack([rgb()[..., 0]] * 6)),
    "colour_pages.tif": tiff(np.stack([rgb()] * 2), photometric="rgb"),
    **{f"{t}.tif": tiff(rgb()[..., 0].astype(t)) for t in ("int8", "uint32", "uint64", "float16", "float64")},
    "rgb16.tif": tiff(rgb().astype(np.uint16) * 257, photometric="rgb"),
    "complex.tif": tiff(rgb()[..., 0].astype(np.complex64)),
}  # fmt: skip
CONVERTED = ("rgba.png", "la.png", "rgba.tif", "la.tif", "palette.tif", "jpeg.png", "cmyk.png")
REFUSED = {
    **dict.fromkeys(CONVERTED, "jdm-convert pairs"),
    "frames.png": "frames", "cmyk.tif": "SEPARATED", "white.tif": "MINISWHITE", "pages3.tif": "3 pages",
    "pages.tif": "a.tif", "colour_pages.tif": "2 pages", "complex.tif": "complex",
}  # fmt: skip
"""What the line names, of kinds that nnU-Net reads otherwise than jdm, or one of the two not at all."""


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_read_as_nnunet_reads_them_or_found(tmp_path, name):
    """Of two files of a kind: the same channels in both programs, or one line with their number, a name and a cure."""
    ending = Path(name).suffix
    folder = make_dataset(tmp_path, [make_pair("a", ending), make_pair("b", ending, seed=1)], ending)
    files = sorted((folder / "imagesTr").iterdir())
    for path in files:
        PICTURES[name](path)
    channels = 1
    with contextlib.suppress(DataError):
        channels = len(read_raster(files[0], reader="NaturalImage2DIO").array)
    edit_json(folder, channel_names={str(k): f"c{k}" for k in range(channels)})
    dataset = read_dataset(folder)
    must = [finding for finding in check_dataset(dataset) if finding.must]
    if must:
        (finding,) = must
        assert "/a" in finding.text and ("2 files" in finding.text or "1 more" in finding.text)
        assert REFUSED[name] in finding.text
        return
    assert name not in REFUSED
    array, _ = recursive_find_reader_writer_by_name(dataset.reader)().read_images([str(files[0])])
    np.testing.assert_array_equal(read_case(dataset, "a").image[:, None], array)


@pytest.mark.parametrize(
    ("ending", "write", "found"),
    [
        (".png", lambda label: palette(label), "palette"),
        (".bmp", lambda label: palette(label), "palette"),
        (".png", lambda label: Image.fromarray(label).convert("LA"), "alpha"),
        (".png", lambda label: Image.fromarray(label).convert("RGBA"), "alpha"),
        (".png", lambda label: Image.fromarray(label).convert("RGB"), "channels"),
        (".tif", lambda label: palette(label), None),
        (".png", lambda label: Image.fromarray(label), None),
    ],
)
def test_labels_that_nnunet_reads_otherwise_are_findings(tmp_path, ending, write, found):
    pairs = [make_pair(case, ending, seed=seed) for seed, case in enumerate("abc")]
    folder = make_dataset(tmp_path, pairs, ending)
    for pair in pairs[1:]:
        write(pair.label).save(folder / f"labelsTr/{pair.case_id}{ending}")
    dataset = read_dataset(folder)
    np.testing.assert_array_equal(read_case(dataset, "c").label, pairs[2].label)
    must = [finding.text for finding in check_dataset(dataset) if finding.must]
    assert len(must) == bool(found)
    try:
        channels = len(NaturalImage2DIO().read_seg(str(dataset.label_file("c")))[0])
    except AssertionError:  # two channels are none to nnU-Net
        channels = 2
    assert (channels == 1) == (found is None)
    for text in must:
        assert found in text and "2 files" in text and "labelsTr/b" in text and "jdm-convert pairs" in text


@pytest.mark.parametrize("kind", ["rgba.png", "jpeg.png", "palette label"])
def test_the_command_told_makes_a_set_that_nnunet_reads(nnunet_folders, monkeypatch, kind):
    pairs = [make_pair(case, channels=1 if "label" in kind else 3, seed=seed) for seed, case in enumerate("abc")]
    folder = make_dataset(nnunet_folders["nnUNet_raw"], pairs)
    if "label" in kind:
        palette(pairs[1].label).save(folder / "labelsTr/b.png")
    else:
        PICTURES[kind](folder / "imagesTr/b_0000.png")
    (finding,) = [finding for finding in check_dataset(read_dataset(folder)) if finding.must]
    monkeypatch.setattr(sys, "argv", shlex.split(finding.text.split("type: ")[1]))
    jdm.cli.convert.main()
    made = open_dataset(8)
    assert made.cases == ("a", "b", "c") and made.labels == LABELS
    assert not [finding for finding in check_dataset(made) if finding.must]
    np.testing.assert_array_equal(read_case(made, "b").label, pairs[1].label)
    image, _ = NaturalImage2DIO().read_images([str(made.image_files("b")[0])])
    assert len(image) == len(pairs[1].image)


def test_a_nifti_file_named_gz_that_is_not_zipped_is_mended_by_the_command_told(tmp_path):
    folder = make_dataset(tmp_path, [make_pair(ending=".nii.gz", channels=1)], ".nii.gz")
    path = folder / "imagesTr/a_0000.nii.gz"
    whole = read_raster(path).array
    path.write_bytes(gzip.decompress(path.read_bytes()))
    (finding,) = [finding for finding in check_dataset(read_dataset(folder)) if finding.must]
    subprocess.run(finding.text.split("type: ")[1], shell=True, check=True)
    np.testing.assert_array_equal(read_raster(path).array, whole)


def test_files_of_two_and_three_axes_in_one_dataset_are_read_as_nnunet_reads_them_or_named(tmp_path):
    """SimpleITK takes a flat file for one slice; nibabel's readers want three axes, and TIFF stacks are no pictures."""
    pairs = [make_pair(case, ".nii.gz", channels=1, seed=seed) for seed, case in enumerate("ab")]
    folder = make_dataset(tmp_path, pairs, ".nii.gz")
    for path in (folder / "imagesTr/b_0000.nii.gz", folder / "labelsTr/b.nii.gz"):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path))[:, :, 0], str(path))
    dataset = read_dataset(folder)
    assert [read_case(dataset, case).label.shape for case in "ab"] == [(4, 7, 5), (1, 7, 5)]
    assert not any(finding.must for finding in check_dataset(dataset))
    edit_json(folder, overwrite_image_reader_writer="NibabelIO")
    (finding,) = [finding for finding in check_dataset(read_dataset(folder)) if finding.must]
    assert "b_0000.nii.gz" in finding.text and "2 axes" in finding.text and '"SimpleITKIO"' in finding.text

    folder = make_dataset(tmp_path, [make_pair("a", ".tif", 1), make_pair("b", ".tif", 1, seed=1)], ".tif", id=8)
    tifffile.imwrite(folder / "imagesTr/b_0000.tif", np.zeros((6, 7, 5), np.uint8), photometric="minisblack")
    (finding,) = [finding for finding in check_dataset(read_dataset(folder)) if finding.must]
    assert "b_0000.tif" in finding.text and "6 pages" in finding.text

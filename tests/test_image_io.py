"""Files as found in the wild: read faithfully, or refused by name."""

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_miniatures import make_dataset, make_pair, same, with_image

from jdm.data import raster
from jdm.data.raw_dataset import (
    FILE_ENDINGS,
    NATURAL_ENDINGS,
    read_case,
    read_dataset,
)
from jdm.errors import DataError

# ---------------------------------------------------------------- pictures as found in the wild


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path: Path) -> None:
    pixels = np.full((7, 5, 4), 255, np.uint8)
    pixels[..., :3] = np.arange(3)
    dataset = with_image(tmp_path, image=pixels)
    np.testing.assert_array_equal(read_case(dataset, "a").image[:, 0, 0], [0, 1, 2])
    pixels[3, 2, 3] = 9
    Image.fromarray(pixels).save(dataset.image_files("a")[0])
    with pytest.raises(DataError, match=r"a_0000\.png.*alpha.* 9\b.*255"):
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
    with pytest.raises(DataError, match=r"a_0000\.tif.* 4 pages"):
        read_case(read_dataset(folder), "a")


def test_equal_label_channels_collapse_and_others_are_refused(tmp_path: Path) -> None:
    grey = make_pair().label
    dataset = with_image(tmp_path, label=np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(read_case(dataset, "a").label, grey)
    Image.fromarray(np.stack([grey, grey, 1 - (grey > 0).astype(np.uint8)], -1)).save(dataset.label_file("a"))
    with pytest.raises(DataError, match=r"a\.png.* 3 channels"):
        read_case(dataset, "a")


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_no_changed_byte_of_a_png_files_pixels_passes(tmp_path: Path) -> None:
    """Uncompressed, so that every changed byte decodes: only the checksum tells."""
    dataset = with_image(tmp_path, image=np.arange(35, dtype=np.uint8).reshape(7, 5))
    path = dataset.image_files("a")[0]
    Image.open(path).save(path, compress_level=0)
    whole = path.read_bytes()
    start = whole.index(b"IDAT") + 4
    for at in range(start, start + int.from_bytes(whole[start - 8 : start - 4]), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"a_0000\.png"):
            read_case(dataset, "a")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "0 bytes"),
        (b"hello, this is text", "unknown.*png"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "jpeg.*png"),
        (png_header(7, 5)[:-20], "truncated"),
        (png_header(20_000, 20_000), "400000000"),
        (png_header(11_600, 11_600), "134560000"),
        (png_header(7, 5, depth=16), "16-bit"),
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
    monkeypatch.setattr("jdm.data.volume_io.MAX_VOXELS", 100)
    with pytest.raises(DataError, match=r"a_0000\.nrrd.* 140 .* 100"):
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
    with pytest.raises(DataError, match=rf"a_0000\{ending}.*hosts"):
        read_case(dataset, "a")


def test_nan_and_infinite_pixels_are_refused(tmp_path: Path) -> None:
    for k, (ending, bad) in enumerate([(".tif", np.nan), (".nii.gz", np.inf)]):
        pair = make_pair(ending=ending, channels=1, dtype="float32")
        pair.image.flat[3] = bad
        dataset = read_dataset(make_dataset(tmp_path, [pair], ending, id=k + 1))
        with pytest.raises(DataError, match=rf"a_0000\{ending}.* 1 .*NaN"):
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


def test_channels_of_several_types_are_refused(tmp_path: Path) -> None:
    dataset = read_dataset(make_dataset(tmp_path, [make_pair(ending=".nii.gz", channels=2)], ".nii.gz"))
    path = dataset.image_files("a")[1]
    SimpleITK.WriteImage(SimpleITK.Cast(SimpleITK.ReadImage(str(path)), SimpleITK.sitkFloat32), str(path))
    with pytest.raises(DataError, match=r"a_0001.*float32.*uint8"):
        read_case(dataset, "a")

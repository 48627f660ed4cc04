"""Mutated PNG, BMP, JPEG, TIFF, NIfTI, MetaImage and NRRD files."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fuzzing import bytes_of
from hypothesis import strategies as st
from PIL import Image
from raw_miniatures import make_pair

import jdm.data.picture_io
import jdm.data.volume_content
import jdm.data.volume_io
from jdm.data.image_io import read_raster
from jdm.data.picture_io import peek_picture, read_picture
from jdm.data.raw_dataset import FILE_ENDINGS, NATURAL_ENDINGS
from jdm.data.raw_dataset import write_case as write_raw_case

PIXELS = 2**16
"""Stands for the largest picture and volume, so that what is read is small and what is reserved without need shows."""


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(jdm.data.picture_io, "MAX_PIXELS", PIXELS)
    monkeypatch.setattr(jdm.data.volume_content, "MAX_VOXELS", PIXELS)
    monkeypatch.setattr(jdm.data.volume_io, "MAX_VOXELS", PIXELS)


def image_reader(path: Path, reader: str = "") -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        for label in (False, True):
            raster = read_raster(path, label, reader)
            array = raster.array
            assert array.ndim == 1 + len(raster.spacing) and array.dtype.kind in "iuf"
            assert array[0].size <= PIXELS and len(array) <= PIXELS
            assert array.dtype.kind != "f" or np.isfinite(array).all()
            assert all(isinstance(s, float) for s in raster.spacing)

    return read


def with_right_checksums(content: bytes) -> bytes:
    """A PNG file whose chunks pass, so that what is in them is looked at."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        data[at + 8 + length : at + 12 + length] = zlib.crc32(data[at + 4 : at + 8 + length]).to_bytes(4, "big")
        at += 12 + length
    return bytes(data)


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_images(tmp_path, small_limits, fuzz, ending):
    shape = (9, 7) if ending in NATURAL_ENDINGS else (3, 5, 4)
    for number, (channels, dtype) in enumerate(
        [(1, "uint8"), (1, "float32" if ending not in (".png", ".bmp") else "uint8")]
    ):
        write_raw_case(tmp_path, make_pair(f"c{number}", ending, channels, dtype, number, shape), ending)
    contents = [path.read_bytes() for path in sorted((tmp_path / "imagesTr").iterdir())]
    if ending in NATURAL_ENDINGS:
        write_raw_case(tmp_path, make_pair("rgb", ending, 3, "uint8", 5, shape), ending)
        contents.append((tmp_path / "imagesTr" / f"rgb_0000{ending}").read_bytes())
    if ending == ".nii.gz":
        inner = st.one_of([bytes_of(gzip.decompress(content)) for content in contents])
        mutated = inner.map(lambda data: gzip.compress(data, 1)) | st.one_of([bytes_of(c) for c in contents])
    else:
        mutated = st.one_of([bytes_of(content) for content in contents])
    if ending == ".png":
        mutated = mutated | mutated.map(with_right_checksums)
    fuzz(mutated, image_reader(tmp_path / f"x{ending}"))


OTHERS = {
    "SimpleITKIO": ".nii", "NibabelIOWithReorient": ".nii", "SimpleITKIOWithReorient": ".nrrd", "Tiff3DIO": ".tif"
}  # fmt: skip


@pytest.mark.parametrize(("reader", "ending"), list(OTHERS.items()))
def test_volumes_of_other_readers(tmp_path, small_limits, fuzz, reader, ending):
    write_raw_case(tmp_path, make_pair("c", ending, 1, "float32", shape=(3, 5, 4)), ending)
    content = (tmp_path / "imagesTr" / f"c_0000{ending}").read_bytes()
    fuzz(bytes_of(content), image_reader(tmp_path / f"x_0000{ending}", reader))


def test_tiff_variants(tmp_path, small_limits, fuzz):
    grey, rgb = make_pair(channels=1, shape=(20, 24)).image[0], np.moveaxis(make_pair(shape=(20, 24)).image, 0, -1)
    kinds: list[tuple[np.ndarray, dict[str, Any]]] = [
        (grey, {"compression": "lzw", "byteorder": ">"}), (grey, {"tile": (16, 16), "compression": "zlib"}),
        (rgb, {"photometric": "rgb", "compression": "jpeg"}), (rgb, {"photometric": "rgb", "bigtiff": True}),
        (grey, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        (grey.astype(np.uint16), {"compression": "packbits", "rowsperstrip": 4}),
    ]  # fmt: skip
    contents = []
    for array, options in kinds:
        tifffile.imwrite(tmp_path / "seed.tif", array, metadata=None, **options)
        contents.append(bytes_of((tmp_path / "seed.tif").read_bytes()))
    fuzz(st.one_of(contents), image_reader(tmp_path / "x.tif"))


def test_pictures_of_sources(tmp_path, small_limits, fuzz):
    """Kinds that converters read, and the glance at the header that they take first."""
    rgb = Image.fromarray(np.moveaxis(make_pair(shape=(20, 24)).image, 0, -1))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(tmp_path / "seed.jpg", exif=exif, quality=80)
    rgb.quantize(5).save(tmp_path / "palette.png")
    jpeg, png = (tmp_path / "seed.jpg").read_bytes(), (tmp_path / "palette.png").read_bytes()
    for kind, contents in (("jpeg", bytes_of(jpeg)), ("png", bytes_of(png).map(with_right_checksums))):
        path = tmp_path / f"x.{kind}"

        def read(data: bytes, path: Path = path, kind: str = kind) -> None:
            path.write_bytes(data)
            channels, dtype = peek_picture(path, kind)
            array = read_picture(path, kind).array
            assert array.shape[0] == channels and array.dtype == dtype and array[0].size <= PIXELS

        fuzz(contents, read)

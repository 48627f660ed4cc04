"""Pictures in colour spaces and with transparency: the right colours, or refused with a command that helps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conversion_miniatures import type_command
from PIL import Image

from jdm.data.picture_io import peek_picture, read_picture
from jdm.errors import DataError

COLOURS = ((200, 30, 40), (20, 180, 60), (30, 60, 220), (0, 0, 0), (255, 255, 255), (90, 90, 90))


def stripes() -> np.ndarray:
    """(16, 96, 3), six colours."""
    return np.repeat(np.array(COLOURS, np.uint8)[None], 16, axis=0).repeat(16, axis=1)


def ycbcr() -> np.ndarray:
    return np.asarray(Image.fromarray(stripes()).convert("YCbCr"))


def difference(found: np.ndarray, expected: np.ndarray) -> int:
    """The largest, away from the borders of the stripes, which JPEG blurs."""
    inside = np.arange(96) % 16 // 4 % 3 > 0
    return int(np.abs(found.astype(int) - expected)[:, inside].max())


def read(path: Path, kind: str = "tiff", label: bool = False) -> np.ndarray:
    found = read_picture(path, kind, label)
    if not label:
        assert peek_picture(path, kind) == (found.array.shape[0], found.array.dtype)
    return np.moveaxis(found.array, 0, -1)


PLANES = {"planarconfig": "separate"}
TIFFS: list[tuple[np.ndarray, dict[str, Any], int]] = [
    (ycbcr(), {"photometric": "ycbcr"}, 2), (ycbcr(), {"photometric": "ycbcr", "compression": "zlib"}, 2),
    (ycbcr(), {"photometric": "ycbcr", "compression": "lzw", "tile": (16, 16)}, 2),
    (np.moveaxis(ycbcr(), -1, 0), {"photometric": "ycbcr", **PLANES}, 2),
    (np.moveaxis(ycbcr(), -1, 0), {"photometric": "ycbcr", "compression": "jpeg", **PLANES}, 3),
    (stripes(), {"photometric": "rgb", "compression": "jpeg"}, 3),  # stored as YCbCr, chroma halved
    (stripes(), {"photometric": "rgb", "compression": "jpeg", "tile": (16, 16)}, 3),
    (stripes(), {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"outcolorspace": "rgb"}}, 3),
    (np.moveaxis(stripes(), -1, 0), {"photometric": "rgb", "compression": "jpeg", **PLANES}, 3),
    (np.moveaxis(stripes(), -1, 0), {"photometric": "rgb", **PLANES}, 0),
    (stripes(), {"photometric": "rgb", "byteorder": ">", "predictor": True, "compression": "zlib"}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("array", "options", "tolerance"), TIFFS)
def test_colours_of_a_tiff_file(tmp_path: Path, array: np.ndarray, options: dict[str, Any], tolerance: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, **options)
    assert difference(read(tmp_path / "a.tif"), stripes()) <= tolerance


def test_ycbcr_as_pillow_writes_it(tmp_path: Path) -> None:
    for number, compression in enumerate((None, "jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits")):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(stripes()).convert("YCbCr").save(path, compression=compression)
        assert difference(read(path), stripes()) <= 3


def tag(code: int, *values: int) -> tuple[int, int, int, tuple[int, ...], bool]:
    return (code, 5, len(values), tuple(n for value in values for n in (value, 1000)), True)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (ycbcr().astype(np.uint16) * 257, {"photometric": "ycbcr"}),
        (ycbcr(), {"photometric": "ycbcr", "extratags": [tag(529, 213, 715, 72)]}),  # ITU-R BT.709
        (np.concatenate([ycbcr(), ycbcr()[..., :1]], -1), {"photometric": "ycbcr"}),
    ],
)  # fmt: skip
def test_ycbcr_in_other_forms_is_refused(tmp_path: Path, array: np.ndarray, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, **options)
    with pytest.raises(DataError, match=r"a\.tif: .*YCbCr"):
        read_picture(tmp_path / "a.tif", "tiff")


def test_chroma_that_is_halved_without_jpeg_is_refused(tmp_path: Path) -> None:
    """Four samples of luma and two of chroma for each block of 2x2 pixels."""
    content = bytes(16 * 96 // 4 * 6)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(ycbcr(), photometric="ycbcr", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        where = file.pages[0].tags[530].valueoffset
    data[where : where + 4] = b"\2\0\2\0"
    (tmp_path / "a.tif").write_bytes(data[: len(data) - 16 * 96 * 3] + content)
    with pytest.raises(DataError, match=r"a\.tif: "):
        read_picture(tmp_path / "a.tif", "tiff")


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.tif"), ("LAB", "a.tif"), ("CMYK", "a.jpg"), ("white", "a.tif")])
def test_other_colour_spaces_are_refused_with_a_command_that_converts_them(
    tmp_path: Path, mode: str, name: str
) -> None:
    path, kind = tmp_path / name, "tiff" if name.endswith("tif") else "jpeg"
    expected = np.asarray(Image.fromarray(stripes()).convert("L" if mode == "white" else "RGB"))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        lab = ImageCms.profileToProfile(Image.fromarray(stripes()), *profiles, outputMode="LAB")
        assert lab is not None
        lab.save(path)
    elif mode == "white":
        tifffile.imwrite(path, 255 - expected, photometric="miniswhite")
    else:
        Image.fromarray(stripes()).convert(mode).save(path, **({"quality": 100} if kind == "jpeg" else {}))
    with pytest.raises(DataError, match=r"a\.(tif|jpg): .*(SEPARATED|CIELAB|CMYK|MINISWHITE)") as caught:
        read_picture(path, kind)
    type_command(str(caught.value))
    assert difference(read(path, kind), expected[..., None] if mode == "white" else expected) <= 12


def test_what_pillow_would_spoil_is_refused_without_a_command(tmp_path: Path) -> None:
    for number, (array, photometric) in enumerate(
        [(stripes(), "icclab"), (stripes()[..., 0].astype(np.uint16) * 257, "miniswhite")]
    ):
        tifffile.imwrite(tmp_path / f"{number}.tif", array, photometric=photometric)
        with pytest.raises(DataError, match=rf"{number}\.tif: .*{photometric.upper()}") as caught:
            read_picture(tmp_path / f"{number}.tif", "tiff")
        assert "python" not in str(caught.value)


# ---------------------------------------------------------------- transparency


def keyed(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """A picture one of whose colours, black, counts as transparent."""
    rgb = Image.fromarray(stripes())
    if mode == "P":
        return rgb.quantize(8), {"transparency": bytes([0, *[255] * 7])}
    if mode == "I;16":
        return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 200), {"transparency": 0}
    return rgb.convert(mode), {"transparency": (0, 0, 0) if mode == "RGB" else 0}


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16"])
def test_transparent_colours_of_an_image_are_refused_with_a_command_that_removes_them(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "a.png"
    image, options = keyed(mode)
    image.save(path, **options)
    with pytest.raises(DataError, match=r"a\.png: .*transparent") as caught:
        read_picture(path, "png")
    type_command(str(caught.value))
    found = read(path, "png")
    if mode == "P":
        seen = np.asarray(image.convert("RGB"))
        opaque = np.asarray(image) != 0
        np.testing.assert_array_equal(found[opaque], seen[opaque])
    else:
        np.testing.assert_array_equal(found, np.asarray(image).reshape(found.shape))


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_transparent_colour_that_no_pixel_has_is_no_matter(tmp_path: Path, mode: str) -> None:
    image, _ = keyed(mode)
    image.save(tmp_path / "a.png", transparency=(1, 2, 3) if mode == "RGB" else 7)
    found = read(tmp_path / "a.png", "png")
    np.testing.assert_array_equal(found, np.asarray(image).reshape(found.shape))


def test_labels_keep_the_values_they_store(tmp_path: Path) -> None:
    for mode in ("L", "I;16", "P"):
        image, options = keyed(mode)
        image.save(tmp_path / "a.png", **options)
        np.testing.assert_array_equal(read(tmp_path / "a.png", "png", label=True)[..., 0], np.asarray(image))


def test_alpha_over_something_is_flattened_by_the_command_that_is_named(tmp_path: Path) -> None:
    pixels = np.concatenate([stripes(), np.full((16, 96, 1), 255, np.uint8)], -1)
    pixels[4:, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "it's (1).png")
    for label in (False, True):
        with pytest.raises(DataError, match="lowest value 0") as caught:
            read_picture(tmp_path / "it's (1).png", "png", label)
    type_command(str(caught.value))
    expected = stripes()
    expected[4:] = 0
    np.testing.assert_array_equal(read(tmp_path / "it's (1).png", "png"), expected)

"""Pictures (PNG, BMP, TIFF, JPEG) to and from arrays. Machinery of `jdm.data.raw_dataset`.

A picture that cannot be read exactly is refused; it is never silently resized, reduced to 8 bits or flattened.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdm.data import advice
from jdm.data.raster import MAX_PIXELS, Raster, can_hold, check_size, damaged, ending_of, finite, one_line
from jdm.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_JPEG = (7, 33007, 34892)
"""TIFF's codes of JPEG compression, whose decoders turn YCbCr into RGB."""
_APERIO = (33003,)
"""JPEG 2000 in YCbCr, whatever colour space the file names."""
_YCBCR_DEFAULTS = {529: np.array([0.299, 0.587, 0.114]), 532: np.array([0, 255, 128, 255, 128, 255])}
"""Tags YCbCrCoefficients and ReferenceBlackWhite."""


def read_picture(path: Path, kind: str, label: bool = False) -> Raster:
    """Read a two-dimensional picture of a known kind (png, jpeg, bmp, tiff), whatever its ending.

    Raises: DataError as `read_raster`.
    """
    with _readable(path):
        raster = _read_tiff(path, label) if kind == "tiff" else _read_pillow(path, kind, label)
    return finite(path, raster)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn any exception that a decoder raises on a damaged file into a DataError."""
    from PIL.Image import DecompressionBombError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about tags that are not used here
            yield
    except DecompressionBombError as error:
        raise DataError(f"{path}: {one_line(error)}; expected at most {MAX_PIXELS} pixels; tile it") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error, RuntimeError,
            TypeError, AttributeError, ArithmeticError, AssertionError) as error:  # fmt: skip
        raise damaged(path, error) from None


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a library's log messages; serious problems are raised as errors."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def peek_picture(path: Path, kind: str) -> tuple[int, np.dtype]:
    """Channels (1 or 3, alpha not counted) and pixel type of a picture, from its header.

    Raises: DataError if the header cannot be read.
    """
    with _readable(path):
        if kind == "tiff":
            import tifffile

            with quiet("tifffile"), tifffile.TiffFile(path) as file:
                page: Any = file.pages[0]
                channels = 3 if page.photometric in (2, 3, 6) or page.samplesperpixel >= 3 else 1
                return channels, np.dtype(np.uint8) if page.dtype.kind == "b" else np.dtype(page.dtype)
        with _open_pillow(path, kind) as picture:
            channels = 1 if picture.mode in ("1", "L", "LA", "La", "F") or picture.mode[0] == "I" else 3
            deep = {"F": np.float32}.get(picture.mode, np.uint16 if picture.mode[0] == "I" else np.uint8)
            return channels, np.dtype(deep)


@contextlib.contextmanager
def _open_pillow(path: Path, kind: str) -> Iterator[Image]:
    from PIL import Image

    with path.open("rb") as file, warnings.catch_warnings():
        # our own limit, checked before pixels are decoded, replaces Pillow's warning
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file, formats=[kind.upper()]) as picture:
            check_size(path, picture.width * picture.height, MAX_PIXELS)
            yield picture


def _read_pillow(path: Path, kind: str, label: bool) -> Raster:
    if kind == "png":
        _refuse_deep_colour_png(path)
        with _open_pillow(path, kind) as picture:
            picture.verify()  # damage to uncompressed pixels shows only in the checksum
    with _open_pillow(path, kind) as picture:
        if getattr(picture, "n_frames", 1) != 1:
            raise DataError(f"{path}: holds several frames; expected one picture; save one frame as its own file")
        orientation = int(picture.getexif().get(0x0112, 1))
        array, dropped = _pixels(path, picture, label)
        palette = tuple(picture.getpalette("RGB") or ()) if picture.mode == "P" else ()
    return Raster(array, (1.0, 1.0), None, orientation, dropped, palette)


def _refuse_deep_colour_png(path: Path) -> None:
    """Refuse 16-bit colour PNG files, which Pillow, and so nnU-Net, silently reduces to 8 bits."""
    with path.open("rb") as file:
        header = file.read(26)
    if len(header) == 26 and header[24] == 16 and header[25] != 0:
        raise DataError(
            f"{path}: is a 16-bit colour PNG, which nnU-Net reduces to 8 bits; expected 8 bits or grey; save it as "
            "16-bit .tif, or each channel as its own grey file _0000 .. _0002"
        )


def _pixels(path: Path, picture: Image, label: bool) -> tuple[np.ndarray, bool]:
    """(channels, y, x) of a Pillow image, and whether a transparency that hides nothing was dropped."""
    mode, keyed = picture.mode, "transparency" in picture.info
    if keyed and not label and _shows_through(picture):
        cure = advice.flatten(path) if mode == "P" else advice.drop_transparency(path)
        raise DataError(f"{path}: some of its pixels are transparent; expected none; type: {cure}")
    if mode == "P" and label:
        return np.asarray(picture)[None].copy(), False
    if mode in ("P", "PA", "La"):
        picture = picture.convert("RGB" if mode == "P" else "RGBA")
    mode = picture.mode
    if mode == "1":
        return np.asarray(picture).astype(np.uint8)[None], keyed
    if mode not in ("L", "RGB", "LA", "RGBA", "I;16", "I;16B", "I", "F"):
        raise DataError(f"{path}: has colour mode {mode}; expected grey, RGB or opaque RGBA; {_to_rgb(path)}")
    array = np.asarray(picture)
    if mode == "I":  # Pillow's container for 16-bit PNG in some versions
        array = array.astype(np.uint16) if array.min() >= 0 and array.max() < 2**16 else array
    if array.ndim == 2:
        return _native(array)[None], keyed
    array, dropped = _without_alpha(path, np.moveaxis(array, -1, 0), label)
    return array, dropped or keyed


def _shows_through(picture: Image) -> bool:
    """Whether any pixel has the colour that the file declares transparent."""
    if picture.mode == "P":
        return bool((np.asarray(picture.convert("RGBA"))[..., 3] < 255).any())
    same = np.asarray(picture) == np.asarray(picture.info["transparency"])
    return bool((same if same.ndim == 2 else same.all(axis=-1)).any())


def _without_alpha(path: Path, array: np.ndarray, label: bool) -> tuple[np.ndarray, bool]:
    """Drop the last of 2 or 4 channels if it hides nothing.

    Raises: DataError if it does, or if the number of channels is not 1 to 4.
    """
    if array.shape[0] in (2, 4):
        opaque = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        colours, alpha = array[:-1], array[-1]
        over_background = label and np.isin(alpha, (0, opaque)).all() and not colours[:, alpha == 0].any()
        if not over_background and not (alpha == opaque).all():
            cure = f"type: {advice.flatten(path)}" if array.dtype == np.uint8 else "flatten it onto its background"
            raise DataError(
                f"{path}: has a transparent alpha channel (lowest value {alpha.min()}, opaque is {opaque}); "
                f"expected none or an opaque one; {cure}"
            )
        return _native(colours), True
    if array.shape[0] not in (1, 3):
        raise DataError(f"{path}: has {array.shape[0]} channels; expected 1 or 3; save each as its own file _000N")
    return _native(array), False


def _to_rgb(path: Path) -> str:
    """Advice for a picture in another colour space: a command, if Pillow can convert it."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            deep = picture.mode[0] in "IF"  # Pillow would reduce these to 8 bits
            picture.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        deep = True
    return "save it as RGB or grey with an image editor" if deep else f"type: {advice.save_as_rgb(path)}"


def _native(array: np.ndarray) -> np.ndarray:
    """The array contiguous, in native byte order, owning its memory."""
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _read_tiff(path: Path, label: bool) -> Raster:
    import tifffile

    with quiet("tifffile"), tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise DataError(f"{path}: has {len(file.pages)} pages; expected one picture; save volumes as .nii.gz")
        page: Any = file.pages[0]
        check_size(path, int(page.imagewidth) * int(page.imagelength) * int(page.imagedepth), MAX_PIXELS)
        tile = int(page.tilewidth) * int(page.tilelength) * int(page.tiledepth) if page.is_tiled else 0
        check_size(path, tile, MAX_PIXELS // 8)  # tiles are decoded whole, even for a small picture
        if page.samplesperpixel > 4:
            raise DataError(f"{path}: has {page.samplesperpixel} channels; expected 1 or 3; save each as a file _000N")
        colours = tifffile.PHOTOMETRIC(page.photometric).name
        if colours not in ("MINISBLACK", "RGB", "PALETTE", "YCBCR") or page.imagedepth != 1:
            raise DataError(f"{path}: has colour space {colours}; expected grey, RGB or palette; {_to_rgb(path)}")
        if colours == "YCBCR" or page.compression in _APERIO:
            _check_ycbcr(path, page)
        # Strips beyond the end of the file would be read as zeros.
        if any(o + n > path.stat().st_size for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise DataError(f"{path}: the file ends before its pixels do (truncated); replace it or remove its case")
        array = page.asarray()
        tag = page.tags.get(274)
        orientation = int(tag.value) if tag is not None else 1
        colormap = None if page.colormap is None else (np.asarray(page.colormap) >> 8).astype(np.uint8)
        first = page.axes.startswith("S")
        stored_as_ycbcr = colours == "YCBCR" and (first or page.compression not in _JPEG)
    if array.dtype.kind == "c":
        raise DataError(f"{path}: holds {array.dtype}; expected integer or real numbers; convert it")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    palette = () if colours != "PALETTE" or colormap is None else tuple(colormap.T.ravel().tolist())
    if palette and colormap is not None and not label:
        array, first = np.moveaxis(colormap[:, array], 0, -1), False
    if array.ndim == 2:
        return Raster(_native(array)[None], (1.0, 1.0), None, orientation, False, palette)
    if array.ndim != 3:
        raise DataError(f"{path}: holds an array {array.shape} of {array.dtype}; expected one grey or RGB picture")
    array = array if first else np.moveaxis(array, -1, 0)
    array, dropped = (_rgb(array), False) if stored_as_ycbcr else _without_alpha(path, array, label)
    return Raster(array, (1.0, 1.0), None, orientation, dropped, palette)


def _check_ycbcr(path: Path, page: Any) -> None:
    """Refuse a TIFF file in YCbCr whose colours are ambiguous.

    JPEG decoders convert YCbCr to RGB. With other compressions it must be 8-bit, without subsampling, and have the
    default coefficients and range of TIFF 6.0 (section 21), which are those of JPEG.
    """
    usual = True
    for code, default in _YCBCR_DEFAULTS.items():
        if code in page.tags:
            ratios = np.reshape(page.tags[code].value, (-1, 2)).astype(np.float64)
            usual &= np.allclose(ratios[:, 0], default * ratios[:, 1], rtol=0.01)
    decoded = page.compression in _JPEG and page.planarconfig == 1
    plain = page.dtype == np.uint8 and page.samplesperpixel == 3 and not page.is_subsampled and usual
    if page.compression in _APERIO or not (decoded or plain):
        raise DataError(
            f"{path}: holds YCbCr colours in a form that is not supported ({page.dtype}, compression "
            f"{int(page.compression)}, subsampling {page.subsampling}); expected RGB; {_to_rgb(path)}"
        )


def _rgb(array: np.ndarray) -> np.ndarray:
    """Convert a uint8 array from JPEG's YCbCr to RGB (3, y, x)."""
    from PIL import Image

    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in array]
    return _native(np.moveaxis(np.asarray(Image.merge("YCbCr", bands).convert("RGB")), -1, 0))


def write_picture(temporary: Path, array: np.ndarray, path: Path) -> None:
    ending = ending_of(path)
    if array.ndim != 3 or not can_hold(ending, array.shape[0], array.dtype):
        raise DataError(
            f"{path}: {ending} cannot hold {array.shape} of {array.dtype}; expected (1 or 3, y, x) of "
            f"uint8{' or grey uint16' if ending == '.png' else ''}; use .tif"
        )
    pixels = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    pixels = np.ascontiguousarray(pixels)
    if ending == ".tif":
        import tifffile

        colours = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(temporary, pixels, photometric=colours, compression="zlib", metadata=None, software=False)
        return
    from PIL import Image

    if ending == ".png":
        Image.fromarray(pixels).save(temporary, compress_level=6)
        return
    content = io.BytesIO()  # when Pillow itself writes BMP, it does not notice a full disk
    Image.fromarray(pixels).save(content, format="BMP")
    temporary.write_bytes(content.getbuffer())

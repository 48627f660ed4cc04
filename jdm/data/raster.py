"""The array of one image file, and the checks that every file must pass before its pixels are used.

Arrays are channel first, (channels, *spatial), with spatial axes in array order: (y, x), or (z, y, x) for volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdm.errors import DataError

NATURAL_ENDINGS = (".png", ".bmp", ".tif")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
FILE_ENDINGS = NATURAL_ENDINGS + VOLUME_ENDINGS
KIND_OF_ENDING = {
    ".png": "png",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
}

MAX_PIXELS = 2**27
"""Largest picture opened, by its header; a larger one is treated as a decompression bomb."""
MAX_VOXELS = 2**31
"""Largest volume opened, by its header."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"BM", "bmp"), (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"), (b"\x1f\x8b", "gzip"), (b"NRRD", "nrrd"),
    (b"ObjectType", "mha"), (b"GIF8", "gif"), (b"RIFF", "webp"), (b"%PDF", "pdf"), (b"PK\x03\x04", "zip"),
)  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """Position and orientation of a volume as in SimpleITK: millimetres towards left, posterior, superior."""

    origin: tuple[float, ...]
    """Position of the first voxel: x, y, z."""
    direction: tuple[float, ...]
    """3 x 3, row by row; each column is the unit vector along an axis x, y, z. Not orthogonal if sheared."""
    stored: str = ""
    """Axes of the file if they differ from the array's: a code such as "LPS" if the reader reoriented them to RAS, "xy"
    for a file of two axes."""


@dataclass(frozen=True)
class Raster:
    """Content of one file."""

    array: np.ndarray
    """(channels, *spatial), stored dtype."""
    spacing: tuple[float, ...]
    """Per spatial axis, array order; ones for pictures."""
    geometry: Geometry | None = None
    """None for pictures."""
    orientation: int = 1
    """EXIF / TIFF orientation tag, not applied; 1 is upright."""
    dropped_alpha: bool = False
    """Whether a transparency that hides nothing was dropped: fully opaque or, in a label, over background only."""
    palette: tuple[int, ...] = ()
    """Red, green, blue of index 0, of index 1, ... if the file stores palette indices; else empty."""


def sniff(path: Path) -> str:
    """Kind of file by its first bytes: png, jpeg, bmp, tiff, gzip, nrrd, mha, nifti, ... or "unknown".

    Raises: DataError if the file is missing, not a file, or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an image; restore it or remove its case")
    with path.open("rb") as file:
        start = file.read(352)
    if not start:
        raise DataError(f"{path}: the file is empty (0 bytes); expected an image; restore it or remove its case")
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "tar"
    # NIfTI-1 has its magic bytes at the end of the header, NIfTI-2 after the header's length
    nifti = start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0")
    return "nifti" if nifti else "unknown"


def can_hold(ending: str, channels: int, dtype: np.dtype) -> bool:
    """Whether one file of this ending holds this many channels of this type."""
    if ending in VOLUME_ENDINGS:
        return channels == 1 and (dtype.kind in "iu" or dtype in (np.float32, np.float64))
    if channels not in (1, 3):
        return False
    if ending == ".tif":
        return dtype.kind in "iuf"
    return dtype == np.uint8 or (ending == ".png" and channels == 1 and dtype == np.uint16)


def ending_of(path: Path) -> str:
    """The file ending as nnU-Net defines it: lower case, `.nii.gz` as a whole."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.rsplit("ERROR: ", 1)[-1][:300] or type(error).__name__


def damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read ({one_line(error)}); the file is truncated, damaged or of an unknown kind; "
        "replace it or remove its case"
    )


def finite(path: Path, raster: Raster) -> Raster:
    if raster.array.dtype.kind == "f" and not np.isfinite(raster.array).all():
        count = int((~np.isfinite(raster.array)).sum())
        raise DataError(
            f"{path}: {count} pixels are NaN or infinite; expected finite numbers; replace them by a meaningful value"
        )
    return raster


def check_size(path: Path, pixels: int, limit: int) -> None:
    if pixels > limit:
        raise DataError(f"{path}: the header announces {pixels} pixels; expected at most {limit}; cut it into tiles")

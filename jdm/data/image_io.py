"""Single image files to and from arrays, whatever their format. Machinery of `jdm.data.raw_dataset`."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.picture_io import read_picture, write_picture
from jdm.data.raster import (
    FILE_ENDINGS,
    KIND_OF_ENDING,
    MAX_VOXELS,
    VOLUME_ENDINGS,
    Geometry,
    Raster,
    can_hold,
    check_size,
    damaged,
    ending_of,
    finite,
    sniff,
)
from jdm.errors import DataError


def read_raster(path: Path, label: bool = False) -> Raster:
    """Read a file whose content must agree with its ending.

    Args:
        label: a palette image gives its indices instead of its colours.
    Raises: DataError naming the file if it is missing, empty, truncated, mislabelled, too large or of a kind
        that would lose information.
    """
    ending = ending_of(path)
    if ending in VOLUME_ENDINGS:
        _check_volume_file(path, ending)
        return _read_volume(path)
    expected = KIND_OF_ENDING.get(ending)
    found = sniff(path)
    if expected is None or found != expected:
        raise DataError(
            f"{path}: the content is of kind {found}; expected {expected or 'one of ' + ' '.join(FILE_ENDINGS)} as "
            "its ending says; save it anew in the right format"
        )
    return read_picture(path, found, label)


def _check_volume_file(path: Path, ending: str) -> None:
    """Refuse what ITK accepts: content of another kind, headers that name another file, damaged NIfTI files."""
    found = sniff(path)
    expected = {".nii.gz": "gzip", ".nii": "nifti", ".mha": "mha", ".nrrd": "nrrd"}[ending]
    if found not in (expected, "unknown" if expected == "mha" else expected):
        raise DataError(
            f"{path}: the content is of kind {found}; expected {expected} as its ending {ending} says; save it "
            "anew in the right format"
        )
    if expected in ("mha", "nrrd"):
        with path.open("rb") as file:
            header = file.read(2**16)
        detached = re.search(rb"^(?:ElementDataFile[ \t]*=(?!\s*LOCAL\s)|data ?file:)[^\r\n]*", header, re.I | re.M)
        if detached:
            raise DataError(
                f"{path}: keeps its voxels in another file ({detached[0].decode(errors='replace')}); expected them "
                "inside; save it as one file"
            )
        return
    _check_nifti(path, found)


def _check_nifti(path: Path, kind: str) -> None:
    """Refuse what ITK's NIfTI reader mends without a word: missing voxels and voxels that are no number become 0."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        check_size(path, math.prod(image.shape), MAX_VOXELS)
        stored = image.get_data_dtype()
        expected_bytes = image.dataobj.offset + math.prod(image.shape) * stored.itemsize
        found_bytes = _unzipped_size(path, 2 * expected_bytes) if kind == "gzip" else path.stat().st_size
        whole = found_bytes >= expected_bytes
        if whole and stored.kind == "f":
            finite(path, Raster(np.asarray(image.dataobj.get_unscaled()), ()))
    except (OSError, EOFError, ValueError, zlib.error, HeaderDataError, ImageFileError) as error:
        raise damaged(path, error) from None
    if not whole:
        raise DataError(
            f"{path}: holds {found_bytes} bytes, its header announces {expected_bytes}; the file is truncated; "
            "replace it or remove its case"
        )


def _unzipped_size(path: Path, enough: int) -> int:
    """Bytes of a gzip file's content, its checksum verified; counts no further than `enough`.

    Raises: EOFError, OSError, zlib.error if it is damaged.
    """
    size = 0
    with gzip.open(path) as file:
        while chunk := file.read(2**20):
            size += len(chunk)
            if size > enough + 2**24:
                break
    return size


def _read_volume(path: Path) -> Raster:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        dims, components = reader.GetDimension(), reader.GetNumberOfComponents()
        check_size(path, int(np.prod(reader.GetSize(), dtype=np.int64)), MAX_VOXELS)
        if components != 1 or dims not in (2, 3, 4):
            raise DataError(
                f"{path}: has {dims} axes and {components} values per voxel; expected 2 to 4 axes and one value; "
                "save each channel as its own file _000N"
            )
        image = reader.Execute()
    except RuntimeError as error:
        raise damaged(path, error) from None
    array = SimpleITK.GetArrayFromImage(image)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {array.dtype}; expected integer or floating-point voxels; convert it")
    spatial = min(dims, 3)
    direction = np.reshape(image.GetDirection(), (dims, dims))[:spatial, :spatial]
    return finite(
        path,
        Raster(
            array if dims == 4 else array[None],
            tuple(float(s) for s in reversed(image.GetSpacing()[:spatial])),
            Geometry(
                tuple(float(o) for o in image.GetOrigin()[:spatial]),
                tuple(float(d) for d in direction.ravel()),
            ),
        ),
    )


def write_raster(path: Path, raster: Raster) -> None:
    """Write one file, byte for byte the same for the same input, complete or not at all.

    Pictures hold one or three channels, volumes one. A temporary file in the same folder is renamed at the
    end.
    Raises: DataError if the format cannot hold the values.
    """
    ending = ending_of(path)
    temporary = path.with_name(f".{path.name[: -len(ending)]}.partial-{os.getpid()}{ending}")
    try:
        if ending in VOLUME_ENDINGS:
            _write_volume(temporary, raster, path)
        else:
            write_picture(temporary, raster.array, path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_volume(temporary: Path, raster: Raster, path: Path) -> None:
    import SimpleITK

    array = raster.array
    if array.shape[0] != 1 or not can_hold(ending_of(path), 1, array.dtype):
        raise DataError(f"{path}: cannot hold {array.shape} of {array.dtype}; expected one channel of numbers")
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[0]))
    image.SetSpacing([float(s) for s in reversed(raster.spacing)])
    if raster.geometry is not None:
        image.SetOrigin(raster.geometry.origin)
        image.SetDirection(raster.geometry.direction)
    # ITK stamps neither time nor name into its compressed files (tested), so equal input gives equal bytes
    SimpleITK.WriteImage(image, str(temporary), True)

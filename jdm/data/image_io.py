"""Single image files to and from arrays, whatever their format. Machinery of `jdm.data.raw_dataset`."""

from __future__ import annotations

import errno
import gzip
import io
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data import advice
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
    one_line,
    sniff,
)
from jdm.errors import DataError
from jdm.system.files import replaced

_MOST_BEFORE_VOXELS = 2**24  # bytes of header and extensions in a NIfTI file
_NIFTI_HEADER = 352  # bytes before the voxels in ITK's files


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
        return _read_volume(path, label)
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
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        header = _nifti_header(path, kind)
        shape, stored = header.get_data_shape(), header.get_data_dtype()
        check_size(path, math.prod(shape), MAX_VOXELS)
        if not shape or header.get_data_offset() > _MOST_BEFORE_VOXELS:
            raise ValueError(f"its voxels, {shape}, begin at byte {header.get_data_offset()}")
        expected_bytes = header.get_data_offset() + math.prod(shape) * stored.itemsize
        found_bytes = _unzipped_size(path, 2 * expected_bytes) if kind == "gzip" else path.stat().st_size
        whole = found_bytes >= expected_bytes
        if whole and stored.kind == "f":
            finite(path, Raster(np.asarray(ArrayProxy(path, header).get_unscaled()), ()))
    except (OSError, EOFError, ValueError, ArithmeticError, zlib.error, HeaderDataError, WrapStructError) as error:
        raise damaged(path, error) from None
    if not whole:
        raise DataError(
            f"{path}: holds {found_bytes} bytes, its header announces {expected_bytes}; the file is truncated; "
            "replace it or remove its case"
        )


def _nifti_header(path: Path, kind: str) -> Any:
    """The header alone: extensions behind it are as long as they say, and nibabel reads them whole."""
    import nibabel

    with gzip.open(path) if kind == "gzip" else path.open("rb") as file:
        start = file.read(544)
    second = nibabel.Nifti2Header.may_contain_header(start)
    length = 540 if second else 348
    content = io.BytesIO(start[:length] + bytes(4))
    return (nibabel.Nifti2Header if second else nibabel.Nifti1Header).from_fileobj(content)


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


def _read_volume(path: Path, label: bool) -> Raster:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        dims, components = reader.GetDimension(), reader.GetNumberOfComponents()
        check_size(path, int(np.prod(reader.GetSize(), dtype=np.int64)), MAX_VOXELS)
        if dims not in (2, 3, 4):
            raise DataError(f"{path}: has {dims} axes; expected 2 to 4; save each image as its own file")
        if components != 1:
            cure = advice.merge_layers(path) if label else advice.split_channels(path)
            raise DataError(f"{path}: has {components} values per voxel; expected one; type: {cure}")
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
    Raises: DataError if the format cannot hold the values; OSError if the disk does not take all of it.
    """
    with replaced(path, sync=False) as temporary:
        if ending_of(path) in VOLUME_ENDINGS:
            _write_volume(temporary, raster, path)
        else:
            write_picture(temporary, raster.array, path)


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
    try:
        SimpleITK.WriteImage(image, str(temporary), True)
    except RuntimeError as error:
        raise OSError(errno.EIO, one_line(error), str(path)) from None
    before = {".nii": _NIFTI_HEADER, ".nii.gz": _NIFTI_HEADER, ".nrrd": 0}.get(ending_of(path))
    if before is not None and _content_size(temporary) != before + array.nbytes:
        raise OSError(errno.EIO, "the disk took only a part of it", str(path))  # ITK does not tell


def _content_size(path: Path) -> int:
    """Bytes of a file's content, of one that ends in a gzip stream as its last four bytes say."""
    if path.suffix == ".nii":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        return int.from_bytes(file.read(), "little")

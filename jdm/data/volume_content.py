"""Checks that a volume's file is complete and of the kind that its name says. Used by `jdm.data.volume_io`."""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.raster import MAX_VOXELS, Raster, check_size, damaged, finite, sniff
from jdm.errors import DataError

_MOST_BEFORE_VOXELS = 2**24  # bytes of header and extensions in a NIfTI file


def check_content(path: Path, ending: str) -> None:
    """Refuse what ITK accepts: content of another kind, headers that name another file, damaged NIfTI files."""
    found = sniff(path)
    expected = {".nii.gz": "gzip", ".nii": "nifti", ".mha": "mha", ".nrrd": "nrrd"}[ending]
    if found not in (expected, "unknown" if expected == "mha" else expected):
        bare = path.name.removesuffix(".gz")
        cure = (
            f"type: mv '{path}' '{path.with_name(bare)}' && gzip '{path.with_name(bare)}'"
            if (found, expected) == ("nifti", "gzip")
            else "save it again in the right format"
        )
        raise DataError(
            f"{path}: the content is of kind {found}; expected {expected}, as for the ending {ending}; {cure}"
        )
    if expected in ("mha", "nrrd"):
        with path.open("rb") as file:
            header = file.read(2**16)
        detached = re.search(rb"^(?:ElementDataFile[ \t]*=(?!\s*LOCAL\s)|data ?file:)[^\r\n]*", header, re.I | re.M)
        if detached:
            raise DataError(
                f"{path}: its voxels are in another file ({detached[0].decode(errors='replace')}); expected one file; "
                "save it as one file"
            )
        return
    _check_nifti(path, found)


def _check_nifti(path: Path, kind: str) -> None:
    """Refuse faults that ITK's NIfTI reader silently replaces by 0: missing voxels and NaN voxels."""
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        header = nifti_header(path, kind)
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


def nifti_header(path: Path, kind: str) -> Any:
    """The header, without the extensions that follow it."""
    import nibabel

    with gzip.open(path) if kind == "gzip" else path.open("rb") as file:
        start = file.read(544)
    second = nibabel.Nifti2Header.may_contain_header(start)
    length = 540 if second else 348
    content = io.BytesIO(start[:length] + bytes(4))
    return (nibabel.Nifti2Header if second else nibabel.Nifti1Header).from_fileobj(content)


def _unzipped_size(path: Path, enough: int) -> int:
    """Size in bytes of a gzip file's content, with its checksum verified; stops counting at `enough`.

    Raises: EOFError, OSError, zlib.error if it is damaged.
    """
    size = 0
    with gzip.open(path) as file:
        while chunk := file.read(2**20):
            size += len(chunk)
            if size > enough + 2**24:
                break
    return size

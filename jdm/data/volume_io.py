"""Volumes to and from arrays, as in nnU-Net's readers. Used by `jdm.data.image_io`.

Every reader gives arrays (channels, z, y, x), axes in SimpleITK's order. Source: nnunetv2 2.8.1, imageio/.
"""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data import advice
from jdm.data.picture_io import quiet
from jdm.data.raster import (
    MAX_VOXELS,
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
from jdm.data.readers import TIFF_ENDINGS, automatic_reader
from jdm.data.volume_content import check_content, nifti_header
from jdm.errors import DataError
from jdm.system.files import write_json

_LPS = np.diag([-1.0, -1.0, 1.0])
"""Converts between SimpleITK's coordinates and nibabel's, which point right, anterior, superior."""
_NIFTI_HEADER = 352  # bytes before the voxels in ITK's files
_TIFF_ERRORS = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error,
    zlib.error, AssertionError, EOFError,
)  # fmt: skip
"""Exceptions that tifffile raises on damaged files."""


def read_volume(path: Path, label: bool, reader: str) -> Raster:
    """Read a volume like one of nnU-Net's readers; without a name, the one that nnU-Net would choose.

    Raises: DataError as `jdm.data.image_io.read_raster`.
    """
    ending = ending_of(path)
    reader = reader or automatic_reader(path)
    if reader == "Tiff3DIO":
        return finite(path, _read_tiff(path, label))
    check_content(path, ending)
    if reader.startswith("Nibabel"):
        return finite(path, _read_nibabel(path, reader))
    return finite(path, _read_itk(path, label, reader))


def _read_itk(path: Path, label: bool, reader: str) -> Raster:
    """Like SimpleITKIO and SimpleITKIOWithReorient: a file of two axes is a volume of one slice."""
    import SimpleITK

    turns = reader == "SimpleITKIOWithReorient"
    least, most = (3, 3) if turns else (2, 4)
    file = SimpleITK.ImageFileReader()
    file.SetFileName(str(path))
    try:
        file.ReadImageInformation()
        dims, components = file.GetDimension(), file.GetNumberOfComponents()
        check_size(path, int(np.prod(file.GetSize(), dtype=np.int64)), MAX_VOXELS)
        if not least <= dims <= most:
            raise DataError(f"{path}: has {dims} axes; expected {least} to {most}; save each image as its own file")
        if components != 1:
            cure = advice.merge_layers(path) if label else advice.split_channels(path)
            raise DataError(f"{path}: has {components} values per voxel; expected one; type: {cure}")
        image, stored = file.Execute(), "xy" if dims == 2 else ""
        if turns:
            stored = SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
            image = SimpleITK.DICOMOrient(image, "RAS")
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise DataError(
                f"{path}: has sheared axes, which this dataset's reader {reader} refuses; expected right angles; "
                'add "overwrite_image_reader_writer": "NibabelIO" to dataset.json, or resample the file'
            ) from None
        raise damaged(path, error) from None
    array, spacing = SimpleITK.GetArrayFromImage(image), [float(s) for s in image.GetSpacing()[:3]]
    origin, direction = np.zeros(3), np.eye(3)
    axes = min(dims, 3)
    origin[:axes] = image.GetOrigin()[:axes]
    direction[:axes, :axes] = np.reshape(image.GetDirection(), (dims, dims))[:axes, :axes]
    if dims == 2:
        array, spacing = array[None], [*spacing, 999 * max(spacing)]
    geometry = Geometry(tuple(origin.tolist()), tuple(direction.ravel().tolist()), stored)
    return Raster(_numbers(path, array if dims == 4 else array[None]), tuple(reversed(spacing)), geometry)


def _read_nibabel(path: Path, reader: str) -> Raster:
    """Like NibabelIO and NibabelIOWithReorient: accepts sheared axes, but only files of three axes."""
    import nibabel
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.orientations import aff2axcodes, io_orientation

    try:
        header = nifti_header(path, sniff(path))
        second = isinstance(header, nibabel.Nifti2Header)
        kind: Any = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        # built from the header alone, because nibabel reads extensions whole, of any length that they declare
        image = kind(ArrayProxy(str(path), header), header.get_best_affine(), header)
        if image.ndim != 3:
            raise DataError(
                f"{path}: has {image.ndim} axes; expected 3, the only number that this dataset's reader {reader} "
                'reads; add "overwrite_image_reader_writer": "SimpleITKIO" to dataset.json'
            )
        if np.linalg.matrix_rank(image.affine) < 4:
            raise ValueError(f"its affine {image.affine.tolist()} is singular")
        stored = ""
        if reader == "NibabelIOWithReorient":
            stored = "".join(map(str, aff2axcodes(image.affine)))
            image = image.as_reoriented(io_orientation(image.affine))
        array = np.asanyarray(image.dataobj).transpose()[None]
    except (OSError, EOFError, ValueError, ArithmeticError, zlib.error) as error:
        raise damaged(path, error) from None
    scaled = array.dtype.kind == "f" and image.get_data_dtype().kind != "f"
    spacing = tuple(float(zoom) for zoom in reversed(image.header.get_zooms()))
    axes = _LPS @ image.affine[:3, :3]
    direction = axes / np.linalg.norm(axes, axis=0)
    geometry = Geometry(tuple((_LPS @ image.affine[:3, 3]).tolist()), tuple(direction.ravel().tolist()), stored)
    return Raster(_numbers(path, array.astype(np.float32) if scaled else array), spacing, geometry)


def _read_tiff(path: Path, label: bool) -> Raster:
    """Like Tiff3DIO: the pages are the slices, and the spacing is in a JSON file beside them."""
    import tifffile

    if sniff(path) != "tiff":
        raise DataError(
            f"{path}: the content is of kind {sniff(path)}; expected tiff, as its ending says; save it again"
        )
    try:
        with quiet("tifffile"), tifffile.TiffFile(path) as file:
            check_size(path, int(file.series[0].size), MAX_VOXELS)
            size = path.stat().st_size
            for page in file.pages:
                ends = zip(page.dataoffsets, page.databytecounts, strict=True)  # pyright: ignore
                if any(offset + count > size for offset, count in ends):
                    raise ValueError("the file ends before its pixels do")
            array = file.asarray()
    except _TIFF_ERRORS as error:
        raise damaged(path, error) from None
    if array.ndim != 3:
        raise DataError(
            f"{path}: has {array.ndim} axes, {array.shape}; expected 3, slices of one value per voxel, as Tiff3DIO "
            "reads them; save each channel as its own file _000N"
        )
    stem = path.name.removesuffix(path.suffix)
    return Raster(_numbers(path, array[None]), _tiff_spacing(path.with_name(f"{stem if label else stem[:-5]}.json")))


def _tiff_spacing(path: Path) -> tuple[float, ...]:
    """The spacing (z, y, x) in the JSON file beside a TIFF volume; ones if there is no such file."""
    if not path.is_file():
        return (1.0, 1.0, 1.0)
    try:
        spacing = tuple(float(s) for s in json.loads(path.read_text(encoding="utf-8"))["spacing"])
        if len(spacing) != 3 or not all(0 < s < math.inf for s in spacing):
            raise ValueError(f"spacing is {spacing}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f'{path}: cannot be used ({one_line(error)}); expected {{"spacing": [z, y, x]}}; correct or remove it'
        ) from None
    return spacing


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    """The array in native byte order. Raises: DataError unless it holds numbers."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {array.dtype}; expected integer or floating-point voxels; convert it")
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def write_volume(temporary: Path, raster: Raster, path: Path, spacing_file: Path) -> None:
    """Write one channel in the format of `path`, so that its reader returns the same array.

    Args: spacing_file: JSON file for the spacing of a TIFF volume.
    """
    raster, ending = _as_stored(raster), ending_of(path)
    array = raster.array
    fits = array.dtype.kind in "iuf" if ending in TIFF_ENDINGS else can_hold(ending, 1, array.dtype)
    if array.ndim != 4 or array.shape[0] != 1 or not fits:
        raise DataError(f"{path}: cannot hold {array.shape} of {array.dtype}; expected one channel of numbers")
    if ending in TIFF_ENDINGS:
        import tifffile

        # with the shape in the file, because a single slice would be read as a picture
        tifffile.imwrite(temporary, array[0], photometric="minisblack", compression="zlib", metadata={}, software=False)
        write_json(spacing_file, {"spacing": list(raster.spacing)})
    elif ending in (".nii.gz", ".nii") and _sheared(raster.geometry):
        _write_nibabel(temporary, raster, ending)
    else:
        _write_itk(temporary, raster, path)


def _as_stored(raster: Raster) -> Raster:
    """A raster with its file's axes, undoing the reader's reorientation."""
    from nibabel.orientations import axcodes2ornt, ornt_transform

    if raster.geometry is None or raster.geometry.stored in ("", "xy"):
        return raster
    moves = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(raster.geometry.stored)).astype(int)
    source = [int(np.flatnonzero(moves[:, 0] == axis)[0]) for axis in (2, 1, 0)]  # z, y, x of the file, as x, y, z
    return turned(raster, [2 - axis for axis in source], [moves[axis, 1] < 0 for axis in source])


def turned(raster: Raster, axes: list[int], flips: list[bool]) -> Raster:
    """A volume with its axes (z, y, x) permuted, then flipped as in `flips`; its position in space is unchanged.

    Args: axes: the old axis for each new axis.
    """
    array = raster.array.transpose(0, *[1 + axis for axis in axes])
    array = np.flip(array, [1 + k for k in range(3) if flips[k]])
    spacing, geometry = tuple(raster.spacing[axis] for axis in axes), raster.geometry
    if geometry is not None:
        columns = np.reshape(geometry.direction, (3, 3))[:, ::-1][:, axes]  # in the order of the new axes
        lengths = np.array(spacing) * (np.array(array.shape[1:]) - 1)
        origin = np.array(geometry.origin) + columns @ np.where(flips, lengths, 0)
        direction = (columns * np.where(flips, -1, 1))[:, ::-1]
        geometry = Geometry(tuple(origin.tolist()), tuple(direction.ravel().tolist()))
    return Raster(np.ascontiguousarray(array), spacing, geometry)


def _sheared(geometry: Geometry | None) -> bool:
    if geometry is None:
        return False
    direction = np.reshape(geometry.direction, (3, 3))
    return not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3)


def _write_nibabel(temporary: Path, raster: Raster, ending: str) -> None:
    """Write NIfTI with sheared axes, which ITK cannot write."""
    import nibabel

    assert raster.geometry is not None
    affine = np.eye(4)
    affine[:3, :3] = _LPS @ (np.reshape(raster.geometry.direction, (3, 3)) * raster.spacing[::-1])
    affine[:3, 3] = _LPS @ raster.geometry.origin
    content = nibabel.Nifti1Image(raster.array[0].transpose(), affine, dtype=raster.array.dtype).to_bytes()
    temporary.write_bytes(gzip.compress(content, 6, mtime=0) if ending == ".nii.gz" else content)


def _write_itk(temporary: Path, raster: Raster, path: Path) -> None:
    import SimpleITK

    flat = raster.geometry is not None and raster.geometry.stored == "xy" and raster.array.shape[1] == 1
    axes = 2 if flat else 3
    array = raster.array[0, 0] if flat else raster.array[0]
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing([float(s) for s in reversed(raster.spacing[-axes:])])
    if raster.geometry is not None:
        image.SetOrigin(raster.geometry.origin[:axes])
        image.SetDirection(np.reshape(raster.geometry.direction, (3, 3))[:axes, :axes].ravel().tolist())
    # ITK writes neither time nor name into its compressed files (tested), so equal input gives equal bytes
    try:
        SimpleITK.WriteImage(image, str(temporary), True)
    except RuntimeError as error:
        raise OSError(errno.EIO, one_line(error), str(path)) from None
    before = {".nii": _NIFTI_HEADER, ".nii.gz": _NIFTI_HEADER, ".nrrd": 0}.get(ending_of(path))
    if before is not None and _content_size(temporary) != before + array.nbytes:
        raise OSError(errno.EIO, "only part of it was written", str(path))  # ITK does not report this


def _content_size(path: Path) -> int:
    """Size in bytes of a file's content; for a gzip file, as stored in its last four bytes."""
    if path.suffix == ".nii":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        return int.from_bytes(file.read(), "little")

"""DICOM slices -> CT volumes in Hounsfield units. What would shift or stretch a volume unnoticed is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.raster import MAX_VOXELS, Geometry, Raster, check_size, one_line
from jdm.data.raw_layout import few
from jdm.errors import DataError

SAME_PLACE = 1e-3
"""Millimetres within which two slices lie at the same place."""
UNEVEN = 0.05
"""Share by which the distance of two slices may differ from the median one."""
_TAGS = (
    "Modality", "SeriesInstanceUID", "PatientID", "SOPInstanceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "Rows", "Columns", "RescaleSlope", "RescaleIntercept", "PhotometricInterpretation",
    "SamplesPerPixel", "NumberOfFrames",
)  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """One file and its header."""

    path: Path
    header: Any
    """pydicom's, of the tags needed."""

    @property
    def uid(self) -> str:
        return str(self.header.get("SOPInstanceUID", ""))

    @property
    def series(self) -> str:
        return str(self.header.get("SeriesInstanceUID", ""))


@dataclass(frozen=True)
class Series:
    """A volume, and where its slices are."""

    volume: Raster
    """(1, z, y, x) int16, in Hounsfield units."""
    index: dict[str, int]
    """Index along z by SOP instance."""
    positions: np.ndarray
    """z of each slice in the patient's coordinates, millimetres."""
    notes: list[str]


def is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_header(path: Path) -> Slice:
    """The header of one file, without pixels. Raises: DataError if it cannot be read or lacks series or modality."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        lacking = [tag for tag in ("Modality", "SeriesInstanceUID", "SOPInstanceUID") if not header.get(tag)]
    except Exception as error:  # pydicom raises whatever a damaged header leads it to
        raise DataError(f"{path}: cannot be read as DICOM ({one_line(error)}); get the file again") from None
    if lacking:
        raise DataError(f"{path}: has no {', '.join(lacking)}; expected a slice of a series; get the file again")
    return Slice(path, header)


def read_ct(slices: Sequence[Slice]) -> Series:
    """The volume of one CT series, slices ordered by their position along the normal of their plane.

    Raises: DataError naming the series if slices disagree in size, spacing or orientation, lie at the same place,
        leave a gap, lack the conversion to Hounsfield units, or cannot be decoded.
    """
    first = slices[0].header
    name = f"{slices[0].path.parent}: series {slices[0].series}"
    _check_alike(name, slices)
    places, direction = _places(name, slices)
    order = np.argsort(places, kind="stable")
    ordered, placed = [slices[i] for i in order], places[order]
    pixels = [_hounsfield(s) for s in ordered]
    keep, notes = _without_copies(name, ordered, placed, pixels)
    ordered, placed = [ordered[i] for i in keep], placed[keep]
    distance = _distance(name, placed)
    origin = tuple(float(v) for v in ordered[0].header.ImagePositionPatient)
    spacing = (distance, *(float(v) for v in first.PixelSpacing))
    volume = Raster(np.stack([pixels[i] for i in keep])[None], spacing, Geometry(origin, direction))
    at = np.array([float(s.header.ImagePositionPatient[2]) for s in ordered])
    return Series(volume, {s.uid: i for i, s in enumerate(ordered)}, at, notes)


def _check_alike(name: str, slices: Sequence[Slice]) -> None:
    needed = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    for part in slices:
        lacking = [tag for tag in needed if part.header.get(tag) is None]
        if lacking:
            raise DataError(f"{name}: {part.path.name} has no {', '.join(lacking)}; expected it in every slice")
        if part.header.get("RescaleSlope") is None or part.header.get("RescaleIntercept") is None:
            raise DataError(
                f"{name}: {part.path.name} has no rescale slope and intercept, so its values are no Hounsfield units; "
                "get the original series"
            )
        if int(part.header.get("NumberOfFrames") or 1) != 1 or int(part.header.get("SamplesPerPixel") or 1) != 1:
            raise DataError(f"{name}: {part.path.name} holds several frames or colours; expected one grey slice")
    for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        values = [np.atleast_1d(np.array(s.header.get(tag), np.float64)) for s in slices]
        odd = [s.path.name for s, v in zip(slices, values, strict=True) if not _close(v, values[0])]
        if odd:
            raise DataError(
                f"{name}: {tag} of {few(odd, 5)} differs from that of {slices[0].path.name}; expected one for all "
                "slices; separate the series"
            )
    check_size(slices[0].path, int(slices[0].header.Rows) * int(slices[0].header.Columns) * len(slices), MAX_VOXELS)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, atol=1e-4))


def _places(name: str, slices: Sequence[Slice]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Position of each slice along the normal of their plane (mm), and the direction cosines row by row."""
    cosines = np.array(slices[0].header.ImageOrientationPatient, np.float64)
    positions = np.array([list(s.header.ImagePositionPatient) for s in slices], np.float64)
    if cosines.shape != (6,) or positions.shape != (len(slices), 3) or not np.isfinite(positions).all():
        raise DataError(f"{name}: position or orientation is damaged; expected three and six numbers")
    along_x, along_y = cosines[:3], cosines[3:]
    normal = np.cross(along_x, along_y)
    if not np.isclose(np.linalg.norm(normal), 1, atol=1e-2):
        raise DataError(f"{name}: orientation {cosines.tolist()} is no pair of orthogonal directions; get it again")
    return positions @ normal, tuple(np.stack([along_x, along_y, normal], axis=1).ravel().tolist())


def _hounsfield(part: Slice) -> np.ndarray:
    """(y, x) int16. Raises: DataError if the pixels cannot be decoded or leave the range of int16."""
    import pydicom

    try:
        stored = pydicom.dcmread(part.path).pixel_array
    except Exception as error:  # pydicom and its decoders raise whatever damaged pixels lead them to
        raise DataError(f"{part.path}: its pixels cannot be read ({one_line(error)}); get the file again") from None
    values = stored.astype(np.float64) * float(part.header.RescaleSlope) + float(part.header.RescaleIntercept)
    if not np.isfinite(values).all() or values.min() < -32768 or values.max() > 32767 or values.ndim != 2:
        raise DataError(f"{part.path}: values of {values.min():g} to {values.max():g}; expected Hounsfield units")
    return np.round(values).astype(np.int16)


def _without_copies(
    name: str, slices: Sequence[Slice], places: np.ndarray, pixels: Sequence[np.ndarray]
) -> tuple[list[int], list[str]]:  # fmt: skip
    """Indices of slices to keep: of several with the same place and pixels, the first.

    Raises: DataError if slices at one place differ.
    """
    keep = [0]
    copies = []
    for i in range(1, len(slices)):
        if places[i] - places[keep[-1]] > SAME_PLACE:
            keep.append(i)
        elif np.array_equal(pixels[i], pixels[keep[-1]]):
            copies.append(slices[i].path.name)
        else:
            raise DataError(
                f"{name}: {slices[keep[-1]].path.name} and {slices[i].path.name} lie at the same place "
                f"({places[i]:g} mm) and differ; expected one slice per place; separate the series"
            )
    return keep, [f"{len(copies)} slices that are there twice left out: {few(copies, 5)}"] if copies else []


def _distance(name: str, places: np.ndarray) -> float:
    """Distance of neighbouring slices, millimetres. Raises: DataError if there are too few or they lie unevenly."""
    if len(places) < 2:
        raise DataError(f"{name}: has {len(places)} slices; expected a volume; get the whole series")
    gaps = np.diff(places)
    median = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - median) > max(UNEVEN * median, 2 * SAME_PLACE))
    if odd.size:
        raise DataError(
            f"{name}: slices at {places[odd[0]]:g} and {places[odd[0] + 1]:g} mm are {gaps[odd[0]]:g} mm apart, others "
            f"{median:g}; expected even steps; a slice is missing or doubled, get the whole series"
        )
    return float((places[-1] - places[0]) / (len(places) - 1))

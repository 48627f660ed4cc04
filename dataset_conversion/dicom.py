"""DICOM slices -> CT volumes in Hounsfield units. Refuses series that would give a shifted or stretched volume."""

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
"""Slices closer than this, in millimetres, are at the same position."""
UNEVEN = 0.05
"""Tolerance of slice distances, as a share of the median distance."""


@dataclass(frozen=True)
class Slice:
    """One file with the values in its header; None for missing ones."""

    path: Path
    uid: str
    """SOP instance."""
    series: str
    modality: str
    patient: str
    shape: tuple[int, ...] | None
    """Rows, columns."""
    spacing: tuple[float, ...] | None
    """Millimetres between rows, between columns."""
    position: tuple[float, ...] | None
    """Of the first pixel, millimetres."""
    orientation: tuple[float, ...] | None
    """Direction cosines along a row, then along a column."""
    rescale: tuple[float, ...] | None
    """Slope and intercept from stored values to Hounsfield units."""
    single: bool
    """One frame, one grey value per pixel."""


@dataclass(frozen=True)
class Series:
    """A volume, and the positions of its slices."""

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
    from pydicom.config import disable_value_validation

    try:
        with disable_value_validation():
            found = _slice(path, pydicom.dcmread(path, stop_before_pixels=True))
    except Exception as error:  # pydicom raises many kinds of exception on a damaged header
        raise DataError(f"{path}: cannot be read as DICOM ({one_line(error)}); get the file again") from None
    if not (found.series and found.modality and found.uid):
        raise DataError(f"{path}: lacks series, modality or instance; expected a slice of a series; get it again")
    return found


def _slice(path: Path, header: Any) -> Slice:
    """Plain values of a header; pydicom decodes each only when it is accessed."""

    def numbers(*tags: str) -> tuple[float, ...] | None:
        values = [header.get(tag) for tag in tags]
        if any(value is None for value in values):
            return None
        return tuple(float(v) for value in values for v in (value if len(tags) == 1 else [value]))

    shape = numbers("Rows", "Columns")
    return Slice(
        path, str(header.get("SOPInstanceUID") or ""), str(header.get("SeriesInstanceUID") or ""),
        str(header.get("Modality") or ""), str(header.get("PatientID") or ""),
        tuple(int(n) for n in shape) if shape else None, numbers("PixelSpacing"), numbers("ImagePositionPatient"),
        numbers("ImageOrientationPatient"), numbers("RescaleSlope", "RescaleIntercept"),
        int(header.get("NumberOfFrames") or 1) == 1 and int(header.get("SamplesPerPixel") or 1) == 1,
    )  # fmt: skip


def read_ct(slices: Sequence[Slice]) -> Series:
    """The volume of one CT series, slices ordered by their position along the normal of their plane.

    Raises: DataError naming the series if slices disagree in size, spacing or orientation, lie at the same place,
        leave a gap, lack the conversion to Hounsfield units, or cannot be decoded.
    """
    name = f"{slices[0].path.parent}: series {slices[0].series}"
    shape, spacing, orientation = _common(name, slices)
    along_x, along_y = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(along_x, along_y)
    if not np.isclose(np.linalg.norm(normal), 1, atol=1e-2):
        raise DataError(f"{name}: orientation is {orientation}; expected two orthogonal directions; get it again")
    positions = np.array([part.position or () for part in slices], np.float64)
    places = positions @ normal
    order = np.argsort(places, kind="stable")
    pixels = [_hounsfield(slices[i], shape) for i in order]
    keep, notes = _without_copies(name, [slices[i].path.name for i in order], places[order], pixels)
    kept = order[keep]
    direction = tuple(np.stack([along_x, along_y, normal], axis=1).ravel().tolist())
    geometry = Geometry(tuple(positions[kept[0]].tolist()), direction)
    distance = _distance(name, places[kept])
    volume = Raster(np.stack([pixels[i] for i in keep])[None], (distance, *spacing), geometry)
    return Series(volume, {slices[k].uid: i for i, k in enumerate(kept)}, positions[kept, 2], notes)


def _common(name: str, slices: Sequence[Slice]) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """Size, spacing and orientation of all slices. Raises: DataError if a slice lacks them or differs."""
    for part in slices:
        lacking = [
            tag
            for tag, value, length in (
                ("size", part.shape, 2), ("pixel spacing", part.spacing, 2), ("position", part.position, 3),
                ("orientation", part.orientation, 6), ("rescale slope and intercept", part.rescale, 2),
            )
            if value is None or len(value) != length or not np.isfinite(value).all()
        ]  # fmt: skip
        if lacking:
            raise DataError(
                f"{name}: {part.path.name} has no usable {', '.join(lacking)}; expected them in every slice, because "
                "they define its position and Hounsfield units; get the original series"
            )
        if not part.single:
            raise DataError(f"{name}: {part.path.name} holds several frames or colours; expected one grey slice")
    first = slices[0]
    assert first.shape is not None and first.spacing is not None and first.orientation is not None
    for tag, values in (
        ("size", [part.shape for part in slices]), ("pixel spacing", [part.spacing for part in slices]),
        ("orientation", [part.orientation for part in slices]),
    ):  # fmt: skip
        odd = np.flatnonzero(
            ~np.isclose(np.array(values, np.float64), np.array(values[0], np.float64), rtol=0, atol=1e-4).all(axis=1)
        )
        if odd.size:
            raise DataError(
                f"{name}: {tag} of {few([slices[i].path.name for i in odd], 5)} differs from that of "
                f"{first.path.name}; expected one for all slices; separate the series"
            )
    if min(first.spacing) <= 0:
        raise DataError(f"{name}: pixel spacing is {first.spacing}; expected millimetres above 0; get it again")
    check_size(first.path, first.shape[0] * first.shape[1] * len(slices), MAX_VOXELS)
    return first.shape, first.spacing, first.orientation


def _hounsfield(part: Slice, shape: tuple[int, ...]) -> np.ndarray:
    """(y, x) int16. Raises: DataError if the pixels cannot be decoded or leave the range of int16."""
    import pydicom
    from pydicom.config import disable_value_validation

    assert part.rescale is not None
    try:
        with disable_value_validation():
            stored = np.asarray(pydicom.dcmread(part.path).pixel_array)
    except Exception as error:  # pydicom and its decoders raise many kinds of exception on damaged pixels
        raise DataError(f"{part.path}: its pixels cannot be read ({one_line(error)}); get the file again") from None
    values = stored.astype(np.float64) * part.rescale[0] + part.rescale[1]
    if values.shape != shape or values.min() < -32768 or values.max() > 32767:
        raise DataError(
            f"{part.path}: {values.shape} values of {values.min():g} to {values.max():g}; expected {shape} Hounsfield "
            "units; get the original series"
        )
    return np.round(values).astype(np.int16)


def _without_copies(
    name: str, names: Sequence[str], places: np.ndarray, pixels: Sequence[np.ndarray]
) -> tuple[list[int], list[str]]:
    """Indices of slices to keep; of identical slices at one position, the first.

    Raises: DataError if slices at one position differ.
    """
    keep = [0]
    copies = []
    for i in range(1, len(names)):
        if places[i] - places[keep[-1]] > SAME_PLACE:
            keep.append(i)
        elif np.array_equal(pixels[i], pixels[keep[-1]]):
            copies.append(names[i])
        else:
            raise DataError(
                f"{name}: {names[keep[-1]]} and {names[i]} are at the same position ({places[i]:g} mm) but differ; "
                "expected one slice per position; separate the series"
            )
    return keep, [f"{len(copies)} slices that are there twice left out: {few(copies, 5)}"] if copies else []


def _distance(name: str, places: np.ndarray) -> float:
    """Distance of neighbouring slices in millimetres. Raises: DataError if there are too few or distances vary."""
    if len(places) < 2:
        raise DataError(f"{name}: has {len(places)} slices; expected a volume; get the whole series")
    gaps = np.diff(places)
    median = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - median) > max(UNEVEN * median, 2 * SAME_PLACE))
    if odd.size:
        raise DataError(
            f"{name}: slices at {places[odd[0]]:g} and {places[odd[0] + 1]:g} mm are {gaps[odd[0]]:g} mm apart, others "
            f"{median:g}; expected equal distances; a slice is missing or duplicated, get the whole series"
        )
    return float((places[-1] - places[0]) / (len(places) - 1))

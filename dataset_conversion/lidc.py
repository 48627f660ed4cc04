"""LIDC-IDRI: 1018 chest CT series of 1010 patients, nodules outlined by up to four readers.

Layout: `LIDC-IDRI-dddd/<study>/<series>/*.dcm` and an XML file per CT series, next to digital radiographs (CR, DX).
An outline runs just outside of the nodule, or of a part to exclude from it; the voxels of the outline itself do not
belong to what it encloses. Source: Armato et al. 2011, "The Lung Image Database Consortium (LIDC) and Image Database
Resource Initiative (IDRI)".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dataset_conversion.cases import Content, Item, Reading, convert
from dataset_conversion.dicom import Series, Slice, is_dicom, read_ct, read_header
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import LidcOptions
from dataset_conversion.polygons import inside_polygon
from dataset_conversion.source import missing_layout, visible
from dataset_conversion.target import Conversion
from dataset_conversion.volumes import ENDING
from dataset_conversion.xml_files import read_xml
from jdm.data.raster import one_line
from jdm.data.raw_layout import few
from jdm.errors import ConfigError, DataError

LABELS = {"background": 0, "nodule": 1}
PUBLISHED = {"train": 1018}
MAX_READERS = 4


@dataclass(frozen=True)
class Outline:
    """One reader's outline of one nodule in one slice."""

    uid: str
    """SOP instance of the slice; may be empty."""
    z: float
    """Position of the slice, millimetres."""
    around: bool
    """Whether it surrounds nodule; False: a part that is not nodule."""
    points: np.ndarray
    """(n, 2) indices x, y of the voxels of the outline."""


def convert_lidc(options: LidcOptions) -> Conversion:
    """Convert; folds keep the series of a patient together.

    Raises: as `convert`; ConfigError for a reader that does not exist.
    """
    counted = options.readers or tuple(range(1, MAX_READERS + 1))
    if len(set(counted)) < len(counted) or not all(1 <= reader <= MAX_READERS for reader in counted):
        raise ConfigError(f"--readers {' '.join(map(str, counted))}: expected some of 1 to {MAX_READERS}, each once")
    if not 1 <= options.min_readers <= len(counted):
        raise ConfigError(f"--min-readers {options.min_readers}: expected 1 to {len(counted)}, the readers that count")
    asked = {"readers": " ".join(map(str, counted)), "least readers for a voxel": str(options.min_readers)}
    return convert(options, "lidc", "LIDC", partial(_gather, options), asked)


def _gather(options: LidcOptions, root: Path, ledger: Ledger) -> Content:
    series, annotations, damaged = _files(root, ledger)
    scans: dict[str, list[Slice]] = {}
    for uid, parts in sorted(series.items()):
        modalities = sorted({part.modality for part in parts})
        if modalities == ["CT"]:
            scans[uid] = parts
        else:
            ledger.add("ignored", "train", None, [parts[0].path.parent], [f"modality {' and '.join(modalities)}"])
    if not scans:
        raise missing_layout(root, "LIDC-IDRI-dddd/<study>/<series> with CT slices (.dcm) and XML files")
    names = _names(scans)
    items = [
        Item(
            "train", names[uid], (parts[0].path.parent, *([annotations[uid]] if uid in annotations else [])),
            partial(_read, parts, annotations.get(uid), damaged, options), _patient(parts),
        )
        for uid, parts in sorted(scans.items(), key=lambda item: names[item[0]])
    ]  # fmt: skip
    return Content(items, LABELS, ENDING, ("CT",), PUBLISHED)


def _files(root: Path, ledger: Ledger) -> tuple[dict[str, list[Slice]], dict[str, Path], dict[Path, str]]:
    """Slices by series, annotations by series, and by folder the reason why its slices are unreliable."""
    series: dict[str, list[Slice]] = {}
    annotations: dict[str, Path] = {}
    damaged: dict[Path, str] = {}
    for path in visible(root):
        if path.suffix.lower() == ".xml":
            try:
                _enter(annotations, path, ledger)
            except DataError as error:
                ledger.add("refused", "train", None, [path], [str(error)])
        elif path.suffix.lower() == ".dcm" or is_dicom(path):
            try:
                part = read_header(path)
                series.setdefault(part.series, []).append(part)
            except DataError as error:
                damaged.setdefault(path.parent, str(error))
                ledger.add("refused", "train", None, [path], [str(error)])
        else:
            ledger.add("ignored", "train", None, [path], ["neither DICOM nor XML"])
    by_folder: dict[Path, set[str]] = {}
    for uid, parts in series.items():
        for part in parts:
            by_folder.setdefault(part.path.parent, set()).add(uid)
    for folder, uids in by_folder.items():
        if len(uids) > 1:
            mixed = (
                f"{folder}: holds slices of {len(uids)} series ({few(sorted(uids), 4)}); expected one; separate them"
            )
            damaged.setdefault(folder, mixed)
    return series, annotations, damaged


def _enter(annotations: dict[str, Path], path: Path, ledger: Ledger) -> None:
    """Record an XML file under the series that it annotates; readings of radiographs are ignored."""
    try:
        message = read_xml(path, "LidcReadMessage")
    except DataError as error:
        if "its root is 'IdriReadMessage'" not in str(error):
            raise
        ledger.add("ignored", "train", None, [path], ["readings of a radiograph"])
        return
    header = message.find("ResponseHeader")
    uid = (header.findtext("SeriesInstanceUid") or "").strip() if header is not None else ""
    if not uid:
        raise DataError(f"{path}: names no series (SeriesInstanceUid); get the original file")
    if annotations.setdefault(uid, path) != path and path.read_bytes() != annotations[uid].read_bytes():
        raise DataError(f"{path}: annotates the same series as {annotations[uid]} but differs; remove one")


def _patient(parts: Sequence[Slice]) -> str:
    return parts[0].patient or parts[0].path.parent.parent.parent.name


def _names(scans: Mapping[str, Sequence[Slice]]) -> dict[str, str]:
    """Case by series: the patient, with a number if there are several series."""
    several = Counter(_patient(parts) for parts in scans.values())
    numbers: Counter[str] = Counter()
    names = {}
    for uid, parts in sorted(scans.items()):
        patient = _patient(parts)
        numbers[patient] += 1
        names[uid] = patient if several[patient] == 1 else f"{patient}_{numbers[patient]}"
    return names


def _read(
    parts: Sequence[Slice], annotation: Path | None, damaged: Mapping[Path, str], options: LidcOptions
) -> Reading:
    """A scan and its nodules. Raises: DataError if they cannot be used, or the folder has damaged or foreign slices."""
    broken = [damaged[folder] for folder in sorted({part.path.parent for part in parts}) if folder in damaged]
    if broken:
        raise DataError(f"series {parts[0].series} may be incomplete: {broken[0]}")
    if annotation is None:
        raise DataError(
            f"{parts[0].path.parent}: no XML file annotates its series {parts[0].series}; expected one; download the "
            "annotations too, and put them below the same folder"
        )
    series = read_ct(parts)
    sessions = list(read_xml(annotation, "LidcReadMessage").iter("readingSession"))
    counted = options.readers or tuple(range(1, len(sessions) + 1))
    if len(counted) < options.min_readers or max(counted, default=0) > len(sessions):
        raise DataError(
            f"{annotation}: has {len(sessions)} readers; expected those of --readers, and at least "
            f"{options.min_readers}; choose others"
        )
    votes = np.zeros(series.volume.array.shape[1:], np.uint8)
    large = small = 0
    for reader in counted:
        drawn = np.zeros(votes.shape, bool)
        for nodule in sessions[reader - 1].iter("unblindedReadNodule"):
            if _is_large(nodule):
                large += 1
                draw(drawn, [read_outline(roi, annotation) for roi in nodule.iter("roi")], series, annotation)
            else:
                small += 1
        votes += drawn
    label = (votes >= options.min_readers).astype(np.uint8)
    remarks = [f"{len(sessions)} readers, {large} outlined nodules of 3 mm or more, {small} smaller ones left out"]
    return Reading(series.volume, label, series.notes, None, remarks)


def _is_large(nodule: Element) -> bool:
    """Readers rated only nodules of 3 mm or more; smaller ones are a single point."""
    ratings = nodule.find("characteristics")
    return ratings is not None and any((rating.text or "").strip() for rating in ratings)


def read_outline(roi: Element, where: Path) -> Outline:
    """Read one `roi` of an XML file. Raises: DataError for missing, non-integer or far-off coordinates."""
    try:
        points = [(int(e.findtext("xCoord") or ""), int(e.findtext("yCoord") or "")) for e in roi.iter("edgeMap")]
        z = float(roi.findtext("imageZposition") or "nan")
    except ValueError as error:
        raise DataError(
            f"{where}: an outline has a coordinate that is not a number ({one_line(error)}); get the file again"
        ) from None
    if not points or max(abs(v) for point in points for v in point) > 2**20:
        raise DataError(f"{where}: an outline has no points, or points far off; get the file again")
    around = (roi.findtext("inclusion") or "TRUE").strip().upper() != "FALSE"
    return Outline((roi.findtext("imageSOP_UID") or "").strip(), z, around, np.array(points, np.float64))


def draw(drawn: np.ndarray, outlines: Sequence[Outline], series: Series, where: Path) -> None:
    """Set the voxels (z, y, x) of one nodule of one reader in `drawn`.

    Raises: DataError if an outline is not in any slice of the series.
    """
    shape = drawn.shape[1], drawn.shape[2]
    nodule: dict[int, np.ndarray] = {}
    for outline in sorted(outlines, key=lambda o: not o.around):  # excluded parts come last
        index = _slice_of(outline, series, where)
        plane = nodule.setdefault(index, np.zeros(shape, bool))
        pixels, rows, columns = inside_polygon(outline.points, shape, centre=0.0)
        inside = np.zeros(shape, bool)
        inside[rows, columns] = pixels
        x, y = outline.points.astype(int).T
        within = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        inside[y[within], x[within]] = not outline.around
        nodule[index] = plane | inside if outline.around else plane & ~inside
    for index, plane in nodule.items():
        drawn[index] |= plane


def _slice_of(outline: Outline, series: Series, where: Path) -> int:
    if outline.uid in series.index:
        return series.index[outline.uid]
    nearest = int(np.abs(series.positions - outline.z).argmin()) if np.isfinite(outline.z) else 0
    if not np.isfinite(outline.z) or abs(series.positions[nearest] - outline.z) > series.volume.spacing[0] / 4:
        raise DataError(
            f"{where}: an outline is in slice {outline.uid[:64] or 'unknown'} at {outline.z:g} mm, which is not in the "
            "series; expected the annotation of this series, and all its slices; get both again"
        )
    return nearest

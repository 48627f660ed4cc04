"""A miniature of LIDC-IDRI: DICOM slices and the XML of four readers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SHAPE = (5, 12, 14)  # z, y, x
STEP = 2.5
CT_UID = "1.3.6.1.1"
Outline = tuple[int, list[tuple[int, int]], bool]
"""Index of the slice, outline, whether it runs around nodule."""


def hounsfield(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, SHAPE).astype(np.int16)


def write_slice(path: Path, series: str, number: int, z: float, values: np.ndarray, **changed: object) -> None:
    """One CT slice, stored from 0 with an intercept of -1024, as scanners do; None in `changed` removes a tag."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID, data.PatientID = "CT", series, "LIDC-IDRI-0001"
    data.ImagePositionPatient, data.ImageOrientationPatient = [-166.0, -171.7, z], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.InstanceNumber = [0.7, 0.6], number
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (values.astype(int) + 1024).astype(np.uint16).tobytes()
    for name, value in changed.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_series(folder: Path, series: str, seed: int = 0, **changed: object) -> np.ndarray:
    """A whole series, its files named against the order of its slices; the volume."""
    volume = hounsfield(seed)
    for index in range(SHAPE[0]):
        name = f"{SHAPE[0] - index:06d}.dcm"
        write_slice(folder / name, series, index, -100.0 + STEP * index, volume[index], **changed)
    return volume


def ring(top: int, left: int, height: int, width: int) -> list[tuple[int, int]]:
    """(x, y) of the voxels on the border of a rectangle, in order around it."""
    up = [(left, y) for y in range(top + height - 1, top, -1)]
    over = [(x, top) for x in range(left, left + width - 1)]
    down = [(left + width - 1, y) for y in range(top, top + height - 1)]
    back = [(x, top + height - 1) for x in range(left + width - 1, left, -1)]
    return up + over + down + back


def nodule(outlines: Sequence[Outline], series: str, rated: bool = True) -> str:
    rois = "".join(
        f"<roi><imageZposition>{-100.0 + STEP * index:.2f} </imageZposition>"
        f"<imageSOP_UID>{series}.{index}</imageSOP_UID><inclusion>{'TRUE' if around else 'FALSE'}</inclusion>"
        + "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
        + "</roi>"
        for index, points, around in outlines
    )
    ratings = "<characteristics><subtlety>5</subtlety><malignancy>3</malignancy></characteristics>" if rated else ""
    return f"<unblindedReadNodule><noduleID>1</noduleID>{ratings}{rois}</unblindedReadNodule>"


def write_xml(path: Path, series: str, readers: Sequence[Sequence[str]]) -> None:
    """The message about a series: for every reader the nodules drawn."""
    sessions = "".join(
        f"<readingSession><annotationVersion>3.12</annotationVersion>{''.join(nodules)}"
        "<nonNodule><nonNoduleID>9</nonNoduleID></nonNodule></readingSession>"
        for nodules in readers
    )
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage xmlns="http://www.nih.gov" uid="1">'
        f"<ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{sessions}</LidcReadMessage>"
    )

"""Chooses nnU-Net's reader for a dataset's files. Used by `jdm.data.raw_dataset`.

Source: nnunetv2 2.8.1, imageio/reader_writer_registry.py.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from jdm.data.picture_io import quiet
from jdm.data.raster import ending_of
from jdm.errors import DataError

KEY = "overwrite_image_reader_writer"
"""Key in dataset.json that names the reader, if nnU-Net should not choose it by the files."""
TIFF_ENDINGS = (".tif", ".tiff")
_ITK, _NIFTI = (".nii.gz", ".nii", ".mha", ".nrrd"), (".nii.gz", ".nii")
READERS = {
    "NaturalImage2DIO": (".png", ".bmp", ".tif"),
    "SimpleITKIO": _ITK,
    "SimpleITKIOWithReorient": _ITK,
    "Tiff3DIO": TIFF_ENDINGS,
    "NibabelIO": _NIFTI,
    "NibabelIOWithReorient": _NIFTI,
}
"""File endings of each reader."""
AUTOMATIC = {
    **dict.fromkeys((".png", ".bmp", ".tif"), "NaturalImage2DIO"),
    **dict.fromkeys((".nii.gz", ".mha", ".nrrd"), "SimpleITKIO"),
    ".tiff": "Tiff3DIO",
    ".nii": "NibabelIO",
}
"""Preferred reader by ending, used if it can open the first image."""


def reader_of(path: Path, content: dict[str, Any], ending: str, example: Path | None) -> str:
    """The reader that nnU-Net uses for a dataset.

    Args:
        path: path of dataset.json. content: its content.
        example: the first image, which nnU-Net tries to open; None if there is none.
    Raises: DataError if the reader is unknown or cannot open files with this ending.
    """
    name = content.get(KEY, "None")
    if name == "None":
        return AUTOMATIC[ending] if example is None else automatic_reader(example)
    if not isinstance(name, str) or ending not in READERS.get(name, ()):
        fitting = " ".join(reader for reader, endings in READERS.items() if ending in endings)
        raise DataError(
            f"{path}: {KEY} is {name!r}; expected a reader of {ending} files ({fitting}); correct it, or leave it out"
        )
    return name


def automatic_reader(path: Path) -> str:
    """The reader that nnU-Net chooses for a dataset with this first image."""
    ending = ending_of(path)
    if is_stack(path):
        return "Tiff3DIO"
    if ending == ".nii.gz" and not _itk_opens(path):
        return "NibabelIO"
    return AUTOMATIC.get(ending, "")


def is_stack(path: Path) -> bool:
    """Whether a TIFF file has slices; nnU-Net treats three or four slices as the channels of a picture."""
    if ending_of(path) not in TIFF_ENDINGS:
        return False
    import tifffile

    # damage is reported when the file is read
    with contextlib.suppress(Exception), quiet("tifffile"), tifffile.TiffFile(path) as file:
        shape = file.series[0].shape
        return len(file.pages) > 1 and len(shape) == 3 and not {shape[0], shape[-1]} & {3, 4}
    return False


def _itk_opens(path: Path) -> bool:
    """Whether SimpleITK accepts a file's header; it refuses sheared axes."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return True

"""Pictures in a folder per class, without masks: `SOURCE/CLASS/*` or `SOURCE/{train,test}/CLASS/*`."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_conversion.cases import Content, Item, Reading, convert
from dataset_conversion.dicom import is_dicom
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import ClassesOptions
from dataset_conversion.rules import list_pictures
from dataset_conversion.source import missing_layout
from dataset_conversion.target import Conversion
from dataset_conversion.xrays import as_grey, read_grey
from jdm.data.labels import NO_MASKS
from jdm.data.raster import Raster
from jdm.errors import ConfigError, DataError

TEST_PARTS = ("test", "testing")
PARTS = ("train", "training", "val", "valid", "validation", *TEST_PARTS)


def convert_classes(options: ClassesOptions) -> Conversion:
    """Convert. Raises: as `convert`; ConfigError for a share or a size that is out of range."""
    if not 0 <= options.test_share < 1:
        raise ConfigError(f"--test-share is {options.test_share}; expected at least 0 and less than 1; correct it")
    if options.size is not None and options.size < 8:
        raise ConfigError(f"--size is {options.size}; expected at least 8 pixels; correct it")
    asked = {name: str(value) for name, value in vars(options).items() if name in _ASKED and value}
    return convert(options, "classes", "Classes", partial(_gather, options), asked)


_ASKED = ("grey", "crop_centre", "size", "test_share")


def _gather(options: ClassesOptions, root: Path, ledger: Ledger) -> Content:
    while len(inner := _folders(root)) == 1 and inner[0].name.lower() not in PARTS:  # an archive's outer folder
        root = inner[0]
    parts = [folder for folder in _folders(root) if folder.name.lower() in PARTS]
    if parts and options.test_share:
        raise ConfigError(f"--test-share with the folders {parts[0].name} of {root.name}; expected one; leave it out")
    found = [(part.name, label) for part in parts for label in _folders(part)] or [("", f) for f in _folders(root)]
    listed = [(part, folder, *_files(folder)) for part, folder in found]
    pictures = [path for _, _, files, _ in listed for path in files.values()]
    coloured = [] if options.grey else [path for path in pictures if not _is_grey(path)]
    if 0 < len(coloured) < len(pictures):
        ledger.notes.append(
            f"{len(coloured)} of {len(pictures)} pictures, such as {coloured[0].name}, are in colour, so all are "
            "stored in colour; --grey makes all grey"
        )
    items = []
    for part, folder, files, aside in listed:
        for path, reason in aside:
            ledger.add("ignored", "train", None, [path], [reason])
        for stem, path in files.items():
            read = partial(read_picture, path, options, bool(coloured))
            name = "_".join(filter(None, (part, folder.name, stem)))
            split = "test" if part.lower() in TEST_PARTS or _drawn(name, options.test_share) else "train"
            items.append(Item(split, name, (path,), read, None, part or None, folder.name))
    names = sorted({item.class_name or "" for item in items if item.split == "train"})
    if len(names) < 2:
        raise missing_layout(root, "a folder of pictures per class, at least two, also within train and test")
    if strange := sorted({item.class_name or "" for item in items} - {*names}):
        raise DataError(
            f"{root}: class {strange[0]!r} has test images only; expected the training classes {', '.join(names)}; "
            "rename its folder, or add training images"
        )
    channels = ("red", "green", "blue") if coloured else ("grey",)
    return Content(items, NO_MASKS, ".png", channels, masks=False)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [f for f in sorted(folder.iterdir()) if f.is_dir() and f.name != "__MACOSX" and not f.name.startswith(".")]


def _files(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Pictures by stem, DICOM files without one of the endings included, and other files with the reason."""
    dicom = {path.stem: path for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)}
    if dicom:
        return dicom, [(path, "not DICOM, as others here are") for path in folder.iterdir() if path.stem not in dicom]
    return list_pictures(folder)


def _drawn(name: str, share: float) -> bool:
    """Whether a name falls into the share, whatever the other names are."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < share * 16**8


def _is_grey(path: Path) -> bool:
    try:
        return is_dicom(path) or read_grey(path, strict=False).image.array.shape[0] == 1
    except DataError:
        return True  # refused when it is read


def read_picture(path: Path, options: ClassesOptions, coloured: bool) -> Reading:
    """A picture of the form that the options ask for. Args: coloured: whether all are stored in colour."""
    reading = _dicom(path) if is_dicom(path) else read_grey(path, strict=False)
    array, notes = reading.image.array, [*reading.notes]
    if options.grey and len(array) > 1:
        array = as_grey(array)
        notes.append("made grey (--grey)")
    if coloured and len(array) == 1:
        array = np.repeat(array, 3, axis=0)
    if options.crop_centre and array.shape[1] != array.shape[2]:
        side = min(array.shape[1:])
        top, left = ((have - side) // 2 for have in array.shape[1:])
        array = array[:, top : top + side, left : left + side]
        notes.append(f"cropped to its central {side} pixels a side (--crop-centre)")
    if options.size is not None and min(array.shape[1:]) != options.size:
        array = _resized(array, options.size)
        notes.append(f"resized to {array.shape[1]}x{array.shape[2]} (--size)")
    return Reading(Raster(array, (1.0, 1.0)), None, [], remarks=notes)


def _resized(array: np.ndarray, size: int) -> np.ndarray:
    """(channels, H, W) with a shorter side of `size`, by Lanczos filtering."""
    height, width = (round(side * size / min(array.shape[1:])) for side in array.shape[1:])
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS))
        for plane in array
    ]
    return np.rint(np.stack(planes)).clip(0, np.iinfo(array.dtype).max).astype(array.dtype)


def _dicom(path: Path) -> Reading:
    """One grey DICOM image; dark and bright as displayed. Raises: DataError if it is none."""
    import pydicom

    try:
        file = pydicom.dcmread(path)
        array = file.pixel_array
    except Exception as error:  # pydicom raises many kinds
        raise DataError(f"{path}: cannot be read as DICOM ({error}); expected an image; leave it out") from None
    if array.ndim != 2 or array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise DataError(f"{path}: pixels are {array.shape} {array.dtype}; expected one grey image of 8 or 16 bits")
    inverted = file.get("PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        array = (2 ** int(file.BitsStored) - 1 - array).astype(array.dtype)
    return Reading(Raster(array[None], (1.0, 1.0)), None, ["inverted (MONOCHROME1)"] if inverted else [])

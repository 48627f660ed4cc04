"""Rules shared by the converters of pictures: what is repaired, and what is refused.

Content decides, not the file name's ending; nothing is resized; pairs are found by stem, never by order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdm.data.case_io import label_dtype, one_channel
from jdm.data.picture_io import read_picture
from jdm.data.raster import KIND_OF_ENDING, Raster, ending_of, sniff
from jdm.data.raw_layout import few
from jdm.errors import ConfigError, DataError

TOLERANCE = 7
"""Grey levels by which lossy storage may move a mask value that is still taken for the declared one."""
THRESHOLD = 127
"""Grey levels above it are white in a mask of black and white."""
MAX_BETWEEN = 0.2
"""Share of pixels that may lie between black and white; lossy storage and soft borders make a few per cent."""
PICTURE_KINDS = ("png", "jpeg", "bmp", "tiff")


@dataclass(frozen=True)
class ValueMap:
    """Mask values in the source files, and the classes they mean."""

    values: tuple[int, ...]
    classes: tuple[int, ...]
    labels: dict[str, int]
    """Class by name, background 0, in the order given."""


def parse_value_map(items: tuple[str, ...]) -> ValueMap:
    """`("0=background", "255=nuclei")` to a map; a name given twice joins its values into one class.

    Raises: ConfigError naming the item that does not fit.
    """
    expected = "expected VALUE=NAME, background first, such as --labels 0=background 255=nuclei"
    values: list[int] = []
    classes: list[int] = []
    labels: dict[str, int] = {}
    for item in items:
        match = re.fullmatch(r"(\d{1,5})=([^=\s][^=]*)", item.strip())
        if not match:
            raise ConfigError(f"--labels {item!r}: {expected}")
        if int(match[1]) in values:
            raise ConfigError(f"--labels {item!r}: the value {match[1]} is given twice; {expected}")
        if match[2] == "ignore":
            raise ConfigError("--labels: an ignore label is not supported yet; leave out the cases that use it")
        values.append(int(match[1]))
        classes.append(labels.setdefault(match[2], len(labels)))
    if next(iter(labels), "") != "background" or len(labels) < 2:
        raise ConfigError(f"--labels {' '.join(items)!r}: {expected}")
    return ValueMap(tuple(values), tuple(classes), labels)


def list_pictures(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Pictures of a folder by stem, and the files left aside with the reason.

    Raises: DataError if the folder is missing or holds no picture, or if two stems are equal but for the ending or
        upper and lower case.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a folder of pictures; correct the path")
    chosen: dict[str, Path] = {}
    aside = []
    by_stem: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        reason = _aside(path)
        if reason:
            aside.append((path, reason))
            continue
        chosen[path.stem] = path
        by_stem.setdefault(path.stem.lower(), []).append(path.name)
    clashes = [" and ".join(names) for names in by_stem.values() if len(names) > 1]
    if clashes:
        raise DataError(
            f"{folder}: {len(clashes)} stems occur twice ({few(clashes)}); expected one picture per stem, upper "
            "and lower case not counted; rename or remove one of each"
        )
    if not chosen:
        raise DataError(f"{folder}: holds no pictures; expected PNG, JPEG, BMP or TIFF files; correct the path")
    return chosen, aside


def _aside(path: Path) -> str | None:
    """Why a folder entry is no candidate; None if it is one."""
    if path.name.startswith("."):
        return "hidden file"
    if path.is_dir():
        return "folder"
    if ending_of(path) in KIND_OF_ENDING:
        return None
    try:
        return None if sniff(path) in PICTURE_KINDS else "not a picture"
    except DataError:
        return "empty or unreadable, and not named as a picture"


def pair_by_stem(images: Mapping[str, Path], masks: Mapping[str, Path], where: tuple[Path, Path]) -> list[str]:
    """Stems that have both, sorted.

    Raises: DataError listing every image without a mask and every mask without an image.
    """
    no_mask, no_image = sorted(set(images) - set(masks)), sorted(set(masks) - set(images))
    parts = []
    if no_mask:
        parts.append(f"{len(no_mask)} images in {where[0]} have no mask of the same stem: {few(no_mask, 1000)}")
    if no_image:
        parts.append(f"{len(no_image)} masks in {where[1]} have no image of the same stem: {few(no_image, 1000)}")
    if parts:
        raise DataError("; ".join(parts) + "; expected equal stems; add, rename or remove these files")
    return sorted(images)


def read_source(path: Path, label: bool) -> tuple[Raster, str, list[str]]:
    """A picture by its content, its kind, and the repairs so far. Raises: DataError as `read_picture`."""
    kind = sniff(path)
    if kind not in PICTURE_KINDS:
        raise DataError(f"{path}: the content is of kind {kind}; expected PNG, JPEG, BMP or TIFF; save it anew")
    notes = []
    if KIND_OF_ENDING.get(ending_of(path)) != kind:
        notes.append(f"{path.name} is {kind.upper()} by its content")
    raster = read_picture(path, kind, label)
    if raster.dropped_alpha:
        notes.append(f"opaque alpha channel of {path.name} dropped")
    if raster.palette:
        notes.append(f"palette of {path.name} read as {'indices' if label else 'colours'}")
    return raster, kind, notes


def upright(image: Raster, mask: Raster, where: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Image (channels, y, x) and mask (channels, y, x), turned as their orientation tags say.

    A mask without a tag may have been drawn on the upright picture or on the stored pixels; where the sizes do not
    tell which, the pair is refused.
    Raises: DataError if that is so, or if the sizes differ.
    """
    first, second = image.orientation, mask.orientation
    turned = turn(image.array, first)
    if first == second:
        pair = turned, turn(mask.array, second)
    elif second == 1 and turned.shape[1:] != image.array.shape[1:]:
        on_upright = mask.array.shape[1:] == turned.shape[1:]
        pair = turned, mask.array if on_upright else turn(mask.array, first)
    else:
        raise DataError(
            f"{where}: the image has orientation tag {first}, the mask {second}, and the sizes do not tell how "
            "they lie on each other; save both upright, without the tag"
        )
    if pair[0].shape[1:] != pair[1].shape[1:]:
        raise DataError(
            f"{where}: the mask's size is {pair[1].shape[1:]} (height, width), the image's {pair[0].shape[1:]}; "
            "expected them equal; jdm never resizes, export the mask at the image's size"
        )
    return *pair, [f"turned upright (orientation tag {first})"] if first != 1 else []


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation tag (1 to 8) to (..., y, x). Source: EXIF 2.32, tag 0x0112."""
    if orientation in (2, 3):
        array = array[..., ::-1]
    if orientation in (3, 4):
        array = array[..., ::-1, :]
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, -1, -2)
        array = array[..., ::-1] if orientation in (6, 7) else array
        array = array[..., ::-1, :] if orientation in (7, 8) else array
    return np.ascontiguousarray(array)


def map_mask(mask: np.ndarray, kind: str, values: ValueMap, where: Path) -> tuple[np.ndarray, list[str]]:
    """Class indices (y, x), uint8, of a mask (channels, y, x), and the repairs.

    Equal channels are collapsed. Values within `TOLERANCE` of a declared one are taken for it where that is
    unambiguous; a JPEG mask of 0 and 255 is cut at > 127.
    Raises: DataError with the values that fit no class, if the channels differ, or if a JPEG mask is a photograph.
    """
    grey, notes = collapsed(mask, where)
    declared = np.array(values.values)
    exact = np.isin(grey, declared)
    if grey.dtype.kind == "f" or not exact.all():
        nearest = declared[_nearest(grey, declared)]
        if kind == "jpeg" and set(values.values) == {0, 255}:
            check_black_and_white(grey, where)
            nearest = np.where(grey > THRESHOLD, 255, 0)
            notes.append(f"{int((~exact).sum())} pixels of a JPEG mask cut at > {THRESHOLD}")
        else:
            _check_near(grey, nearest, declared, where)
            notes.append(f"{int((~exact).sum())} pixels moved to the nearest declared value")
        grey = nearest
    order = np.argsort(declared)
    classes = np.array(values.classes, label_dtype(max(values.classes) + 1))[order]
    return classes[np.searchsorted(declared[order], grey)], notes if not exact.all() or mask.shape[0] > 1 else []


def collapsed(mask: np.ndarray, where: Path) -> tuple[np.ndarray, list[str]]:
    """(y, x) of a mask (channels, y, x) with equal channels, and the repair. Raises: DataError if they differ."""
    notes = [] if mask.shape[0] == 1 else [f"{mask.shape[0]} equal channels collapsed"]
    return one_channel(mask, where), notes


def check_black_and_white(grey: np.ndarray, where: Path) -> None:
    """Raises: DataError if too much of a mask of 8 bits lies between black and white."""
    between = (grey > TOLERANCE) & (grey < 255 - TOLERANCE)
    if between.mean() > MAX_BETWEEN:
        raise DataError(
            f"{where}: {between.mean():.0%} of the mask's pixels are neither black nor white; expected a mask; this "
            "looks like a photograph, check that images and masks are not mixed up"
        )


def _nearest(grey: np.ndarray, declared: np.ndarray) -> np.ndarray:
    """Index into `declared` of the value nearest to each pixel."""
    found, inverse = np.unique(grey, return_inverse=True)
    return np.abs(found[:, None].astype(np.float64) - declared).argmin(axis=1)[inverse].reshape(grey.shape)


def _check_near(grey: np.ndarray, nearest: np.ndarray, declared: np.ndarray, where: Path) -> None:
    close = np.diff(np.sort(declared)).min() <= 2 * TOLERANCE
    far = np.abs(grey.astype(np.float64) - nearest) > (0 if close else TOLERANCE)
    if far.any():
        strange, counts = np.unique(grey[far], return_counts=True)
        seen = few([f"{v:g} ({n} pixels)" for v, n in zip(strange.tolist(), counts.tolist(), strict=True)], 12)
        raise DataError(
            f"{where}: the mask holds {seen}; expected only {', '.join(map(str, declared.tolist()))} as --labels "
            "says; name these values there, or correct the mask"
        )


def case_ids(stems: Iterable[str], split: str, taken: set[str]) -> dict[str, str]:
    """Case ids by stem: plain file names that no other case has, upper and lower case not counted.

    Args:
        taken: lower-case ids of other splits; the new ones are added. A test case that shares the id of a training
            case gets a prefix, since the guard against leakage compares ids.
    Raises: DataError if two stems would have the same id.
    """
    chosen: dict[str, str] = {}
    mine: dict[str, str] = {}
    for stem in stems:
        case_id = plain_name(stem)
        if case_id.lower() in taken:
            case_id = f"{split}_{case_id}"
        if case_id.lower() in taken or mine.setdefault(case_id.lower(), stem) != stem:
            raise DataError(
                f"{split}: the file {stem!r} would be the case {case_id!r}, which is there already; expected "
                "different names; rename one"
            )
        chosen[stem] = case_id
    taken.update(mine)
    return chosen


def plain_name(stem: str) -> str:
    """A stem in which anything but letters, digits, '.', '_' and '-' is '_'."""
    return re.sub(r"[^\w.-]", "_", stem).lstrip(".") or "_"

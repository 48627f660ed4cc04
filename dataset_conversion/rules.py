"""Rules shared by the converters: which files are used, how they are paired, what is repaired or refused.

The kind of a file is determined by its content, not its ending. Nothing is resized. Files are paired by stem, never by
order; stems are compared in Unicode NFC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from unicodedata import normalize

import numpy as np

from jdm.data.picture_io import read_picture
from jdm.data.raster import KIND_OF_ENDING, Raster, ending_of, sniff
from jdm.data.raw_layout import few
from jdm.errors import DataError

PICTURE_KINDS = ("png", "jpeg", "bmp", "tiff")


def list_pictures(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Pictures of a folder by stem, and the other files with the reason for leaving them out.

    Raises: DataError if the folder is missing or holds no picture, or if stems differ only in case.
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
        stem = normalize("NFC", path.stem)
        chosen[stem] = path
        by_stem.setdefault(stem.lower(), []).append(path.name)
    clashes = [" and ".join(names) for names in by_stem.values() if len(names) > 1]
    if clashes:
        raise DataError(
            f"{folder}: {len(clashes)} stems occur twice ({few(clashes)}); expected one picture for each, ignoring "
            "case; rename or remove one"
        )
    if not chosen:
        seen = few([path.name + ("/" if path.is_dir() else "") for path, _ in aside], 5) or "nothing"
        raise DataError(
            f"{folder}: holds no pictures, but {seen}; expected PNG, JPEG, BMP or TIFF files in the folder itself; "
            "correct the path, or put the files there"
        )
    return chosen, aside


def _aside(path: Path) -> str | None:
    """Why a folder entry is not a candidate; None if it is one."""
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
    """The common stems, sorted. Raises: DataError listing all images without a mask and masks without an image."""
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
        raise DataError(f"{path}: the content is of kind {kind}; expected PNG, JPEG, BMP or TIFF; save it again")
    notes = []
    if KIND_OF_ENDING.get(ending_of(path)) != kind:
        notes.append(f"{path.name} is {kind.upper()} by its content")
    raster = read_picture(path, kind, label)
    if raster.dropped_alpha:
        notes.append(f"transparency of {path.name}, which hides nothing, left out")
    if raster.palette:
        notes.append(f"palette of {path.name} read as {'indices' if label else 'colours'}")
    return raster, kind, notes


def upright(image: Raster, mask: Raster, where: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Image (channels, y, x) and mask (channels, y, x), turned according to their orientation tags.

    A mask without a tag may have been drawn on the upright picture or on the stored pixels.
    Raises: DataError if the sizes do not show which, or if they differ.
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
            f"{where}: the image has orientation tag {first}, its mask {second}, and the sizes do not show how the two "
            "align; save both upright, without the tag"
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


def case_ids(stems: Iterable[str], split: str, taken: set[str]) -> dict[str, str]:
    """Case ids by stem: plain file names that are unique when ignoring case.

    Args:
        taken: lower-case ids of other splits; the new ids are added. A test case with the id of a training case gets a
            prefix, because the leakage check compares ids.
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
                f"{split}: {stem!r} would become the case {case_id!r}, and so would another file; expected different "
                "names; rename one"
            )
        chosen[stem] = case_id
    taken.update(mine)
    return chosen


def plain_name(stem: str) -> str:
    """A stem with everything except letters, digits, '.', '_' and '-' replaced by '_'."""
    return re.sub(r"[^\w.-]", "_", normalize("NFC", stem)).lstrip(".") or "_"

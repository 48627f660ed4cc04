"""Nuclei of the 2018 Data Science Bowl (BBBC038). Source: Caicedo et al. 2019, "Nucleus segmentation across imaging
experiments: the 2018 Data Science Bowl".

Layout: `stage1_train/<id>/images/<id>.png` and `stage1_train/<id>/masks/*.png`, one mask per nucleus, and
`stage1_test/<id>/images/<id>.png` without masks; or the folders `images` and `masks` with one mask per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import Decoded, Picture, folder_pairs, picture_content
from dataset_conversion.rules import list_pictures, read_source, upright
from dataset_conversion.source import find_with, missing_layout
from dataset_conversion.source_options import Dsb2018Options
from dataset_conversion.target import Conversion
from jdm.data.raster import Raster
from jdm.errors import DataError

LABELS = {"background": 0, "nucleus": 1}
PUBLISHED = {"train": 670}
PUBLISHED_TEST = {"test": 65}
TEST_FOLDER = "stage1_test"


def convert_dsb2018(options: Dsb2018Options) -> Conversion:
    """Convert, and return what was made. Raises: as `convert`."""
    return convert(options, "dsb2018", "DSB2018", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    folders = find_with(root, ("images",), ("masks",))
    if not folders:
        raise missing_layout(root, "stage1_train with a folder per image, or the folders images and masks")
    if len(folders) == 1 and not _is_case(folders[0][0]):
        images, masks = folders[0]
        return picture_content(folder_pairs("train", images, masks, yes_or_no, ledger), LABELS)
    pictures = [_picture("train", images, masks, ledger) for images, masks in folders]
    without = {images for (images,) in find_with(root, ("images",))} - {images for images, _ in folders}
    test = [images for images in sorted(without) if images.parent.parent.name == TEST_FOLDER]
    pictures += [_picture("test", images, None, ledger) for images in test]
    published = PUBLISHED | (PUBLISHED_TEST if test else {})
    return picture_content(sorted(pictures, key=lambda p: (p.split, p.stem)), LABELS, published)


def _is_case(images: Path) -> bool:
    """Whether a folder `images` holds the one image of its parent."""
    return any(path.stem == images.parent.name for path in images.iterdir())


def _picture(split: str, images: Path, masks: Path | None, ledger: Ledger) -> Picture:
    """The case of one folder. Raises: DataError unless there is one image in it."""
    found, aside = list_pictures(images)
    if len(found) != 1:
        raise DataError(f"{images}: holds {len(found)} pictures; expected one; remove the others")
    stem, image = next(iter(found.items()))
    files: list[Path] = []
    if masks is not None:
        named, more = list_pictures(masks)
        files, aside = list(named.values()), aside + more
    for path, reason in aside:
        ledger.add("ignored", split, None, [path], [reason])
    return Picture(split, stem, image, partial(_nuclei, files) if masks is not None else None, tuple(files))


def _nuclei(files: Sequence[Path], image: Raster, where: Path) -> tuple[np.ndarray, Decoded]:
    """All nuclei of an image, one per file. A pixel that several claim belongs to the smallest of them.

    Raises: DataError if a mask cannot be used; the case is then refused as a whole.
    """
    notes: list[str] = []
    nuclei: list[np.ndarray] = []
    array = image.array
    for path in files:
        mask, kind, repairs = read_source(path, label=True)
        array, stored, turned = upright(image, mask, where)
        decoded = yes_or_no(stored, kind, path)
        if not decoded.label.any():
            notes.append(f"{path.name} is empty")
            continue
        nuclei.append(decoded.label.astype(bool))
        notes += [note for note in (*repairs, *turned, *decoded.notes) if note not in notes]
    instances = np.zeros(array.shape[1:], np.uint16)
    claims = np.zeros(array.shape[1:], np.uint16)
    for number in sorted(range(len(nuclei)), key=lambda n: -int(nuclei[n].sum())):
        instances[nuclei[number]] = number + 1
        claims += nuclei[number]
    twice = int((claims > 1).sum())
    notes += [f"{twice} pixels lie in several nuclei"] if twice else []
    return array, Decoded((instances > 0).astype(np.uint8), notes, instances)

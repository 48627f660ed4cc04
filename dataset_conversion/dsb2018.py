"""Nuclei of the 2018 Data Science Bowl (BBBC038). Source: Caicedo et al. 2019, "Nucleus segmentation across imaging
experiments: the 2018 Data Science Bowl".

Layout: `stage1_train/<id>/images/<id>.png` and `stage1_train/<id>/masks/*.png`, one mask per nucleus, and
`stage1_test/<id>/images/<id>.png` without masks, and in some copies `stage1_solution.csv` with them, a row per nucleus;
or the folders `images` and `masks` with one mask per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.options import Dsb2018Options
from dataset_conversion.pictures import Decoded, Picture, folder_pairs, picture_content
from dataset_conversion.rules import list_pictures, read_source, turn, upright
from dataset_conversion.source import find_with, missing_layout, visible
from dataset_conversion.tables import read_table
from dataset_conversion.target import Conversion
from jdm.data.raster import Raster
from jdm.errors import DataError

LABELS = {"background": 0, "nucleus": 1}
PUBLISHED = {"train": 670}
PUBLISHED_TEST = {"test": 65}
TEST_FOLDER = "stage1_test"
SOLUTION = "stage1_solution.csv"
SOLUTION_COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width")
Rows = dict[str, list[tuple[dict[str, str], Path]]]
"""Table rows by image, each with the path of its table."""


def convert_dsb2018(options: Dsb2018Options) -> Conversion:
    """Convert the dataset. Raises: as `convert`."""
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
    solution = _solution(root, ledger) if test else {}
    tests = [_picture("test", images, None, ledger, solution) for images in test]
    unsolved = [picture.stem for picture in tests if picture.annotate is None]
    if solution and unsolved:
        some = ", ".join(unsolved[:5])
        ledger.notes.append(f"{SOLUTION} has no rows for {len(unsolved)} test images, which have no masks: {some}")
    pictures += tests
    published = PUBLISHED | (PUBLISHED_TEST if test else {})
    return picture_content(sorted(pictures, key=lambda p: (p.split, p.stem)), LABELS, published)


def _is_case(images: Path) -> bool:
    """Whether a folder `images` holds the one image of its parent."""
    return any(path.stem == images.parent.name for path in images.iterdir())


def _solution(root: Path, ledger: Ledger) -> Rows:
    """Rows of the table of test nuclei, by image; none if there is no table.

    Raises: DataError if it cannot be read or lacks a column.
    """
    path = next((p for p in visible(root) if p.name == SOLUTION), None)
    if path is None:
        ledger.notes.append(f"no {SOLUTION}: the test images have no masks")
        return {}
    found: Rows = {}
    for row in read_table(path, SOLUTION_COLUMNS)[0]:
        found.setdefault(row["ImageId"], []).append((row, path))
    return found


def _picture(split: str, images: Path, masks: Path | None, ledger: Ledger, solution: Rows | None = None) -> Picture:
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
    if solution and stem in solution:
        return Picture(split, stem, image, partial(_solved, solution[stem]), (solution[stem][0][1],))
    return Picture(split, stem, image, partial(_nuclei, files) if masks is not None else None, tuple(files))


def _solved(rows: Sequence[tuple[dict[str, str], Path]], image: Raster, where: Path) -> tuple[np.ndarray, Decoded]:
    """All nuclei of a test image. Raises: DataError if any row cannot be used, so that the case is refused."""
    array = turn(image.array, image.orientation)
    shape = array.shape[1:]
    nuclei = []
    for row, path in rows:
        if (row["Height"], row["Width"]) != tuple(map(str, shape)):
            raise DataError(
                f"{path}: {row['ImageId']} has {row['Height']} x {row['Width']} pixels, {where} {shape[0]} x "
                f"{shape[1]}; expected them equal; get the original table"
            )
        nuclei.append(decode_runs(row["EncodedPixels"], (shape[0], shape[1]), path))
    return array, _joined(nuclei, shape, [])


def decode_runs(text: str, shape: tuple[int, int], path: Path) -> np.ndarray:
    """Decode the run lengths "start length start length ..." to a mask, bool (y, x).

    Pixels are counted from 1, column by column from the top.
    Raises: DataError naming `path`, unless the text is pairs of numbers and all runs lie inside the image.
    """
    words = text.split()
    mask = np.zeros(shape[0] * shape[1], bool)
    if len(words) % 2 or not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise DataError(f"{path}: EncodedPixels is {text[:60]!a}; expected pairs of start and length; get it again")
    for start, length in zip(map(int, words[::2]), map(int, words[1::2]), strict=True):
        if start < 1 or start - 1 + length > mask.size:
            raise DataError(f"{path}: the run {start} {length} leaves the image of {shape}; get the original table")
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(shape, order="F")


def _nuclei(files: Sequence[Path], image: Raster, where: Path) -> tuple[np.ndarray, Decoded]:
    """All nuclei of an image, one per file. A pixel in several nuclei belongs to the smallest of them.

    Raises: DataError if any mask cannot be used, so that the case is refused.
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
    return array, _joined(nuclei, array.shape[1:], notes)


def _joined(nuclei: Sequence[np.ndarray], shape: tuple[int, ...], notes: list[str]) -> Decoded:
    """Merge masks of single nuclei; a pixel in several of them belongs to the smallest."""
    instances, claims = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    for number in sorted(range(len(nuclei)), key=lambda n: -int(nuclei[n].sum())):
        instances[nuclei[number]] = number + 1
        claims += nuclei[number]
    twice = int((claims > 1).sum())
    notes += [f"{twice} pixels lie in several nuclei"] if twice else []
    return Decoded((instances > 0).astype(np.uint8), notes, instances)

"""IDRiD, lesions of the retina: 54 training and 27 test images, 4288x2848; or, see `idrid_grading`, graded images.

Layout: `A. Segmentation/1. Original Images/{a. Training Set,b. Testing Set}/IDRiD_NN.jpg` and `2. All Segmentation
Groundtruths/{a. Training Set,b. Testing Set}/{1. Microaneurysms,...,5. Optic Disc}/IDRiD_NN_{MA,HE,EX,SE,OD}.tif`. An
image without a lesion has no file for it. Source: Porwal et al. 2018, "Indian Diabetic Retinopathy Image Dataset".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Content, convert
from dataset_conversion.idrid_grading import TABLES, gather_grading
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import any_colour
from dataset_conversion.options import IdridOptions
from dataset_conversion.pictures import Decoded, Picture, picture_content
from dataset_conversion.rules import list_pictures, read_source, upright
from dataset_conversion.source import child, missing_layout, visible
from dataset_conversion.target import Conversion
from jdm.data.raster import Raster
from jdm.errors import ConfigError, DataError

CLASSES = {"MA": "microaneurysm", "HE": "haemorrhage", "EX": "hard_exudate", "SE": "soft_exudate", "OD": "optic_disc"}
LABELS = {"background": 0} | {name: i for i, name in enumerate(CLASSES.values(), 1)}
PUBLISHED = {"train": 54, "test": 27}
PUBLISHED_MASKS = {"MA": 81, "HE": 80, "EX": 81, "SE": 40, "OD": 81}
"""Number of images with a mask of each class, from idrid.grand-challenge.org/Data."""
_SPLITS = {"train": "a. Training Set", "test": "b. Testing Set"}
_MASK = re.compile(r"(IDRiD_\d+)_([A-Z]{2})")


def convert_idrid(options: IdridOptions) -> Conversion:
    """Convert to five classes, numbered as in `CLASSES`.

    Where classes overlap, a pixel belongs to the first of them in `options.priority`.
    If the source is the disease grading, its images have a grade and no mask.
    Raises: as `convert`; ConfigError unless the priority names each class once, or for a size that is out of range.
    """
    if sorted(options.priority) != sorted(CLASSES):
        raise ConfigError(
            f"--priority {' '.join(options.priority)}: expected each of {' '.join(CLASSES)} once; correct it"
        )
    if options.size is not None and options.size < 8:
        raise ConfigError(f"--size is {options.size}; expected at least 8 pixels; correct it")
    asked = {"priority where classes overlap": " before ".join(options.priority)}
    return convert(options, "idrid", "IDRiD", partial(_gather, options), asked)


def _gather(options: IdridOptions, root: Path, ledger: Ledger) -> Content:
    if any(path.name in TABLES.values() for path in visible(root)):
        return gather_grading(options, root, ledger)
    if options.size is not None:
        raise ConfigError("--size is of the disease grading (B); masks are not resized; leave it out")
    priority = options.priority
    pictures: list[Picture] = []
    masks: Counter[str] = Counter()
    for split, name in _SPLITS.items():
        for folder in [f for f in visible(root, folders=True) if f.name == name]:
            if child(folder, "1. Microaneurysms") is None:
                pictures += _images(split, folder, root, priority, masks, ledger)
    if not any(picture.split == "train" for picture in pictures):
        raise missing_layout(root, "'1. Original Images' and '2. All Segmentation Groundtruths', each with two sets")
    ledger.compare(masks, {f"masks {code}": number for code, number in PUBLISHED_MASKS.items()})
    return picture_content(pictures, LABELS, PUBLISHED)


def _images(
    split: str, folder: Path, root: Path, priority: tuple[str, ...], counts: Counter[str], ledger: Ledger
) -> list[Picture]:  # fmt: skip
    """Images of a split, each with its masks; a lesion without a mask file is absent."""
    images, aside = list_pictures(folder)
    for path, reason in aside:
        ledger.add("ignored", split, None, [path], [reason])
    masks: dict[str, dict[str, Path]] = {stem: {} for stem in images}
    for path in visible(root):
        match = _MASK.fullmatch(path.stem)
        if not match or _SPLITS[split] not in path.parts:
            continue
        if match[2] not in CLASSES or match[1] not in images:
            raise DataError(f"{path}: belongs to no image of {folder}; expected IDRiD_NN_{{{','.join(CLASSES)}}}")
        if masks[match[1]].setdefault(match[2], path) != path:
            raise DataError(f"{path}: also exists as {masks[match[1]][match[2]]}; expected it once; remove one")
        counts[f"masks {match[2]}"] += 1
    if not any(masks.values()):
        raise DataError(
            f"{folder}: no image has a mask (IDRiD_NN_MA.tif and so on); expected '2. All Segmentation Groundtruths' "
            "beside the images; download it too"
        )
    return [
        Picture(split, stem, path, partial(_lesions, masks[stem], priority), tuple(masks[stem].values()))
        for stem, path in sorted(images.items())
    ]


def _lesions(
    masks: Mapping[str, Path], priority: tuple[str, ...], image: Raster, where: Path
) -> tuple[np.ndarray, Decoded]:
    """The image and its classes. Raises: DataError if any mask cannot be used, so that the case is refused."""
    array, label, notes = image.array, None, []
    overlap = 0
    for code in reversed(priority):  # so that the first is painted last
        if code not in masks:
            continue
        mask, kind, repairs = read_source(masks[code], label=True)
        array, stored, turned = upright(image, mask, where)
        found = any_colour(stored, kind, masks[code])
        label = np.zeros(array.shape[1:], np.uint8) if label is None else label
        pixels = found.label.astype(bool)
        overlap += int((label[pixels] > 0).sum())
        label[pixels] = LABELS[CLASSES[code]]
        notes += [note for note in (*repairs, *turned, *found.notes) if note not in notes]
    if label is None:
        if image.orientation != 1:
            raise DataError(f"{where}: has orientation tag {image.orientation} and no mask; save it upright")
        label = np.zeros(array.shape[1:], np.uint8)
    missing = [code for code in CLASSES if code not in masks]
    remarks = [f"no file for {', '.join(missing)}: empty"] if missing else []
    remarks += [f"{overlap} pixels in several classes"] if overlap else []
    return array, Decoded(label, notes, None, remarks)

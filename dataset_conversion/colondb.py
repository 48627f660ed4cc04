"""CVC-ColonDB: 300 frames of 15 sequences, or the 380 images that PraNet ships under the same name.

Layout: `N.bmp` with polyp mask `pN.bmp`, non-informative region `sN.bmp` and contour `cN.bmp` in one folder, as
mv.cvc.uab.es/projects/colon-qa/cvccolondb describes it (Bernal et al. 2012); or folders `images` and `masks`.
"""

from __future__ import annotations

import re
from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import Picture, folder_pairs, from_mask, picture_content
from dataset_conversion.polyp_sets import LABELS, image_and_mask_folders
from dataset_conversion.rules import list_pictures, pair_by_stem
from dataset_conversion.source import find_with, missing_layout, visible
from dataset_conversion.source_options import ColonDbOptions
from dataset_conversion.target import Conversion

PUBLISHED_ORIGINAL, PUBLISHED_PRANET = {"train": 300}, {"train": 380}
_KINDS = {"s": "mask of the non-informative region", "c": "contour of the polyp"}


def convert_colondb(options: ColonDbOptions) -> Conversion:
    """Convert, and return what was made. Raises: as `convert`."""
    return convert(options, "colondb", "CVCColonDB", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    ledger.notes.append("frames are of few sequences, which their names do not tell: folds may share a sequence")
    if find_with(root, ("images", "image"), ("masks", "mask")):
        images, masks = image_and_mask_folders(root, "the folders images and masks", ledger)
        return picture_content(folder_pairs("train", images, masks, yes_or_no, ledger), LABELS, PUBLISHED_PRANET)
    for folder in visible(root, folders=True):
        if any(re.fullmatch(r"p\d+", path.stem) for path in folder.iterdir()):
            return picture_content(_flat(folder, ledger), LABELS, PUBLISHED_ORIGINAL)
    raise missing_layout(root, "the files N.bmp and pN.bmp in one folder, or the folders images and masks")


def _flat(folder: Path, ledger: Ledger) -> list[Picture]:
    """Images N and masks pN of one folder."""
    pictures, aside = list_pictures(folder)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for stem, path in pictures.items():
        match = re.fullmatch(r"([psc]?)(\d+)", stem)
        if match and match[1] in ("", "p"):
            (masks if match[1] else images)[match[2]] = path
        else:
            aside.append((path, _KINDS[match[1]] if match else "neither an image N nor a mask pN"))
    for path, reason in aside:
        ledger.add("ignored", "train", None, [path], [reason])
    return [
        Picture("train", stem, images[stem], from_mask(masks[stem], yes_or_no), (masks[stem],))
        for stem in pair_by_stem(images, masks, (folder, folder))
    ]

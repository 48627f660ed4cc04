"""CVC-300: 60 images, 574x500, `CVC-300/{images,masks}`, the test part of EndoScene as PraNet ships it.

Source: Vazquez et al. 2017, "A benchmark for endoluminal scene segmentation of colonoscopy images".
"""

from __future__ import annotations

from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import folder_pairs, picture_content
from dataset_conversion.polyp_sets import LABELS, image_and_mask_folders
from dataset_conversion.source_options import Cvc300Options
from dataset_conversion.target import Conversion

PUBLISHED = {"train": 60}


def convert_cvc300(options: Cvc300Options) -> Conversion:
    """Convert, and return what was made. Raises: as `convert`."""
    return convert(options, "cvc300", "CVC300", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    images, masks = image_and_mask_folders(root, "CVC-300/images and CVC-300/masks", ledger)
    ledger.notes.append("CVC-300 shares sequences with CVC-ColonDB: do not train on one to test on the other")
    return picture_content(folder_pairs("train", images, masks, yes_or_no, ledger), LABELS, PUBLISHED)

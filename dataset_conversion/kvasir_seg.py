"""Kvasir-SEG: 1000 polyps, `Kvasir-SEG/{images,masks}/cju*.jpg`. Source: Jha et al. 2020, "Kvasir-SEG"."""

from __future__ import annotations

from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import folder_pairs, picture_content
from dataset_conversion.polyp_sets import LABELS, image_and_mask_folders
from dataset_conversion.source_options import KvasirSegOptions
from dataset_conversion.target import Conversion

PUBLISHED = {"train": 1000}


def convert_kvasir_seg(options: KvasirSegOptions) -> Conversion:
    """Convert, and return what was made. Masks are JPEG: cut at > 127. Raises: as `convert`."""
    return convert(options, "kvasir-seg", "KvasirSEG", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    images, masks = image_and_mask_folders(root, "Kvasir-SEG/images and Kvasir-SEG/masks", ledger)
    return picture_content(folder_pairs("train", images, masks, yes_or_no, ledger), LABELS, PUBLISHED)

"""ETIS-LaribPolypDB: 196 frames, 1225x966, `ETIS-LaribPolypDB/N.tif` and `Ground Truth/pN.tif`.

Source: Silva et al. 2014, "Toward embedded detection of polyps in WCE images for early diagnosis of colorectal
cancer". PraNet ships the same as `images` and `masks` with equal names.
"""

from __future__ import annotations

from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import folder_pairs, picture_content
from dataset_conversion.polyp_sets import LABELS, image_and_mask_folders
from dataset_conversion.source_options import EtisOptions
from dataset_conversion.target import Conversion

PUBLISHED = {"train": 196}


def convert_etis(options: EtisOptions) -> Conversion:
    """Convert, and return what was made. Raises: as `convert`."""
    return convert(options, "etis", "ETISLarib", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    images, masks = image_and_mask_folders(
        root, "the folders ETIS-LaribPolypDB and Ground Truth", ledger,
        ("ETIS-LaribPolypDB", "images", "image"), ("Ground Truth", "GroundTruth", "Ground_Truth", "masks", "mask"),
    )  # fmt: skip
    pictures = folder_pairs(
        "train", images, masks, yes_or_no, ledger, mask_stem=lambda stem: stem.removeprefix("p")
    )  # fmt: skip
    return picture_content(pictures, LABELS, PUBLISHED)

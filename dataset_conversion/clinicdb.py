"""CVC-ClinicDB: 612 frames of 29 sequences, 384x288. Source: Bernal et al. 2015, "WM-DOVA maps".

Layout: `Original/N.tif` and `Ground Truth/N.tif`; a common mirror has `PNG/` and `TIF/` above them.
"""

from __future__ import annotations

import bisect
from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import folder_pairs, picture_content
from dataset_conversion.polyp_sets import LABELS, image_and_mask_folders
from dataset_conversion.source_options import ClinicDbOptions
from dataset_conversion.target import Conversion

PUBLISHED = {"train": 612}
LAST_FRAMES = (
    25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317, 342, 363, 383, 408, 428, 447, 466, 478, 503,
    528, 546, 571, 591, 612,
)  # fmt: skip
"""Number of the last frame of each sequence, as polyp.grand-challenge.org/CVCClinicDB lists them."""


def sequence_of(stem: str) -> str | None:
    """The sequence of the frame `stem`; None if that is no frame number of the dataset."""
    if not (stem.isascii() and stem.isdigit() and 1 <= int(stem) <= LAST_FRAMES[-1]):
        return None
    return f"sequence_{bisect.bisect_left(LAST_FRAMES, int(stem)) + 1:02d}"


def convert_clinicdb(options: ClinicDbOptions) -> Conversion:
    """Convert, and return what was made; folds keep sequences together. Raises: as `convert`."""
    return convert(options, "clinicdb", "CVCClinicDB", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    images, masks = image_and_mask_folders(
        root, "the folders Original and Ground Truth", ledger,
        ("Original", "images", "image"), ("Ground Truth", "GroundTruth", "Ground_Truth", "masks", "mask"),
    )  # fmt: skip
    pictures = folder_pairs("train", images, masks, yes_or_no, ledger, group=sequence_of)
    strange = [p.stem for p in pictures if p.group is None]
    if strange:
        ledger.notes.append(f"{len(strange)} names are no frame numbers 1 to 612, so their sequence is unknown")
    return picture_content(pictures, LABELS, PUBLISHED)

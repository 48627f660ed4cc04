"""The polyp archives of PraNet: one training set and five test sets. Source: Fan et al. 2020, "PraNet".

Layout: `TrainDataset/{image,mask}` or `{images,masks}` (both occur): 900 images of Kvasir-SEG and 550 of CVC-ClinicDB;
`TestDataset/{Kvasir,CVC-ClinicDB,CVC-ColonDB,CVC-300,ETIS-LaribPolypDB}/{images,masks}`.
"""

from __future__ import annotations

from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.clinicdb import sequence_of
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.pictures import Picture, folder_pairs, picture_content
from dataset_conversion.polyp_sets import IMAGES, LABELS, MASKS
from dataset_conversion.source import find_with, missing_layout
from dataset_conversion.source_options import PolypOptions
from dataset_conversion.target import Conversion
from jdm.errors import DataError

TRAIN, CLINIC = "TrainDataset", "CVC-ClinicDB"
PUBLISHED = {
    "train": 1450, "test Kvasir": 100, f"test {CLINIC}": 62, "test CVC-ColonDB": 380, "test CVC-300": 60,
    "test ETIS-LaribPolypDB": 196,
}  # fmt: skip


def convert_polyp(options: PolypOptions) -> Conversion:
    """Convert, and return what was made. Raises: as `convert`; DataError if there is no training set."""
    return convert(options, "polyp", "Polyp", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    pictures: list[Picture] = []
    for images, masks in find_with(root, IMAGES, MASKS):
        pictures += _training(images, masks, ledger) if images.parent.name == TRAIN else _test(images, masks, ledger)
    parts = [p.part for p in pictures]
    if "train" not in parts:
        raise missing_layout(root, f"{TRAIN} with images and masks, and TestDataset beside it")
    shared = sorted({p.group for p in pictures if p.split == "train" and p.group} & set(_sequences_of_test(pictures)))
    if shared:
        ledger.notes.append(
            f"{len(shared)} sequences of {CLINIC} have frames in training and in test: the published split is by "
            f"frame, so results on test {CLINIC} flatter"
        )
    return picture_content(pictures, LABELS, PUBLISHED)


def _training(images: Path, masks: Path, ledger: Ledger) -> list[Picture]:
    """Frames of ClinicDB are named by number, and grouped by their sequence; images of Kvasir are by themselves."""
    return folder_pairs("train", images, masks, yes_or_no, ledger, group=sequence_of, part="train")


def _test(images: Path, masks: Path, ledger: Ledger) -> list[Picture]:
    name = images.parent.name
    part = f"test {name}"
    if part not in PUBLISHED:
        known = ", ".join(p.removeprefix("test ") for p in list(PUBLISHED)[1:])
        raise DataError(
            f"{images.parent}: is neither {TRAIN} nor one of its test sets ({known}); rename it, or name the folder "
            "above TrainDataset and TestDataset alone"
        )
    group = sequence_of if name == CLINIC else lambda _: None
    # the sets number their images alike, so ids carry the name of the set
    return folder_pairs(
        "test", images, masks, yes_or_no, ledger, stem=lambda s: f"{name}_{s}", group=group, part=part
    )  # fmt: skip


def _sequences_of_test(pictures: list[Picture]) -> list[str]:
    return [p.group for p in pictures if p.split == "test" and p.group]

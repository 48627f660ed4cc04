"""Chest X-rays of children with and without pneumonia: 5216 training, 16 validation and 624 test images.

Layout: `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`; archives hold a second copy in `chest_xray/chest_xray`.
Source: Kermany et al. 2018, "Identifying medical diagnoses and treatable diseases by image-based deep learning".
"""

from __future__ import annotations

import re
from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import ChestXrayOptions
from dataset_conversion.rules import list_pictures
from dataset_conversion.source import find_with, missing_layout
from dataset_conversion.target import Conversion
from dataset_conversion.xrays import Xray, xray_content

PARTS, CLASSES = ("train", "val", "test"), ("NORMAL", "PNEUMONIA")
PUBLISHED = {"train": 5216, "val": 16, "test": 624}


def convert_chest_xray(options: ChestXrayOptions) -> Conversion:
    """Convert images with a class and no mask. Raises: as `convert`."""
    return convert(options, "chest-xray", "ChestXray", _gather)


def patient_of(stem: str, label: str) -> str | None:
    """The patient in a file name such as person12_bacteria_34, IM-0115-0001, NORMAL2-IM-1427-0001.

    Classes number their patients separately.
    """
    match = re.fullmatch(r"(person\d+)_.*|((?:NORMAL2-)?IM-\d+)-.*", stem)
    return f"{label}_{match[1] or match[2]}" if match else None


def _gather(root: Path, ledger: Ledger) -> Content:
    xrays: list[Xray] = []
    seen: set[str] = set()
    for folders in find_with(root, *((name,) for name in CLASSES)):
        part = folders[0].parent.name.lower()
        if part not in PARTS or part in seen:
            ledger.add("ignored", "test", None, folders, ["a copy, or none of train, val and test"])
            continue
        seen.add(part)
        for label, folder in zip(CLASSES, folders, strict=True):
            pictures, aside = list_pictures(folder)
            for path, reason in aside:
                ledger.add("ignored", "test", None, [path], [reason])
            # the parts use the same image numbers, so ids include part and class
            xrays += [
                Xray(f"{part}_{label}_{stem}", path, label, part, patient_of(stem, label))
                for stem, path in sorted(pictures.items())
            ]
    if not xrays:
        raise missing_layout(root, "train, val and test, each with NORMAL and PNEUMONIA")
    return xray_content(xrays, ledger, PUBLISHED)

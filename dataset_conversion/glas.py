"""GlaS, glands in colon histology: 85 training images, 60 test A, 20 test B.

Layout: one folder with `train_N.bmp`, `testA_N.bmp`, `testB_N.bmp`, each with `_anno.bmp` in which every gland has a
number, and Grade.csv. Source: Sirinukunwattana et al. 2017, "Gland segmentation in colon histology images".
"""

from __future__ import annotations

import re
from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import numbered
from dataset_conversion.options import GlasOptions
from dataset_conversion.pictures import Picture, from_mask, picture_content
from dataset_conversion.rules import list_pictures, pair_by_stem
from dataset_conversion.source import missing_layout, visible
from dataset_conversion.tables import read_table
from dataset_conversion.target import Conversion

LABELS = {"background": 0, "gland": 1}
PUBLISHED = {"train": 85, "testA": 60, "testB": 20}
GRADES = "Grade.csv"
GRADE = "grade (GlaS)"
"""Its column with benign or malignant."""
_NAME = re.compile(r"(train|testA|testB)_(\d+)(_anno)?")


def convert_glas(options: GlasOptions) -> Conversion:
    """Convert; folds keep patients together. Raises: as `convert`."""
    return convert(options, "glas", "GlaS", _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    folder = next((path.parent for path in visible(root) if _NAME.fullmatch(path.stem)), None)
    if folder is None:
        raise missing_layout(root, "the files train_1.bmp, train_1_anno.bmp, ... in one folder")
    pictures, aside = list_pictures(folder)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for stem, path in pictures.items():
        match = _NAME.fullmatch(stem)
        if match:
            (masks if match[3] else images)[f"{match[1]}_{match[2]}"] = path
        else:
            aside.append((path, "named neither like train_1 nor like train_1_anno"))
    for path, reason in aside:
        if path.name != GRADES:
            ledger.add("ignored", "train", None, [path], [reason])
    patients, grades, files = _grades(folder, images, ledger)
    found = [
        Picture(
            "train" if stem.startswith("train") else "test", stem, images[stem], from_mask(masks[stem], numbered),
            (masks[stem],), patients.get(stem), stem.split("_")[0], grades.get(stem),
        )
        for stem in pair_by_stem(images, masks, (folder, folder))
    ]  # fmt: skip
    return picture_content(found, LABELS, PUBLISHED, files)


def _grades(
    folder: Path, images: dict[str, Path], ledger: Ledger
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Patient by image, grade by image, and the table to keep. Without the table all are empty, with a note."""
    path = folder / GRADES
    if not path.is_file():
        ledger.notes.append(f"there is no {GRADES}: patients and grades are unknown")
        return {}, {}, {}
    rows, text = read_table(path, ("name", "patient ID"))
    patients = {row["name"]: f"patient_{row['patient ID']}" for row in rows if row["patient ID"]}
    lacking = sorted(set(images) - set(patients))
    if lacking:
        ledger.notes.append(f"{GRADES} has no patient for {len(lacking)} images, such as {lacking[0]}")
    return patients, {row["name"]: row[GRADE] for row in rows if row.get(GRADE)}, {GRADES: text}

"""IDRiD's disease grading: 413 training and 103 test images of the retina with a grade of retinopathy, 0 to 4.

Layout: `B. Disease Grading/1. Original Images/{a. Training Set,b. Testing Set}/IDRiD_NNN.jpg`, and in `2. Groundtruths`
two tables (see `TABLES`) with, among others, the columns `Image name` and `Retinopathy grade`. Both sets number their
images from 001. Source: Porwal et al. 2018, "Indian Diabetic Retinopathy Image Dataset".
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dataset_conversion.cases import Content, Item
from dataset_conversion.classes import read_picture
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import ClassesOptions, IdridOptions
from dataset_conversion.rules import list_pictures
from dataset_conversion.source import missing_layout, visible
from dataset_conversion.tables import read_table
from jdm.data.labels import NO_MASKS
from jdm.errors import DataError

TABLES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}
GRADES = ("0", "1", "2", "3", "4")
PUBLISHED = {"train": 413, "test": 103}
_FOLDERS = {"train": "a. Training Set", "test": "b. Testing Set"}


def gather_grading(options: IdridOptions, root: Path, ledger: Ledger) -> Content:
    """Images with their grades as classes grade_0 to grade_4.

    Raises: DataError if a set lacks its images or table, or the segmentation lies beside them.
    """
    if beside := [folder for folder in visible(root, folders=True) if folder.name.startswith("2. All Segmentation")]:
        raise DataError(
            f"{root}: holds {beside[0].parent.name} and the disease grading; expected one of them; name its folder"
        )
    form = ClassesOptions(options.source, options.id, crop_centre=options.size is not None, size=options.size)
    items = []
    for split, name in TABLES.items():
        table = next((path for path in visible(root) if path.name == name), None)
        folder = next((path for path in visible(root, folders=True) if path.name == _FOLDERS[split]), None)
        if table is None or folder is None:
            raise missing_layout(root, f"the table {name} and images in {_FOLDERS[split]}")
        images, aside = list_pictures(folder)
        for path, reason in aside:
            ledger.add("ignored", split, None, [path], [reason])
        grades = _grades(table)
        if lacking := sorted({*images} ^ {*grades}):
            raise DataError(
                f"{table}: images and rows differ in {len(lacking)} names, such as {lacking[0]}; expected a grade for "
                f"each image of {folder.name}; download both again"
            )
        items += [
            Item(split, f"{split}_{stem}", (path,), partial(read_picture, path, form, True), class_name=grades[stem])
            for stem, path in sorted(images.items())
        ]
    return Content(items, NO_MASKS, ".png", ("red", "green", "blue"), PUBLISHED, masks=False)


def _grades(table: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in read_table(table, ("Image name", "Retinopathy grade"))[0]:
        name, grade = row["Image name"], row["Retinopathy grade"]
        if not name:
            continue
        if grade not in GRADES or name in found:
            raise DataError(
                f"{table}: image {name} has the grade {grade[:20]!r}{' and is listed twice' if name in found else ''}; "
                "expected 0 to 4, once; correct it"
            )
        found[name] = f"grade_{grade}"
    return found

"""MoNuSeg 2018: nuclei in H&E stained tissue, 1000x1000; 37 training images (30 in the classic set), 14 test images.

Layout: `MoNuSeg 2018 Training Data/{Tissue Images/*.tif,Annotations/*.xml}` (often doubled) and
`MoNuSegTestData/*.{tif,xml}`; outlines in Aperio ImageScope's XML. Source: Kumar et al. 2017, "A dataset and a
technique for generalized nuclear segmentation for computational pathology", and Kumar et al. 2020, "A multi-organ
nucleus segmentation challenge".
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.aperio import read_outlines
from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import MonusegOptions
from dataset_conversion.pictures import Decoded, Picture, picture_content
from dataset_conversion.polygons import inside_polygon, number_polygons
from dataset_conversion.rules import pair_by_stem
from dataset_conversion.source import missing_layout, visible
from dataset_conversion.target import Conversion
from jdm.data.raster import Raster, ending_of
from jdm.errors import DataError

LABELS = {"background": 0, "nucleus": 1}
CLASSIC, ALL = "classic", "all"
CLASSIC_IDS = frozenset(
    {
        "TCGA-18-5592-01Z-00-DX1", "TCGA-21-5784-01Z-00-DX1", "TCGA-21-5786-01Z-00-DX1", "TCGA-38-6178-01Z-00-DX1",
        "TCGA-49-4488-01Z-00-DX1", "TCGA-50-5931-01Z-00-DX1", "TCGA-A7-A13E-01Z-00-DX1", "TCGA-A7-A13F-01Z-00-DX1",
        "TCGA-AR-A1AK-01Z-00-DX1", "TCGA-AR-A1AS-01Z-00-DX1", "TCGA-AY-A8YK-01A-01-TS1", "TCGA-B0-5698-01Z-00-DX1",
        "TCGA-B0-5710-01Z-00-DX1", "TCGA-B0-5711-01Z-00-DX1", "TCGA-CH-5767-01Z-00-DX1", "TCGA-DK-A2I6-01A-01-TS1",
        "TCGA-E2-A14V-01Z-00-DX1", "TCGA-E2-A1B5-01Z-00-DX1", "TCGA-G2-A2EK-01A-02-TSB", "TCGA-G9-6336-01Z-00-DX1",
        "TCGA-G9-6348-01Z-00-DX1", "TCGA-G9-6356-01Z-00-DX1", "TCGA-G9-6362-01Z-00-DX1", "TCGA-G9-6363-01Z-00-DX1",
        "TCGA-HE-7128-01Z-00-DX1", "TCGA-HE-7129-01Z-00-DX1", "TCGA-HE-7130-01Z-00-DX1", "TCGA-KB-A93J-01A-01-TS1",
        "TCGA-NH-A8F7-01A-01-TS1", "TCGA-RD-A8N9-01A-01-TS1",
    }
)  # fmt: skip
"""The training set of 2017, used by most papers."""
PUBLISHED = {CLASSIC: 30, ALL: 37}
PUBLISHED_TEST = 14
MOST_OF_IMAGE = 0.75
"""An outline that covers more than this share of the image is not a nucleus, whatever its type."""


def convert_monuseg(options: MonusegOptions) -> Conversion:
    """Convert with nuclei as one class, and their numbers in instancesTr and instancesTs.

    Raises: as `convert`; DataError for images without annotation or annotations without image.
    """
    return convert(options, "monuseg", "MoNuSeg", partial(_gather, options.cases), {"cases": options.cases})


def _gather(cases: str, root: Path, ledger: Ledger) -> Content:
    pictures: list[Picture] = []
    for split in ("train", "test"):
        images, outlines = _files(root, split, ledger)
        where = (root, root)
        for stem in pair_by_stem(images, outlines, where):
            if split == "train" and cases == CLASSIC and stem not in CLASSIC_IDS:
                reason = "not among the classic 30 (--cases all takes it)"
                ledger.add("ignored", split, None, [images[stem], outlines[stem]], [reason])
                continue
            annotate = partial(_nuclei, outlines[stem])
            pictures.append(Picture(split, stem, images[stem], annotate, (outlines[stem],), _patient(stem)))
    if not any(picture.split == "train" for picture in pictures):
        raise missing_layout(
            root, "'Tissue Images' (.tif) and 'Annotations' (.xml) of the training archive, and MoNuSegTestData beside"
        )
    published = {"train": PUBLISHED[cases]}
    if any(picture.split == "test" for picture in pictures):
        published["test"] = PUBLISHED_TEST
    else:
        ledger.notes.append("there is no test folder; put MoNuSegTestData beside the training data to have one")
    return picture_content(pictures, LABELS, published)


def _patient(stem: str) -> str | None:
    """TCGA names begin with project, site and patient."""
    return "-".join(stem.split("-")[:3]) if stem.startswith("TCGA-") else None


def _split(folder: Path) -> str:
    """Training data have folders of these names; the test archive is one folder."""
    if folder.name.lower() in ("tissue images", "annotations"):
        return "train"
    return "test" if "test" in str(folder).lower() else "train"


def _files(root: Path, split: str, ledger: Ledger) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and outlines of a split by stem. Identical copies in duplicate folders are ignored."""
    images: dict[str, Path] = {}
    outlines: dict[str, Path] = {}
    for path in visible(root):
        if _split(path.parent.relative_to(root.parent)) != split:
            continue
        kind = {".tif": images, ".tiff": images, ".xml": outlines}.get(ending_of(path))
        if kind is None:
            ledger.add("ignored", split, None, [path], ["neither TIFF nor XML"])
        elif kind.setdefault(path.stem, path) != path:
            if path.read_bytes() != kind[path.stem].read_bytes():
                raise DataError(f"{path}: differs from {kind[path.stem]} of the same name; expected one; remove one")
            ledger.add("ignored", split, None, [path], [f"a copy of {kind[path.stem].relative_to(root)}"])
    return images, outlines


def _nuclei(outlines: Path, image: Raster, where: Path) -> tuple[np.ndarray, Decoded]:
    """The image and its nuclei. Raises: DataError if the image is not upright or the outlines cannot be used."""
    if image.orientation != 1:
        raise DataError(f"{where}: has orientation tag {image.orientation}; outlines need 1; save it upright")
    found = read_outlines(outlines)
    height, width = image.array.shape[1:]
    nuclei = [vertices for vertices in found.nuclei if _area(vertices) < MOST_OF_IMAGE * height * width]
    if frames := len(found.nuclei) - len(nuclei):
        found.left_out.append(f"{frames} outlines around most of the image left out: fields, not nuclei")
    numbers, odd = number_polygons(nuclei, (height, width))
    for vertices in found.holes:
        pixels, rows, columns = inside_polygon(vertices, (height, width))
        numbers[rows, columns][pixels] = 0
    label = (numbers > 0).astype(np.uint8)
    remarks = [f"{len(np.unique(numbers[numbers > 0]))} nuclei", *found.taken, *odd]
    return image.array, Decoded(label, found.left_out, numbers, remarks)


def _area(vertices: np.ndarray) -> float:
    """Area of a polygon in square pixels."""
    x, y = vertices.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

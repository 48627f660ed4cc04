"""The polyp datasets: Kvasir-SEG, CVC-ClinicDB, CVC-ColonDB, CVC-300, ETIS-LaribPolypDB, and PraNet's archives of them.

Layout and source are in each converter's docstring. Masks are black and white; if not exactly, thresholded at > 127.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable
from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import yes_or_no
from dataset_conversion.options import (
    ClinicDbOptions,
    ColonDbOptions,
    Cvc300Options,
    EtisOptions,
    KvasirSegOptions,
    PolypOptions,
)
from dataset_conversion.pictures import Picture, folder_pairs, from_mask, picture_content
from dataset_conversion.rules import list_pictures, pair_by_stem
from dataset_conversion.source import find_with, missing_layout, visible
from dataset_conversion.target import Conversion
from jdm.data.raw_layout import few
from jdm.errors import DataError

LABELS = {"background": 0, "polyp": 1}
IMAGES, MASKS = ("images", "image"), ("masks", "mask")
TRUTHS = ("Ground Truth", "GroundTruth", "Ground_Truth", *MASKS)
TRAIN, CLINIC = "TrainDataset", "CVC-ClinicDB"
PRANET = {
    "train": 1450, "test Kvasir": 100, f"test {CLINIC}": 62, "test CVC-ColonDB": 380, "test CVC-300": 60,
    "test ETIS-LaribPolypDB": 196,
}  # fmt: skip
"""Images in each part of PraNet's archives, as published."""
LAST_FRAMES = (
    25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317, 342, 363, 383, 408, 428, 447, 466, 478, 503,
    528, 546, 571, 591, 612,
)  # fmt: skip
"""Number of the last frame of each sequence of CVC-ClinicDB, from polyp.grand-challenge.org/CVCClinicDB."""


def convert_kvasir_seg(options: KvasirSegOptions) -> Conversion:
    """Kvasir-SEG: 1000 polyps, `Kvasir-SEG/{images,masks}/cju*.jpg`. Raises: as `convert`.

    Source: Jha et al. 2020, "Kvasir-SEG: a segmented polyp dataset".
    """

    def gather(root: Path, ledger: Ledger) -> Content:
        folders = _folders(root, ledger, "Kvasir-SEG/images and Kvasir-SEG/masks")
        return picture_content(_pictures(folders, ledger), LABELS, {"train": 1000})

    return convert(options, "kvasir-seg", "KvasirSEG", gather)


def convert_cvc300(options: Cvc300Options) -> Conversion:
    """CVC-300: 60 images, 574x500, `CVC-300/{images,masks}`, EndoScene's test part as PraNet ships it.

    Raises: as `convert`.
    Source: Vazquez et al. 2017, "A benchmark for endoluminal scene segmentation of colonoscopy images".
    """

    def gather(root: Path, ledger: Ledger) -> Content:
        folders = _folders(root, ledger, "CVC-300/images and CVC-300/masks")
        ledger.notes.append("CVC-300 shares sequences with CVC-ColonDB: do not train on one to test on the other")
        return picture_content(_pictures(folders, ledger), LABELS, {"train": 60})

    return convert(options, "cvc300", "CVC300", gather)


def convert_etis(options: EtisOptions) -> Conversion:
    """ETIS-LaribPolypDB: 196 frames, 1225x966, `ETIS-LaribPolypDB/N.tif` and `Ground Truth/pN.tif`.

    PraNet ships the same frames as `images` and `masks` with equal names. Raises: as `convert`.
    Source: Silva et al. 2014, "Toward embedded detection of polyps in WCE images for early diagnosis of colorectal
    cancer".
    """

    def gather(root: Path, ledger: Ledger) -> Content:
        expected = "the folders ETIS-LaribPolypDB and Ground Truth"
        images, masks = _folders(root, ledger, expected, ("ETIS-LaribPolypDB", *IMAGES), TRUTHS)
        pictures = folder_pairs("train", images, masks, yes_or_no, ledger, mask_stem=lambda s: s.removeprefix("p"))
        return picture_content(pictures, LABELS, {"train": 196})

    return convert(options, "etis", "ETISLarib", gather)


def convert_clinicdb(options: ClinicDbOptions) -> Conversion:
    """CVC-ClinicDB: 612 frames of 29 sequences, 384x288; folds keep sequences together. Raises: as `convert`.

    Layout: `Original/N.tif` and `Ground Truth/N.tif`; a common mirror has `PNG/` and `TIF/` above them.
    Source: Bernal et al. 2015, "WM-DOVA maps for accurate polyp highlighting in colonoscopy".
    """

    def gather(root: Path, ledger: Ledger) -> Content:
        expected = "the folders Original and Ground Truth"
        pictures = _pictures(_folders(root, ledger, expected, ("Original", *IMAGES), TRUTHS), ledger, sequence_of)
        if strange := sum(picture.group is None for picture in pictures):
            ledger.notes.append(f"{strange} names are no frame numbers 1 to 612, so their sequence is unknown")
        return picture_content(pictures, LABELS, {"train": 612})

    return convert(options, "clinicdb", "CVCClinicDB", gather)


def sequence_of(stem: str) -> str | None:
    """The sequence of a frame of CVC-ClinicDB; None if the stem is not one of its frame numbers."""
    if not (stem.isascii() and stem.isdigit() and 1 <= int(stem) <= LAST_FRAMES[-1]):
        return None
    return f"sequence_{bisect.bisect_left(LAST_FRAMES, int(stem)) + 1:02d}"


def convert_colondb(options: ColonDbOptions) -> Conversion:
    """CVC-ColonDB: 300 frames of 15 sequences, or the 380 images that PraNet ships by this name.

    Layout: `N.bmp` with polyp mask `pN.bmp`, non-informative region `sN.bmp` and contour `cN.bmp` in one folder; or the
    folders `images` and `masks`. Raises: as `convert`.
    Source: Bernal et al. 2012; mv.cvc.uab.es/projects/colon-qa/cvccolondb.
    """
    return convert(options, "colondb", "CVCColonDB", _gather_colondb)


def _gather_colondb(root: Path, ledger: Ledger) -> Content:
    ledger.notes.append("frames are of few sequences, which their names do not tell: folds may share a sequence")
    expected = "the files N.bmp and pN.bmp in one folder, or the folders images and masks"
    if not find_with(root, IMAGES, MASKS):
        for folder in visible(root, folders=True):
            if any(re.fullmatch(r"p\d+", path.stem) for path in folder.iterdir()):
                return picture_content(_flat(folder, ledger), LABELS, {"train": 300})
    pictures = _pictures(_folders(root, ledger, expected), ledger)
    return picture_content(pictures, LABELS, {"train": PRANET["test CVC-ColonDB"]})


def _flat(folder: Path, ledger: Ledger) -> list[Picture]:
    """Images N and masks pN of one folder."""
    kinds = {"s": "mask of the non-informative region", "c": "contour of the polyp"}
    pictures, aside = list_pictures(folder)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for stem, path in pictures.items():
        match = re.fullmatch(r"([psc]?)(\d+)", stem)
        if match and match[1] in ("", "p"):
            (masks if match[1] else images)[match[2]] = path
        else:
            aside.append((path, kinds[match[1]] if match else "neither an image N nor a mask pN"))
    for path, reason in aside:
        ledger.add("ignored", "train", None, [path], [reason])
    return [
        Picture("train", stem, images[stem], from_mask(masks[stem], yes_or_no), (masks[stem],))
        for stem in pair_by_stem(images, masks, (folder, folder))
    ]


def convert_polyp(options: PolypOptions) -> Conversion:
    """PraNet's archives: one training set and five test sets. Raises: as `convert`.

    Layout: `TrainDataset/{image,mask}` or `{images,masks}` (both occur): 900 images of Kvasir-SEG and 550 of
    CVC-ClinicDB; `TestDataset/{Kvasir,CVC-ClinicDB,CVC-ColonDB,CVC-300,ETIS-LaribPolypDB}/{images,masks}`.
    Source: Fan et al. 2020, "PraNet: parallel reverse attention network for polyp segmentation".
    """
    return convert(options, "polyp", "Polyp", _gather_pranet)


def _gather_pranet(root: Path, ledger: Ledger) -> Content:
    pictures: list[Picture] = []
    for folders in find_with(root, IMAGES, MASKS):
        name = folders[0].parent.name
        if name == TRAIN:  # frames of ClinicDB are named by number
            pictures += _pictures((folders[0], folders[1]), ledger, sequence_of)
            continue
        if f"test {name}" not in PRANET:
            known = ", ".join(part.removeprefix("test ") for part in list(PRANET)[1:])
            raise DataError(
                f"{folders[0].parent}: is neither {TRAIN} nor one of its test sets ({known}); rename it, or name the "
                "folder above TrainDataset and TestDataset alone"
            )
        # the sets use the same image numbers, so ids include the name of the set
        pictures += folder_pairs(
            "test", folders[0], folders[1], yes_or_no, ledger, stem=lambda stem, name=name: f"{name}_{stem}",
            group=sequence_of if name == CLINIC else lambda _: None, part=f"test {name}",
        )  # fmt: skip
    if not any(picture.split == "train" for picture in pictures):
        raise missing_layout(root, f"{TRAIN} with images and masks, and TestDataset beside it")
    return picture_content(pictures, LABELS, PRANET)


def _folders(
    root: Path, ledger: Ledger, expected: str, images: tuple[str, ...] = IMAGES, masks: tuple[str, ...] = MASKS
) -> tuple[Path, Path]:
    """The adjacent folders of images and masks nearest to `root`; others are noted.

    Raises: DataError naming the `expected` layout if there are none.
    """
    found = find_with(root, images, masks)
    if not found:
        raise missing_layout(root, expected)
    if len(found) > 1:
        rest = few([str(pair[0].parent.relative_to(root)) for pair in found[1:]])
        ledger.notes.append(f"{found[0][0].parent.relative_to(root)} was read; not read: {rest}")
    return found[0][0], found[0][1]


def _pictures(
    folders: tuple[Path, Path], ledger: Ledger, group: Callable[[str], str | None] = lambda _: None
) -> list[Picture]:
    return folder_pairs("train", *folders, yes_or_no, ledger, group=group)

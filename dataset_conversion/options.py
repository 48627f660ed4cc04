"""What each converter can be told; also the flags of `jdm-convert`. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class PairsOptions:
    """Convert a folder of images and a folder of masks (PNG, JPEG, BMP or TIFF) into an nnU-Net dataset.

    An image and its mask have the same file name up to the ending. Nothing is resized. Files that cannot be used
    faithfully are left out and listed with the reason in conversion.md inside the new dataset.

    For example:
      jdm-convert pairs --images train/images --masks train/masks --id 11 --name MoNuSeg
      --labels 0=background 255=nuclei --test-images test/images --test-masks test/masks
    """

    images: Path
    """Folder (or zip or tar file) of training images; an archive may hold the folders images and masks."""
    masks: Path
    """Folder (or archive, which may be the same) of their masks: one grey value (or palette index) per class."""
    id: int
    """nnU-Net dataset id for the new dataset, 1 to 999, not yet in use."""
    name: str
    """Name of the new dataset: --id 11 --name MoNuSeg makes Dataset011_MoNuSeg in $nnUNet_raw."""
    labels: Annotated[tuple[str, ...], arg(metavar="VALUE=NAME [VALUE=NAME ...]")]
    """What the values in the masks mean, as VALUE=NAME, background first. The order numbers the classes
    0, 1, 2 ...; a name given twice joins its values into one class."""
    test_images: Path | None = None
    """Folder of test images, never trained on."""
    test_masks: Path | None = None
    """Folder of their masks; they go to labelsTs."""
    overwrite: bool = False
    """Replace a dataset of this id and name that jdm-convert made earlier."""
    strict: bool = False
    """Stop, and write nothing, if any file must be left out or any image occurs twice."""
    check: bool = False
    """Report what would be accepted, repaired and refused, and write nothing."""


@dataclass(frozen=True)
class MsdOptions:
    """Convert a task folder of the Medical Segmentation Decathlon (NIfTI) into an nnU-Net dataset.

    Reads imagesTr, labelsTr, imagesTs and labelsTs (where there), and channel and class names from its
    dataset.json (where there). Volumes of several channels become one file per channel.

    For example:
      jdm-convert msd Task04_Hippocampus.tar --id 4
    """

    source: Positional[Path]
    """The task folder, such as Task04_Hippocampus, or the tar or zip file of it."""
    id: int
    """nnU-Net dataset id for the new dataset, 1 to 999, not yet in use."""
    name: str | None = None
    """Name of the new dataset; by default that of the source folder without its TaskNN_."""
    max_cases: int | None = None
    """Convert only the first so many training cases, by sorted id; all test cases are kept."""
    overwrite: bool = False
    """Replace a dataset of this id and name that jdm-convert made earlier."""
    strict: bool = False
    """Stop, and write nothing, if any file must be left out or any image occurs twice."""
    check: bool = False
    """Report what would be accepted, repaired and refused, and write nothing."""

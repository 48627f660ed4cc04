"""Options of the converters, which are the flags of `jdm-convert`. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

_LABELS = (
    "What each mask value means, background first; equal names are one class. Masks must hold these values only (JPEG "
    "masks of two values are cut midway)."
)
_THRESHOLD = "For soft or noisy masks of two values: above this level counts as the larger (for 0 and 255: 127)."
_GROUPS = (
    "Patient of each case, so that folds keep them together: a CSV file with the columns case and group, or a regular "
    "expression of whole case names whose first group is the patient, such as '(.+)_\\d+' for p7_001."
)


@dataclass(frozen=True)
class PairsOptions:
    """Convert a folder of images and a folder of masks into an nnU-Net dataset.

    Pictures (PNG, JPEG, BMP, TIFF) or volumes (NIfTI, NRRD, MHA). An image and its mask have the same file name,
    apart from the ending; images may also be named as in nnU-Net's imagesTr (case_0000, case_0001 for the channels of
    case). Nothing is resized. Files that cannot be used are left out; conversion.md in the new dataset lists them with
    the reason.

    For example:
      jdm-convert pairs --images train/images --masks train/masks --id 11
      --name MoNuSeg --labels 0=background 255=nuclei
      --test-images test/images --test-masks test/masks
    """

    images: Path
    """Folder (or zip or tar file) of the training images. One archive may hold both images and masks."""
    masks: Path
    """Folder (or archive, possibly the same) of their masks: one grey value (or palette index) per class."""
    id: int
    """Id of the new dataset: 1 to 999, not yet in use."""
    name: str
    """Name of the new dataset: --id 11 --name MoNuSeg makes Dataset011_MoNuSeg in $nnUNet_raw."""
    labels: Annotated[tuple[str, ...], arg(metavar="VALUE=NAME [VALUE=NAME ...]", help=_LABELS)]
    test_images: Path | None = None
    """Folder of test images, never trained on."""
    test_masks: Path | None = None
    """Folder of their masks; they go to labelsTs."""
    threshold: Annotated[float | None, arg(metavar="LEVEL", help=_THRESHOLD)] = None
    groups: Annotated[str | None, arg(metavar="TABLE.csv|PATTERN", help=_GROUPS)] = None
    overwrite: bool = False
    """Replace a dataset of this id and name that jdm-convert made earlier."""
    strict: bool = False
    """Stop without writing anything if a file has to be left out or an image occurs twice."""
    check: bool = False
    """Report what would be accepted, repaired and refused, and write nothing."""


@dataclass(frozen=True)
class SourceOptions:
    """Options common to all published datasets."""

    source: Positional[Path]
    """Folder of the dataset, or the zip or tar file as downloaded."""
    id: int
    """Id of the new dataset: 1 to 999, not yet in use."""
    name: str | None = None
    """Name of the new dataset; each source has a default."""
    groups: Annotated[str | None, arg(metavar="TABLE.csv|PATTERN", help=_GROUPS)] = None
    overwrite: bool = False
    """Replace a dataset of this id and name that jdm-convert made earlier."""
    strict: bool = False
    """Stop without writing anything if a file has to be left out or an image occurs twice."""
    check: bool = False
    """Report what would be accepted, repaired and refused, and write nothing."""


@dataclass(frozen=True)
class MsdOptions(SourceOptions):
    """Convert a task of the Medical Segmentation Decathlon (NIfTI) into an nnU-Net dataset.

    Reads imagesTr, labelsTr, imagesTs and labelsTs; channel and class names come from dataset.json, if present. The
    default name is the folder's, without TaskNN_. A volume with several channels becomes one file per channel.

    For example:
      jdm-convert msd Task04_Hippocampus.tar --id 4
    """

    max_cases: int | None = None
    """Convert only the first N training cases by id, and all test cases."""


@dataclass(frozen=True)
class NnunetV1Options(SourceOptions):
    """Convert a raw dataset of nnU-Net v1 (TaskNNN_Name, files case_0000.nii.gz) to the format of v2.

    For example:
      jdm-convert nnunet-v1 nnUNet_raw_data/Task005_Prostate --id 5
    """


@dataclass(frozen=True)
class PolypOptions(SourceOptions):
    """Convert PraNet's polyp archives: TrainDataset (1450 images) and the five sets of TestDataset.

    The source is the folder that holds both, or a zip file of it. Ids of test cases begin with the name of their set.

    For example:
      jdm-convert polyp PraNet --id 21
    """


@dataclass(frozen=True)
class KvasirSegOptions(SourceOptions):
    """Convert Kvasir-SEG: 1000 polyps, JPEG images and JPEG masks, which are thresholded at > 127.

    For example:
      jdm-convert kvasir-seg kvasir-seg.zip --id 22
    """


@dataclass(frozen=True)
class ClinicDbOptions(SourceOptions):
    """Convert CVC-ClinicDB: 612 frames of 29 sequences. Folds keep the frames of a sequence together.

    For example:
      jdm-convert clinicdb CVC-ClinicDB --id 23
    """


@dataclass(frozen=True)
class ColonDbOptions(SourceOptions):
    """Convert CVC-ColonDB: the original 300 frames (N.bmp, pN.bmp), or the 380 that come with PraNet.

    For example:
      jdm-convert colondb CVC-ColonDB --id 24
    """


@dataclass(frozen=True)
class Cvc300Options(SourceOptions):
    """Convert CVC-300: the 60 images that come with PraNet. They share sequences with CVC-ColonDB.

    For example:
      jdm-convert cvc300 CVC-300 --id 25
    """


@dataclass(frozen=True)
class EtisOptions(SourceOptions):
    """Convert ETIS-LaribPolypDB: 196 frames (N.tif) and their masks (pN.tif).

    For example:
      jdm-convert etis ETIS-LaribPolypDB --id 26
    """


@dataclass(frozen=True)
class GlasOptions(SourceOptions):
    """Convert GlaS: glands in histology, 85 training and 80 test images.

    All glands are one class; instancesTr and instancesTs keep their numbers, Grade.csv the grades and patients. Folds
    keep the images of a patient together.

    For example:
      jdm-convert glas "Warwick QU Dataset (Released 2016_07_08)" --id 27
    """


@dataclass(frozen=True)
class Dsb2018Options(SourceOptions):
    """Convert the nuclei of the 2018 Data Science Bowl: stage1_train (a folder per image, a mask per nucleus) and
    stage1_test, whose masks are in stage1_solution.csv if that lies beside it.

    All nuclei are one class; instancesTr keeps their numbers. A folder images and a folder masks, with one mask per
    image, are also accepted.

    For example:
      jdm-convert dsb2018 data-science-bowl-2018.zip --id 28
    """


@dataclass(frozen=True)
class MonusegOptions(SourceOptions):
    """Convert MoNuSeg 2018: nuclei in histology, outlined in Aperio XML files.

    The source is the folder above both downloads (training and MoNuSegTestData). A pixel belongs to a nucleus if its
    centre lies inside the outline. Rectangles, arrows, rulers, and layers or regions not named as nuclei, such as
    "ambiguous" or "ROI", are left out. Negative regions are cut out. conversion.md lists how each layer was handled.
    All nuclei are one class; instancesTr and instancesTs keep their numbers.

    For example:
      jdm-convert monuseg MoNuSeg --id 11 --cases classic
    """

    cases: Literal["classic", "all"] = "classic"
    """classic: the 30 training images of 2017, used by most papers; all: the 37 of the current download."""


@dataclass(frozen=True)
class IdridOptions(SourceOptions):
    """Convert IDRiD. A. Segmentation: four lesions of the retina and the optic disc, 54 training and 27 test images.

    B. Disease Grading: 413 training and 103 test images with a grade of retinopathy, 0 to 4, and no mask.
    Classes of A are numbered 1 microaneurysm (MA), 2 haemorrhage (HE), 3 hard exudate (EX), 4 soft exudate (SE), 5
    optic disc (OD). If an image has no file for a class, the class is absent.

    For example:
      jdm-convert idrid "A. Segmentation.zip" --id 30
    """

    priority: tuple[str, ...] = ("MA", "SE", "EX", "HE", "OD")
    """A: order of precedence where classes overlap."""
    size: int | None = None
    """B: crop every image to its central square, and resize it to this many pixels a side."""


@dataclass(frozen=True)
class CovidCxrOptions(SourceOptions):
    """Convert the COVID-19 image data collection: X-rays with a class and no mask.

    Findings and patients go to classes.csv.

    For example:
      jdm-convert covid-cxr covid-chestxray-dataset --id 31
    """


@dataclass(frozen=True)
class ClassesOptions(SourceOptions):
    """Convert pictures in a folder per class, without masks.

    Reads PNG, JPEG, BMP, TIFF or DICOM from SOURCE/CLASS, or from train, val and test within SOURCE, each with a folder
    per class. Pictures whose colours are equal become grey.

    For example:
      jdm-convert classes xrays --id 33 --name Xrays --test-share 0.2
    """

    grey: bool = False
    """Make colour pictures grey."""
    crop_centre: bool = False
    """Crop every picture to its central square."""
    size: int | None = None
    """Resize every picture to this shorter side, in pixels."""
    test_share: float = 0.0
    """Share of the pictures for imagesTs, by a hash of their names, where there is no folder test."""


@dataclass(frozen=True)
class ChestXrayOptions(SourceOptions):
    """Convert chest_xray (NORMAL and PNEUMONIA): X-rays with a class and no mask.

    Images of the part test go to imagesTs; classes, parts (train, val, test) and patients to classes.csv.

    For example:
      jdm-convert chest-xray chest_xray --id 32
    """


@dataclass(frozen=True)
class LidcOptions(SourceOptions):
    """Convert LIDC-IDRI: chest CT (DICOM) in Hounsfield units, with the nodules of 3 mm or more that several readers
    outlined.

    Radiographs are left out. Each XML file is matched to the CT series that it names. A voxel is labelled nodule if it
    lies inside the outlines of at least --min-readers readers.

    For example:
      jdm-convert lidc LIDC-IDRI --id 33
    """

    min_readers: int = 2
    """Number of readers whose outlines must contain a voxel."""
    readers: tuple[int, ...] = ()
    """Readers to use, 1 to 4, in the order of the XML file; by default all."""

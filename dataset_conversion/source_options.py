"""What the converters of published datasets can be told. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class SourceOptions:
    """What every published dataset needs."""

    source: Positional[Path]
    """Its folder, or the zip or tar file as it was downloaded."""
    id: int
    """nnU-Net dataset id for the new dataset, 1 to 999, not yet in use."""
    name: str | None = None
    """Name of the new dataset; by default its own."""
    overwrite: bool = False
    """Replace a dataset of this id and name that jdm-convert made earlier."""
    strict: bool = False
    """Stop, and write nothing, if any file must be left out or any image occurs twice."""
    check: bool = False
    """Report what would be accepted, repaired and refused, and write nothing."""


@dataclass(frozen=True)
class PolypOptions(SourceOptions):
    """Convert the polyp archives of PraNet: TrainDataset (1450 images) and the five sets of TestDataset.

    Name the folder that holds both, or a zip file of it. Test ids carry the name of their set.

    For example:
      jdm-convert polyp PraNet --id 21
    """


@dataclass(frozen=True)
class KvasirSegOptions(SourceOptions):
    """Convert Kvasir-SEG: 1000 polyps, JPEG images and JPEG masks, which are cut at > 127.

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

    Glands become one class; their numbers are kept in instancesTr and instancesTs, grades and patients in Grade.csv.
    Folds keep the images of a patient together.

    For example:
      jdm-convert glas "Warwick QU Dataset (Released 2016_07_08)" --id 27
    """


@dataclass(frozen=True)
class Dsb2018Options(SourceOptions):
    """Convert the nuclei of the 2018 Data Science Bowl: stage1_train (a folder per image, a mask per nucleus) and
    stage1_test (with masks where stage1_solution.csv is beside it).

    Nuclei become one class; their numbers are kept in instancesTr. Folders images and masks with one mask per image
    are read too.

    For example:
      jdm-convert dsb2018 data-science-bowl-2018.zip --id 28
    """


@dataclass(frozen=True)
class MonusegOptions(SourceOptions):
    """Convert MoNuSeg 2018: nuclei in histology, outlined in XML files. A pixel belongs to a nucleus if its centre lies
    inside the outline.

    Name the folder above both downloads (training and MoNuSegTestData). Nuclei become one class; their numbers are kept
    in instancesTr and instancesTs.

    For example:
      jdm-convert monuseg MoNuSeg --id 11 --cases classic
    """

    cases: Literal["classic", "all"] = "classic"
    """classic: the 30 training images of 2017, which most papers mean; all: the 37 of the current download."""


@dataclass(frozen=True)
class IdridOptions(SourceOptions):
    """Convert IDRiD (A. Segmentation): four lesions of the retina and the optic disc, 54 training and 27 test images.

    Classes are numbered 1 microaneurysm (MA), 2 haemorrhage (HE), 3 hard exudate (EX), 4 soft exudate (SE), 5 optic
    disc (OD). An image without a file for a class has none of it.

    For example:
      jdm-convert idrid "A. Segmentation.zip" --id 30
    """

    priority: tuple[str, ...] = ("MA", "SE", "EX", "HE", "OD")
    """Where classes overlap, a pixel belongs to the one named first."""


@dataclass(frozen=True)
class NnunetV1Options(SourceOptions):
    """Convert a raw dataset of nnU-Net v1 (TaskNNN_Name, files case_0000.nii.gz) to the format of v2.

    For example:
      jdm-convert nnunet-v1 nnUNet_raw_data/Task005_Prostate --id 5
    """


@dataclass(frozen=True)
class CovidCxrOptions(SourceOptions):
    """Convert the COVID-19 image data collection: X-rays with a class and no mask.

    They go to imagesTs, their findings and patients to classes.csv.

    For example:
      jdm-convert covid-cxr covid-chestxray-dataset --id 31
    """


@dataclass(frozen=True)
class ChestXrayOptions(SourceOptions):
    """Convert chest_xray (NORMAL and PNEUMONIA): X-rays with a class and no mask.

    They go to imagesTs, their classes, parts (train, val, test) and patients to classes.csv.

    For example:
      jdm-convert chest-xray chest_xray --id 32
    """


@dataclass(frozen=True)
class LidcOptions(SourceOptions):
    """Convert LIDC-IDRI: chest CT (DICOM) in Hounsfield units, and nodules of 3 mm or more that several readers drew.

    Of each patient the CT series are taken; their XML files are found by the series they name. A voxel is nodule if at
    least --min-readers of the readers have it inside their outline.

    For example:
      jdm-convert lidc LIDC-IDRI --id 33
    """

    min_readers: int = 2
    """Readers, of those that count, who must have a voxel inside their outline."""
    readers: tuple[int, ...] = ()
    """Readers that count, 1 to 4 in the order of the XML file; by default all."""

"""What is wrong with a raw dataset, beyond what nnU-Net's own check sees. Part of `jdm.data.raw_dataset`."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jdm.data.case_io import read_case, read_image, slice_axis
from jdm.data.image_io import read_raster
from jdm.data.raster import Raster
from jdm.data.raw_layout import RawDataset, few, inside, listed, used_ids
from jdm.data.space import aligned
from jdm.errors import DataError

JDM, NNUNET = "jdm-train, jdm-export", "jdm-experiment, nnU-Net"


@dataclass(frozen=True)
class Finding:
    """One line on what was found, what it leads to and what to do."""

    text: str
    needs: str
    """The commands that it concerns."""
    must: bool
    """They stop or go wrong until it is mended; otherwise it is only worth knowing."""

    def __str__(self) -> str:
        return self.text


@dataclass
class _Survey:
    """Files by what is wrong with them, so that each kind of fault takes one line."""

    dataset: RawDataset
    faults: dict[str, list[Path]] = field(default_factory=dict)
    """By key of `_nnunet_faults`."""
    errors: dict[str, list[str]] = field(default_factory=dict)
    """Messages by what they have in common."""
    notes: list[Finding] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)

    def refused(self, error: DataError, case: str) -> None:
        common = str(error).replace(str(self.dataset.folder), "").replace(case, "")
        self.errors.setdefault(re.sub(r"[\d.e+-]+", "#", common), []).append(str(error))

    def note(self, text: str) -> None:
        self.notes.append(Finding(text, JDM, must=False))

    def findings(self) -> list[Finding]:
        lines = [
            Finding(errors[0] + (f"; {len(errors) - 1} more like this" if errors[1:] else ""), JDM, must=True)
            for errors in self.errors.values()
        ]
        texts = _nnunet_faults(self.dataset)
        for fault, files in self.faults.items():
            what, consequence = texts[fault]
            count = f"{len(files)} {'file' if len(files) == 1 else 'files'}"
            lines.append(Finding(f"{count} {what}, such as {files[0]}; {consequence}", NNUNET, must=True))
        return [*lines, *self._thin(), *self.notes]

    def _thin(self) -> Iterator[Finding]:
        """Volumes of one slice that nnU-Net cuts along another axis."""
        if not self.shapes or len(self.shapes[0]) != 3:
            return
        spacing = np.median(self.spacings, axis=0)
        axis, widest = slice_axis(self.shapes, spacing), int(np.argmax(spacing))
        if axis != widest:
            yield Finding(
                f"cases are one slice thick along {'zyx'[axis]}, but their spacing is widest along {'zyx'[widest]}, "
                f"{spacing[widest]:g}, where nnU-Net's 2d configuration cuts them into lines; give the files a spacing "
                f"above that along {'zyx'[axis]}, such as {999 * spacing[widest]:g}",
                NNUNET,
                must=True,
            )


def check_dataset(dataset: RawDataset) -> list[Finding]:
    """What nnU-Net's `--verify_dataset_integrity` misses; reads every file once or twice.

    Each kind of fault is one finding, with the number of files, one of them, and what to do: first cases that jdm
    cannot read, then files that nnU-Net reads otherwise than jdm, then what is only worth knowing: empty labels, labels
    without images, test images without labels where others have one, images that are there twice (in training and test
    too), ids that differ in upper and lower case only, and files outside the dataset and $nnUNet_raw.
    """
    survey = _Survey(dataset)
    seen: dict[bytes, str] = {}
    ids: dict[str, str] = {}
    for test, cases in ((False, dataset.cases), (True, dataset.test_cases)):
        for case in cases:
            where = f"{'test' if test else 'training'} case {case}"
            if not test and ids.setdefault(case.lower(), case) != case:
                survey.note(
                    f"{where}: its id differs from {ids[case.lower()]} in upper and lower case only; rename one"
                )
            try:
                image = _check_case(survey, case, test, where)
            except DataError as error:
                survey.refused(error, case)
                continue
            digest = hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()
            if seen.setdefault(digest, where) != where:
                survey.note(f"{where}: its image equals that of {seen[digest]}; remove one")
    _check_unpaired(survey)
    return survey.findings()


def _check_case(survey: _Survey, case: str, test: bool, where: str) -> np.ndarray:
    """Note what there is to say of a case, and return its image. Raises: DataError as `read_case`."""
    dataset = survey.dataset
    files = (dataset.test_files if test else dataset.training_files)[case]
    for path in (*files.images, *([files.label] if files.label else [])):
        try:
            inside(dataset.folder, str(path.absolute()), dataset.folder)
        except DataError as error:
            survey.note(str(error))
    first: Raster | None = None
    for path in (*files.images, *([files.label] if files.label else [])):
        raster = read_raster(path, path == files.label, dataset.reader)
        first = first or raster
        for fault in _faults(path, raster, first, path == files.label):
            survey.faults.setdefault(fault, []).append(path)
    if files.label is None:
        return read_image(dataset, case, test)[0]
    pair = read_case(dataset, case, test)
    if not test:
        survey.shapes.append(pair.label.shape)
        survey.spacings.append(pair.spacing)
    if not pair.label.any():
        survey.note(f"{where}: its label is empty (background only); annotate it, or leave it if nothing is there")
    return pair.image


def _faults(path: Path, raster: Raster, first: Raster, label: bool) -> Iterator[str]:
    """Keys of what makes nnU-Net read a file, whose case begins with `first`, otherwise than jdm does."""
    tiff = path.name.endswith(".tif")
    if raster.dropped_alpha:
        yield "alpha"
    elif label and raster.array.shape[0] != 1:
        yield "label channels"
    if raster.palette and label and not tiff:
        yield "label palette"
    if raster.palette and tiff and not label:
        yield "image palette"
    if raster.geometry is not None and first.geometry is not None and raster is not first:
        found = aligned(raster.array, raster.geometry, raster.spacing, first, str(path))
        if found.shape != raster.array.shape or not np.array_equal(found, raster.array):
            yield "axes"


def _nnunet_faults(dataset: RawDataset) -> dict[str, tuple[str, str]]:
    """What a file has, and what that leads to and what to do, by key."""
    cure = f"type: {_conversion(dataset)}"
    if any(len(files.images) > 1 for files in dataset.training_files.values()):
        cure = "save them as plain grey values"
    reader = "NibabelIOWithReorient" if dataset.file_ending.startswith(".nii") else "SimpleITKIOWithReorient"
    return {
        "alpha": ("have an alpha channel", f"nnU-Net takes it for one channel more and stops; {cure}"),
        "label channels": ("are labels of several equal channels", f"nnU-Net's training stops at them; {cure}"),
        "label palette": ("are labels with a palette", f"nnU-Net reads the palette's colours; {cure}"),
        "image palette": ("are TIFF images with a palette", f"nnU-Net reads the palette's indices; {cure}"),
        "axes": (
            "are stored along other axes than the first image of their case",
            "nnU-Net does not look at that and lays them on each other as they are; add "
            f'"overwrite_image_reader_writer": "{reader}" to dataset.json',
        ),
    }


def _conversion(dataset: RawDataset) -> str:
    """The command that makes a dataset of plain pictures from one that jdm can read and nnU-Net cannot."""
    folder, used = dataset.folder, used_ids()
    free = next((id for id in (*range(dataset.id + 1, 1000), *range(1, 1000)) if id not in used), dataset.id)
    labels = " ".join(shlex.quote(f"{value}={name}") for name, value in dataset.labels.items())
    test = f" --test-images {folder}/imagesTs" if dataset.test_cases else ""
    if test and all(files.label for files in dataset.test_files.values()):
        test += f" --test-masks {folder}/labelsTs"
    return (
        f"jdm-convert pairs --images {folder}/imagesTr --masks {folder}/labelsTr{test} --id {free} "
        f"--name {dataset.name[11:]}_plain --labels {labels}"
    )


def _check_unpaired(survey: _Survey) -> None:
    dataset = survey.dataset
    for name, cases in (("labelsTr", dataset.cases), ("labelsTs", dataset.test_cases)):
        labels = [f[: -len(dataset.file_ending)] for f in listed(dataset.folder / name, dataset.file_ending)]
        extra = sorted(set(labels) - set(cases))
        if extra and not (name == "labelsTr" and _is_explicit(dataset)):
            survey.note(
                f"{len(extra)} labels in {name} have no image: {few(extra)}; remove them, or restore the images"
            )
        lacking = sorted(set(cases) - set(labels))
        if lacking and labels and name == "labelsTs":
            survey.note(f"{len(lacking)} test images have no label in {name}: {few(lacking)}; add them, or remove all")


def _is_explicit(dataset: RawDataset) -> bool:
    """Whether dataset.json names the files of each case, so that labelsTr needs no counterpart in imagesTr."""
    named = {files.label for files in dataset.training_files.values()}
    return any(dataset.folder / "labelsTr" / (case + dataset.file_ending) not in named for case in dataset.cases)

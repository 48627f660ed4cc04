"""Checks of a raw dataset beyond nnU-Net's own integrity check. Part of `jdm.data.raw_dataset`."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jdm.data.case_io import joined, paired, read_channels, slice_axis
from jdm.data.class_checks import class_findings
from jdm.data.image_io import read_raster
from jdm.data.raster import KIND_OF_ENDING, Raster, ending_of, sniff
from jdm.data.raw_layout import RawDataset, few, inside, listed, used_ids
from jdm.data.space import aligned
from jdm.errors import DataError

JDM, NNUNET, CLASSES = "jdm-train, jdm-export", "jdm-experiment, nnU-Net", "jdm-train --classes"


@dataclass(frozen=True)
class Finding:
    """One line with a finding, its consequence and its fix."""

    text: str
    needs: str
    """The commands affected."""
    must: bool
    """Whether the commands fail or give wrong results until it is fixed; otherwise it is only a note."""

    def __str__(self) -> str:
        return self.text


@dataclass
class _Survey:
    """Files or cases grouped by kind of finding, so that each kind takes one line."""

    dataset: RawDataset
    faults: dict[str, list[Path]] = field(default_factory=dict)
    """Files whose format differs from their name, or that nnU-Net reads differently from jdm; see `_fault_texts`."""
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Reasons why jdm cannot read cases, grouped by the common part of the messages."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Cases by kind of note."""
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """(*spatial) of the training cases, and their spacings."""
    spacings: list[tuple[float, ...]] = field(default_factory=list)

    def refuse(self, error: DataError, case: str, files: Sequence[Path]) -> None:
        if renamed := [path for path in files if _is_renamed(path)]:
            self.faults.setdefault("format", []).extend(renamed)
            return
        common = str(error).replace(repr(case), "")
        for path in files:
            common = common.replace(str(path), "").replace(path.name, "")
        self.refused.setdefault(re.sub(r"[\d.e+-]+", "#", common), []).append(str(error))

    def findings(self) -> list[Finding]:
        lines = [
            Finding(errors[0] + (f"; {len(errors) - 1} more like this" if errors[1:] else ""), JDM, must=True)
            for errors in self.refused.values()
        ]
        texts = _fault_texts(self.dataset)
        for fault, files in self.faults.items():
            what, cure = texts[fault]
            needs = JDM if fault == "format" else NNUNET
            lines.append(Finding(_counted(what, "file", list(map(str, files)), cure), needs, must=True))
        lines += self._thin()
        for note, cases in self.notes.items():
            what, cure = note.split("; ", 1)
            lines.append(Finding(_counted(what, "case", cases, cure), JDM, must=False))
        return lines

    def _thin(self) -> Iterator[Finding]:
        """Volumes of one slice that nnU-Net slices along another axis."""
        if not self.shapes or len(self.shapes[0]) != 3:
            return
        spacing = np.median(self.spacings, axis=0)
        axis, widest = slice_axis(self.shapes, spacing), int(np.argmax(spacing))
        if axis != widest:
            yield Finding(
                f"cases are one slice thick along {'zyx'[axis]}, but their spacing is widest along {'zyx'[widest]} "
                f"({spacing[widest]:g}), so that nnU-Net's 2d configuration cuts them into lines; give the files a "
                f"larger spacing along {'zyx'[axis]}, such as {999 * spacing[widest]:g}",
                NNUNET,
                must=True,
            )


def _counted(what: str, unit: str, found: list[str], cure: str) -> str:
    return f"{what}: {len(found)} {unit}{'s' if found[1:] else ''}, such as {found[0]}; {cure}"


def check_dataset(dataset: RawDataset) -> list[Finding]:
    """Find problems that nnU-Net's `--verify_dataset_integrity` misses; reads every file once.

    Each kind of problem is one finding, with the number of files, an example and the fix. The order is: cases that jdm
    cannot read; files that nnU-Net reads differently from jdm; notes. The notes are on empty labels, labels without
    images, test images without labels if others have one, duplicate images (also between training and test), ids that
    differ only in case, and files outside the dataset and $nnUNet_raw.
    """
    survey = _Survey(dataset)
    sizes: dict[str, tuple[int, ...]] = {}
    seen: dict[bytes, str] = {}
    ids: dict[str, str] = {}
    for test, cases in ((False, dataset.cases), (True, dataset.test_cases)):
        for case in cases:
            where = f"{'test' if test else 'training'} case {case}"
            if not test and (other := ids.setdefault(case.lower(), case)) != case:
                _note(survey, "ids that differ only in upper and lower case; rename one", f"{other} and {case}")
            files = (dataset.test_files if test else dataset.training_files)[case]
            paths = [*files.images, *([files.label] if files.label else [])]
            if not all(_lies_inside(path, dataset.folder) for path in paths):
                _note(survey, "links to files outside the dataset and $nnUNet_raw; move the files there", where)
            try:
                image = _check_case(survey, case, test, where)
            except DataError as error:
                survey.refuse(error, case, paths)
                continue
            sizes[case] = image.shape[1:]
            digest = hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()
            if seen.setdefault(digest, where) != where:
                _note(survey, "duplicate images; remove one of them", f"{where}, equal to {seen[digest]}")
    by_class = [Finding(text, CLASSES, must=False) for text in class_findings(dataset, sizes)]
    return [*survey.findings(), *_unpaired(dataset), *by_class]


def _note(survey: _Survey, text: str, case: str) -> None:
    survey.notes.setdefault(text, []).append(case)


def _is_renamed(path: Path) -> bool:
    """Whether a file is a picture whose format differs from its name."""
    try:
        kind, expected = sniff(path), KIND_OF_ENDING.get(ending_of(path))
    except DataError:
        return False
    return expected is not None and kind != expected and kind in KIND_OF_ENDING.values()


def _lies_inside(path: Path, folder: Path) -> bool:
    try:
        inside(folder, str(path.absolute()), folder)
    except DataError:
        return False
    return True


def _check_case(survey: _Survey, case: str, test: bool, where: str) -> np.ndarray:
    """Note the findings in a case's files, and return its image. Raises: DataError as `read_case`."""
    dataset = survey.dataset
    channels = read_channels(dataset, case, test)
    for path, raster in zip(dataset.image_files(case, test), channels, strict=True):
        for fault in _faults(path, raster, channels[0], label=False):
            survey.faults.setdefault(fault, []).append(path)
    image = joined(dataset, case, test, channels)
    path = (dataset.test_files if test else dataset.training_files)[case].label
    if path is None:
        return image.array
    stored = read_raster(path, True, dataset.reader)
    label = paired(dataset, case, test, image, stored).label
    for fault in _faults(path, stored, channels[0], label=True):
        survey.faults.setdefault(fault, []).append(path)
    if not test:
        survey.shapes.append(label.shape)
        survey.spacings.append(image.spacing)
    if not label.any():
        _note(survey, "empty labels (background only); annotate them, or keep them if that is correct", where)
    return image.array


def _faults(path: Path, raster: Raster, first: Raster, label: bool) -> Iterator[str]:
    """Keys of the properties that make nnU-Net read a file differently from jdm. first: the case's first image."""
    tiff = path.name.endswith(".tif")
    if raster.dropped_alpha:
        yield "alpha"
    elif label and raster.array.shape[0] != 1:
        yield "channels"
    if raster.palette and label and not tiff:
        yield "label palette"
    if raster.palette and tiff and not label:
        yield "image palette"
    if raster is not first and raster.geometry is not None and first.geometry is not None:
        found = aligned(raster.array, raster.geometry, raster.spacing, first, str(path))
        if found.shape != raster.array.shape or not np.array_equal(found, raster.array):
            yield "axes"


def _fault_texts(dataset: RawDataset) -> dict[str, tuple[str, str]]:
    """By key: a property of files, and its consequence with the fix."""
    cure = f"type: {_conversion(dataset)}"
    if any(len(files.images) > 1 for files in dataset.training_files.values()):
        cure = "save them as plain grey values"
    reader = "NibabelIOWithReorient" if dataset.file_ending.startswith(".nii") else "SimpleITKIOWithReorient"
    return {
        "format": ("pictures whose format differs from their name", f"jdm refuses them; {cure}"),
        "alpha": ("pictures with an alpha channel", f"nnU-Net reads it as an extra channel and stops; {cure}"),
        "channels": ("labels of several equal channels", f"nnU-Net's training stops at them; {cure}"),
        "label palette": ("labels with a palette", f"nnU-Net reads the palette's colours; {cure}"),
        "image palette": ("TIFF images with a palette", f"nnU-Net reads the palette's indices; {cure}"),
        "axes": (
            "volumes stored along other axes than the first image of their case",
            f'nnU-Net overlays them without reordering; add "overwrite_image_reader_writer": "{reader}" to '
            f"{dataset.folder / 'dataset.json'}",
        ),
    }


def _conversion(dataset: RawDataset) -> str:
    """The command that converts a dataset that only jdm can read to plain pictures."""
    folder, used = dataset.folder, used_ids()
    free = next((id for id in (*range(dataset.id + 1, 1000), *range(1, 1000)) if id not in used), dataset.id)
    words = ["jdm-convert", "pairs", "--images", f"{folder}/imagesTr", "--masks", f"{folder}/labelsTr"]
    if dataset.test_cases:
        words += ["--test-images", f"{folder}/imagesTs"]
        if all(files.label for files in dataset.test_files.values()):
            words += ["--test-masks", f"{folder}/labelsTs"]
    words += ["--id", str(free), "--name", f"{dataset.name[11:]}_plain", "--labels"]
    return shlex.join([*words, *(f"{value}={name}" for name, value in dataset.labels.items())])


def _unpaired(dataset: RawDataset) -> Iterator[Finding]:
    for name, cases in (("labelsTr", dataset.cases), ("labelsTs", dataset.test_cases)):
        labels = [f[: -len(dataset.file_ending)] for f in listed(dataset.folder / name, dataset.file_ending)]
        extra = sorted(set(labels) - set(cases))
        if extra and not (name == "labelsTr" and _is_explicit(dataset)):
            text = f"{len(extra)} labels in {name} have no image: {few(extra)}; remove them, or add the images"
            yield Finding(text, JDM, must=False)
        lacking = sorted(set(cases) - set(labels))
        if lacking and labels and name == "labelsTs":
            text = f"{len(lacking)} test images have no label in {name}: {few(lacking)}; add them, or remove all"
            yield Finding(text, "jdm-experiment", must=False)


def _is_explicit(dataset: RawDataset) -> bool:
    """Whether dataset.json names the files of each case, so that labelsTr and imagesTr need not match."""
    named = {files.label for files in dataset.training_files.values()}
    return any(dataset.folder / "labelsTr" / (case + dataset.file_ending) not in named for case in dataset.cases)

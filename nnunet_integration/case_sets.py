"""Sets of labelled cases that an experiment scores: its own, those that judge lengths, and external test sets."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdm.data.groups import read_groups
from jdm.data.raw_dataset import RawDataset, read_dataset
from jdm.data.raw_layout import few, folder_cases, is_case_id
from jdm.errors import ConfigError, DataError, ExistsError
from nnunet_integration.register import check_same_kind


@dataclass(frozen=True)
class CaseSet:
    """Labelled cases, and the folder that holds their references, predictions and scores."""

    title: str
    """What they are, such as imagesTs."""
    folder: Path
    images: Mapping[str, Sequence[Path]]
    """Image files by case id, one per channel."""
    labels: Mapping[str, Path]
    group_of: Mapping[str, str]
    """Group (such as patient or sequence) of each case."""

    @property
    def ids(self) -> list[str]:
        return sorted(self.labels)

    def copy_references(self, ending: str) -> Path:
        """Copy the reference labels to one folder, named by case id, which is returned.

        Raises: ExistsError if it holds those of other cases.
        """
        folder = self.folder / "references"
        folder.mkdir(parents=True, exist_ok=True)
        if others := sorted({file.name for file in folder.iterdir()} - {f"{case}{ending}" for case in self.labels}):
            raise ExistsError(
                f"{folder} holds {few(others, 3)}, which {self.title} lacks; expected the same cases as before; use "
                "another --out"
            )
        for case_id, label in self.labels.items():
            shutil.copyfile(label, folder / f"{case_id}{ending}")
        return folder


def cases_of(dataset: RawDataset, ids: Sequence[str], test: bool, title: str, folder: Path) -> CaseSet:
    """Cases of a raw dataset. Args: test: whether they are in imagesTs."""
    group_of = read_groups(dataset, test)
    return CaseSet(
        title,
        folder,
        {case: dataset.image_files(case, test) for case in ids},
        {case: dataset.label_file(case, test) for case in ids},
        {case: group_of[case] for case in ids},
    )


def labelled_test_ids(dataset: RawDataset) -> list[str]:
    """Cases of imagesTs that have a label."""
    return sorted(case for case, files in dataset.test_files.items() if files.label is not None)


def external_sets(entries: Sequence[str], real: RawDataset, folder: Path) -> list[CaseSet]:
    """The test sets of --test, each NAME=FOLDER.

    Raises: ConfigError for other text; DataError for a folder that holds no labelled cases like those of `real`.
    """
    found: dict[str, CaseSet] = {}
    for entry in entries:
        name, _, path = entry.partition("=")
        if not (path and is_case_id(name)) or name in found:
            raise ConfigError(f"--test has {entry!r}; expected NAME=FOLDER, each name once; correct it")
        found[name] = _external(name, Path(path).expanduser(), real, folder / "tests" / name)
    return list(found.values())


def _external(name: str, source: Path, real: RawDataset, folder: Path) -> CaseSet:
    if (source / "dataset.json").is_file():
        dataset = read_dataset(source)
        check_same_kind(dataset, real)
        cases = cases_of(dataset, labelled_test_ids(dataset), True, name, folder)
    else:
        files = folder_cases(source, "images", "labels", real.file_ending)
        missing = [str(case.label) for case in files.values() if case.label is None or not case.label.is_file()]
        if missing:
            raise DataError(f"--test {name}: {few(missing, 3)} missing; expected a label for every image; add them")
        cases = CaseSet(
            name,
            folder,
            {case_id: case.images for case_id, case in files.items()},
            {case_id: case.label for case_id, case in files.items() if case.label is not None},
            {case_id: f"case {case_id}" for case_id in files},
        )
    if not cases.labels:
        raise DataError(
            f"--test {name}: found no labelled {real.file_ending} cases in {source}; expected images/ and labels/, or "
            "a raw dataset with imagesTs and labelsTs; correct the path"
        )
    channels = {len(files) for files in cases.images.values()}
    expected = len(real.image_files(real.cases[0]))
    if channels != {expected}:
        raise DataError(
            f"--test {name}: its cases have {sorted(channels)} image files; expected {expected}, as those of "
            f"{real.name}; correct the folder"
        )
    return cases

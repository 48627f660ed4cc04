"""Layout of an nnU-Net raw dataset: the files of each case, and the content of dataset.json.

Used by `jdm.data.raw_dataset`; opens no image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jdm.errors import ConfigError, DataError

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
NAME = re.compile(r"Dataset(\d{3})_(.+)")
PARTIAL = ".jdm-partial-"
"""Begins the name of the hidden folder of a dataset that is not complete yet."""
_FILE_NAME = re.compile(r"[^/\\\0\s.][^/\\\0\n]*")


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case: images in channel order, and the label, which a test case may lack."""

    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class RawDataset:
    """A dataset folder with a consistent dataset.json and file names."""

    folder: Path
    id: int
    name: str
    """The folder's name, such as "Dataset011_MoNuSeg"."""
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    """Class values by name, background 0, consecutive."""
    file_ending: str
    cases: tuple[str, ...]
    """Training ids, sorted."""
    test_cases: tuple[str, ...]
    """Ids in imagesTs, sorted; some or all may have a label in labelsTs."""
    training_files: Mapping[str, CaseFiles] = field(repr=False, compare=False)
    test_files: Mapping[str, CaseFiles] = field(repr=False, compare=False)
    reader: str = ""
    """Name of its nnU-Net reader; empty: the one that nnU-Net would choose for each file."""

    @property
    def classes(self) -> int:
        """Number of label values, background included."""
        return len(self.labels)

    @property
    def has_masks(self) -> bool:
        """Whether the images have masks; without, they are pairs whose mask is background."""
        return self.classes > 1

    def image_files(self, case_id: str, test: bool = False) -> list[Path]:
        """Image files of a case, in the order of their channels. Raises: DataError for an unknown id."""
        return list(self._files(case_id, test).images)

    def label_file(self, case_id: str, test: bool = False) -> Path:
        """Label file of a case. Raises: DataError for an unknown id or a test case without one."""
        label = self._files(case_id, test).label
        if label is None:
            raise DataError(f"{self.name}: test case {case_id!r} has no label; expected one in labelsTs; add it")
        return label

    def _files(self, case_id: str, test: bool) -> CaseFiles:
        files = self.test_files if test else self.training_files
        if case_id not in files:
            raise DataError(
                f"{self.name}: no {'test' if test else 'training'} case {case_id!r}; expected one of "
                f"{few(sorted(files))}; correct the id"
            )
        return files[case_id]


def few(names: Sequence[object], most: int = 20) -> str:
    """A list for a message, truncated after `most` names."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(n) for n in names[:most]) + rest


def nnunet_folder(variable: str) -> Path:
    """The folder named by an nnU-Net environment variable.

    Raises: ConfigError with the line to type, if it is unset, not a folder, or begins with "~".
    """
    value = _value(variable)
    if not value:
        raise ConfigError(
            f"the environment variable {variable} is not set; expected nnU-Net's folder of that name; type: export "
            f"{variable}=/path/to/{variable}"
        )
    if not Path(value).is_dir():
        raise ConfigError(
            f"the environment variable {variable} names {value}, which is not a folder; type: mkdir -p {value}, "
            f"or: export {variable}=/path/to/{variable}"
        )
    return Path(value)


def environment_folder(variable: str) -> Path | None:
    """The folder named by an nnU-Net environment variable; None if it is unset or not a folder.

    Raises: ConfigError if it begins with "~".
    """
    value = _value(variable)
    return Path(value) if value and Path(value).is_dir() else None


def _value(variable: str) -> str:
    """The variable as nnU-Net reads it. Raises: ConfigError for "~", which nnU-Net would create as a folder."""
    value = os.environ.get(variable, "")
    if value.startswith("~"):
        raise ConfigError(
            f"the environment variable {variable} is {value}, but nnU-Net does not expand ~ to the home folder; type: "
            f"export {variable}={os.path.expanduser(value)}"  # noqa: PTH111  # keeps ~user of an unknown user
        )
    return value


def results_folder() -> Path:
    """Folder for runs and experiments: $jdm_results, or ./jdm_results."""
    return Path(os.environ.get("jdm_results") or "jdm_results").expanduser()  # noqa: SIM112


def dataset_name(id: int, name: str) -> str:
    """ "Dataset011_MoNuSeg" of 11 and "MoNuSeg". Raises: ConfigError if either does not fit the format."""
    if not 1 <= id <= 999:
        raise ConfigError(f"dataset id {id}: expected 1 to 999 (nnU-Net's ids have three digits); choose another")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(
            f"dataset name {name!r}: expected letters, digits, '_', '-' and '.' only, such as MoNuSeg; choose another"
        )
    return f"Dataset{id:03d}_{name}"


def used_ids() -> dict[int, list[Path]]:
    """Folders by dataset id in nnU-Net's raw, preprocessed and results folders, if these are set."""
    found: dict[int, list[Path]] = {}
    for variable in VARIABLES:
        root = environment_folder(variable)
        if root is not None:
            for folder in sorted(root.iterdir()):
                match = NAME.fullmatch(folder.name)
                if match and folder.is_dir():
                    found.setdefault(int(match[1]), []).append(folder)
    return found


def parse_channel_names(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """Channel names of a dataset.json, in order. Raises: DataError if its keys are not "0", "1", ..."""
    names = content.get("channel_names", content.get("modality"))
    expected = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not isinstance(names, dict) or not names or sorted(names, key=str) != sorted(expected):
        raise DataError(f'{path}: channel_names is {names!r}; expected {{"0": "name", "1": ...}}; correct it')
    return tuple(str(names[key]) for key in expected)


def find_cases(folder: Path, content: dict[str, Any], ending: str) -> tuple[dict[str, CaseFiles], dict[str, CaseFiles]]:
    """Training and test cases of a dataset folder.

    Raises: DataError listing missing files, unexpected names, or paths outside the dataset.
    """
    if "dataset" in content:
        training = _explicit_cases(folder, content["dataset"])
    else:
        training = folder_cases(folder, "imagesTr", "labelsTr", ending)
        if content.get("labels") == {"background": 0}:  # images without masks
            if strays := listed(folder / "labelsTr", ending):
                raise DataError(
                    f"{folder / 'dataset.json'}: labels are {content['labels']}, as for images without masks, but "
                    f"labelsTr has {len(strays)} files; expected the labels in them; name them, or remove labelsTr"
                )
            training = {case: CaseFiles(files.images, None) for case, files in training.items()}
        missing = [str(c.label) for c in training.values() if c.label is not None and not c.label.is_file()]
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} training labels are missing ({few(missing)}); expected one for each "
                "image; restore them or remove their images"
            )
    test = folder_cases(folder, "imagesTs", "labelsTs", ending)
    test = {
        case: files if files.label is not None and files.label.is_file() else CaseFiles(files.images, None)
        for case, files in test.items()
    }
    return training, test


def is_case_id(text: str) -> bool:
    """Whether `text` is safe in a file name: no separators, no leading dot or space."""
    return _FILE_NAME.fullmatch(text) is not None


def listed(folder: Path, ending: str) -> list[str]:
    """Visible file names with this ending, sorted; empty if the folder is missing. `.nii` does not match `.nii.gz`."""
    if not folder.is_dir():
        return []
    return sorted(f.name for f in folder.iterdir() if f.name.endswith(ending) and not f.name.startswith("."))


def folder_cases(folder: Path, images: str, labels: str, ending: str) -> dict[str, CaseFiles]:
    """Cases of two folders by id, sorted; a label's file may be missing.

    Args: images, labels: names of folders in `folder`.
    Raises: DataError listing missing channels or unexpected names.
    """
    channels: dict[str, dict[int, Path]] = {}
    for name in listed(folder / images, ending):
        match = re.fullmatch(r"(.+)_(\d{4})", name[: -len(ending)])
        if not match:
            raise DataError(
                f"{folder / images / name}: expected a name like case_0000{ending} (channel number of four "
                "digits); rename the file"
            )
        channels.setdefault(match[1], {})[int(match[2])] = folder / images / name
    expected = sorted({channel for files in channels.values() for channel in files})
    expected = list(range(expected[-1] + 1)) if expected else []
    missing = [
        f"{images}/{case}_{c:04d}{ending}" for case, files in channels.items() for c in expected if c not in files
    ]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} image files are missing ({few(missing)}); expected channels 0 to "
            f"{expected[-1]} for every case; restore them"
        )
    return {
        case: CaseFiles(tuple(files[c] for c in expected), folder / labels / (case + ending))
        for case, files in sorted(channels.items())
    }


def _explicit_cases(folder: Path, entries: Any) -> dict[str, CaseFiles]:
    path = folder / "dataset.json"
    wrong = DataError(f'{path}: expected "dataset": {{case: {{"images": [paths], "label": path}}}}; correct it')
    if not isinstance(entries, dict):
        raise wrong
    cases, missing = {}, []
    for case, entry in entries.items():
        if not (isinstance(entry, dict) and isinstance(entry.get("label"), str)):
            raise wrong
        images = entry.get("images")
        if not (isinstance(images, list) and images and all(isinstance(i, str) for i in images)):
            raise wrong
        if not is_case_id(case):
            raise DataError(f"{path}: case id {case!r} is not a plain file name; expected one; rename the case")
        files = [inside(folder, text, path) for text in [*images, entry["label"]]]
        missing += [str(f) for f in files if not _is_file(f)]
        cases[case] = CaseFiles(tuple(files[:-1]), files[-1])
    if missing:
        raise DataError(f"{path}: {len(missing)} files it names are missing ({few(missing)}); restore or remove them")
    return cases


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a file
        return False


def inside(folder: Path, text: str, where: Path) -> Path:
    """The path `text` in a dataset.json; with links resolved, it must be inside the folder or $nnUNet_raw.

    Raises: DataError naming the path and its target.
    """
    if "\0" in text:
        raise DataError(f"{where}: {text!r} is not a path; correct it")
    path = folder / os.path.expandvars(text)
    roots = [folder.resolve()]
    raw = environment_folder("nnUNet_raw")
    if raw is not None:
        roots.append(raw.resolve())
    target = path.resolve()
    if not any(target.is_relative_to(root) for root in roots):
        raise DataError(
            f"{where}: path {text!r} leads to {target}, outside the dataset and $nnUNet_raw; expected it inside; "
            "move the file there"
        )
    return path

"""Images without masks to train on, and the check that none of them is evaluated later."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdm.config.settings import Config
from jdm.data.image_folder import image_folder
from jdm.data.labels import NO_MASKS
from jdm.data.raw_dataset import NATURAL_ENDINGS, RawDataset, read_image
from jdm.data.raw_layout import few
from jdm.errors import ConfigError, DataError
from jdm.evaluation.case_search import CaseSearch
from jdm.evaluation.copies import Scale
from jdm.evaluation.planes import digest, planes
from jdm.train.checkpoint import PLAN
from jdm.train.request import TrainRequest

RECORD = "unlabelled.json"
"""In a run's folder: where its unlabelled images are, and whether evaluated ones were allowed."""
_USUAL = "imagesUn"
_LOOKED_AT = 50


@dataclass(frozen=True)
class Unlabelled:
    """Images without masks that a model is also trained on."""

    images: RawDataset
    """A dataset without masks whose training cases they are."""
    sha256: str
    """Of all their pixels."""
    evaluated: tuple[str, ...]
    """Those that equal or nearly equal a case that may be evaluated, with that case; --transductive allowed them."""
    transductive: bool

    @property
    def origin(self) -> dict[str, Any]:
        """For the provenance of what the model makes."""
        return {"cases": list(self.images.cases), "sha256": self.sha256, "evaluated": list(self.evaluated)}

    @property
    def record(self) -> dict[str, Any]:
        """For resuming the run."""
        return {"folder": str(self.images.folder), "transductive": self.transductive}


def asked_for(request: TrainRequest, dataset: RawDataset, held_out: Sequence[str], run: Path) -> Unlabelled | None:
    """The images of --unlabelled, or, of a resumed run, those it was trained on.

    Raises: ConfigError for options that do not fit each other; as `read_unlabelled`.
    """
    folder, transductive = request.unlabelled, request.transductive
    if request.resume and (run / PLAN).is_file():
        if folder is not None or transductive:
            raise ConfigError(
                "--unlabelled or --transductive is given with --resume; expected the run's own images; leave it out"
            )
        folder, transductive = _recorded(run)
    if folder is None:
        if transductive:
            raise ConfigError("--transductive is given without --unlabelled; expected both; name the folder of images")
        if (dataset.folder / _USUAL).is_dir():
            print(f"jdm-train: note: {_USUAL} is not used; --unlabelled {_USUAL} trains on it too", file=sys.stderr)
        return None
    return read_unlabelled(dataset, folder, held_out, transductive)


def read_unlabelled(dataset: RawDataset, folder: Path, held_out: Sequence[str], transductive: bool) -> Unlabelled:
    """Read and check a folder of images without masks; a folder that does not exist may be one beside dataset.json.

    Args:
        held_out: cases of the dataset that are not trained on; they and imagesTs are evaluated.
        transductive: allow images that are evaluated.
    Raises: ConfigError for a dataset without masks; DataError if the images cannot be used, or are evaluated.
    """
    if not dataset.has_masks:
        raise ConfigError(f"--unlabelled: the images of {dataset.name} have no masks; put these into imagesTr too")
    beside = dataset.folder / folder
    images = image_folder(dataset, beside if not folder.is_dir() and beside.is_dir() else folder)
    kind, pixels = read_image(dataset, dataset.cases[0])[0].dtype, hashlib.sha256()
    for case in images.cases:
        image = read_image(images, case)[0]
        if images.file_ending in NATURAL_ENDINGS and image.dtype != kind:
            raise DataError(
                f"{images.image_files(case)[0]}: pixels are {image.dtype}; expected {kind} as in {dataset.name}; "
                "convert it"
            )
        pixels.update(f"{case} {digest(image)}\n".encode())
    found = evaluated_images(dataset, images, held_out)
    if found and not transductive:
        raise DataError(
            f"{images.folder}: {len(found)} of {len(images.cases)} images are of cases to be evaluated "
            f"({few(found, 3)}); expected others; remove them, or allow them with --transductive"
        )
    return Unlabelled(images, pixels.hexdigest(), tuple(found), transductive)


def _recorded(run: Path) -> tuple[Path | None, bool]:
    """Folder of a run's unlabelled images, None without, and whether it is transductive. Raises: DataError."""
    file = run / RECORD
    if not file.is_file():
        return None, False
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Path(content["folder"]), bool(content["transductive"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read ({error}); expected the file of jdm-train; train again") from None


def check_plan(config: Config) -> None:
    """Raises: ConfigError if a model of this plan cannot be trained on images without masks."""
    for name, refused in (
        ("preset is thesis", config.preset != "default"),
        ("data.previous_slice is true", config.data.previous_slice),
    ):
        if refused:
            raise ConfigError(
                f"--unlabelled: {name}; expected a model with a noise level for the mask alone, of samples that are "
                "independent; leave one of them out"
            )


def evaluated_images(dataset: RawDataset, images: RawDataset, held_out: Sequence[str]) -> list[str]:
    """The images that have the name of a held-out or test case, or are a copy of one, by the audit's criterion."""
    whole = dataclasses.replace(dataset, labels=dict(NO_MASKS))  # test cases may have no masks
    parts = [(some, test) for some, test in ((held_out, False), (dataset.test_cases, True)) if some]
    named = {case for some, _ in parts for case in some}
    if not named:
        return []
    first = [plane.label.shape for some, test in parts for plane in planes(whole, some[:_LOOKED_AT], test)]
    sizes = [plane.label.shape for plane in planes(images, images.cases[:_LOOKED_AT])]
    known = itertools.chain.from_iterable(planes(whole, some, test) for some, test in parts)
    usual = tuple(np.median(sizes, axis=0).astype(int).tolist())
    search = CaseSearch("the cases to be evaluated", Scale.of(first, sizes), usual, known)
    found = []
    for case in images.cases:
        copied = search.copied([plane.image for plane in planes(images, [case])])
        if copied is not None:
            found.append(case if copied[0] == case else f"{case} is {copied[0]}")
        elif case in named:
            found.append(case)
    return found

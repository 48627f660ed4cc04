"""Which real cases a synthetic dataset's generator was trained on, and which cases a run evaluates.

`jdm-export` writes `provenance.json` into the synthetic dataset's raw folder. Every JDM trainer writes `jdm_run.json`
beside its checkpoints, so that the origin of pretrained weights is known.
"""

from __future__ import annotations

import filecmp
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, open_dataset
from jdm.data.splits import check_fold_safety
from jdm.errors import ConfigError, DataError

RUN_FILE = "jdm_run.json"


def read_run(folder: Path) -> dict[str, Any]:
    """The `jdm_run.json` of a trainer's output folder; empty if there is none.

    Raises: DataError if the file is damaged.
    """
    file = folder / RUN_FILE
    if not file.is_file():
        return {}
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict) or not isinstance(run.get("generator") or {}, dict):
        raise DataError(f"{file} is not a JSON object; expected the file written by a JDM trainer; remove that run")
    return run


def pretrained_weights(setting: str | None, arguments: Sequence[str] = ()) -> Path | None:
    """The pretrained checkpoint of a run: from the setting, else nnU-Net's command line, else None."""
    arguments = arguments or sys.argv[1:]
    if setting:
        return Path(setting)
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        # argparse accepts any unambiguous prefix of an option
        if name.startswith("-pr") and "-pretrained_weights".startswith(name):
            if equals:
                return Path(value)
            if position + 1 < len(arguments):
                return Path(arguments[position + 1])
    return None


def origin_of_weights(weights: Path | None, synthetic: str | None, continued: Path | None) -> dict[str, Any]:
    """The generator behind a run's initial weights.

    Args:
        weights: the pretrained checkpoint; `jdm_run.json` beside it names the generator.
        synthetic: JDM_SYNTHETIC, used if that file is missing.
        continued: output folder of a resumed run; its own `jdm_run.json` names the generator.
    Raises: ConfigError if none of them names the generator, or if there are no weights to start from.
    """
    if continued is not None and (generator := read_run(continued).get("generator")):
        return generator
    if weights is None and continued is None:
        raise ConfigError(
            "no pretrained weights to finetune; expected the checkpoint of a nnUNetTrainerJDMPretrain run; add "
            "-pretrained_weights PATH/checkpoint_final.pth"
        )
    if weights is not None and (generator := read_run(weights.parent).get("generator")):
        return generator
    if synthetic:
        return read_generator(open_dataset(synthetic))
    raise ConfigError(
        f"the synthetic dataset of the weights {weights} is unknown: no {RUN_FILE} beside them; expected weights of a "
        "nnUNetTrainerJDMPretrain run; otherwise set JDM_SYNTHETIC to the synthetic dataset's id"
    )


def test_ids(dataset: RawDataset) -> list[str]:
    """Ids in imagesTs, except ids of training cases with a different image."""
    training = set(dataset.cases)
    return [case for case in dataset.test_cases if case not in training or _same_images(dataset, case)]


def _same_images(dataset: RawDataset, case_id: str) -> bool:
    pairs = zip(dataset.training_files[case_id].images, dataset.test_files[case_id].images, strict=True)
    return all(filecmp.cmp(training, test, shallow=False) for training, test in pairs)


def check_generator(generator: dict[str, Any], real: str, validation_ids: Sequence[str], what: str) -> None:
    """Refuse a run whose evaluation cases its generator was trained on.

    Args:
        real: full name of the dataset whose validation cases and test set (imagesTs, if it is on this machine)
            evaluate the run. A generator of another dataset is refused, even if the ids differ, because that dataset
            may contain copies of these cases.
        validation_ids: the fold's validation cases.
        what: name of the run, for the message.
    Raises: DataError naming the cases, or the other dataset.
    """
    if (source := generator.get("dataset")) != real:
        raise DataError(
            f"{what}: the generator was trained on {source or 'an unknown dataset'}; expected {real}, whose cases are "
            "evaluated; export from a generator of that dataset"
        )
    dataset = find_dataset(real)
    evaluated = [*validation_ids, *(test_ids(dataset) if dataset else [])]
    check_fold_safety(generator["training_ids"], evaluated, what)


def find_dataset(name: str) -> RawDataset | None:
    """The raw dataset of that name, or None if the raw data are no longer on this machine."""
    try:
        return open_dataset(name)
    except (ConfigError, DataError):
        return None

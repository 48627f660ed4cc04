"""Settings of the JDM trainers, read from the environment because nnU-Net fixes the constructor's arguments."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jdm.errors import ConfigError


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of one nnU-Net run; the defaults are nnU-Net's."""

    epochs: int = 1000
    iterations: int = 250
    """Updates per epoch."""
    val_iterations: int = 50
    """Batches of the pseudo validation after each epoch."""
    learning_rate: float = 1e-2
    seed: int = 0
    synthetic: str | None = None
    """Id or name of the synthetic dataset."""
    synthetic_share: float = 0.5
    """Mix only: expected share of synthetic cases in batches."""
    keep_head: bool | None = None
    """Finetune only: also load the segmentation head. None: if the labels are the same."""
    pretrained_weights: str | None = None
    """Finetune only: the pretrained checkpoint, if it is not given on nnU-Net's command line."""
    synthetic_count: int | None = None
    """Pretrain and mix: use only so many synthetic cases, the first of the export. None: all."""
    train_fraction: float = 1.0
    """On real cases: train on this share of the fold's training cases, as `jdm-train --train-fraction`."""

    def environment(self) -> dict[str, str]:
        """Environment variables for these settings; the inverse of `read_settings`."""
        values = {VARIABLES[f.name]: getattr(self, f.name) for f in fields(self)}
        return {
            name: str(int(value)) if isinstance(value, bool) else str(value)
            for name, value in values.items()
            if value is not None
        }


VARIABLES = {
    "epochs": "JDM_NNUNET_EPOCHS",
    "iterations": "JDM_NNUNET_ITERATIONS",
    "val_iterations": "JDM_NNUNET_VAL_ITERATIONS",
    "learning_rate": "JDM_NNUNET_LEARNING_RATE",
    "seed": "JDM_NNUNET_SEED",
    "synthetic": "JDM_SYNTHETIC",
    "synthetic_share": "JDM_SYNTHETIC_SHARE",
    "synthetic_count": "JDM_SYNTHETIC_COUNT",
    "train_fraction": "JDM_TRAIN_FRACTION",
    "keep_head": "JDM_KEEP_HEAD",
    "pretrained_weights": "JDM_PRETRAINED_WEIGHTS",
}


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _seed(text: str) -> int:
    if not 0 <= (value := int(text)) < 2**31:
        raise ValueError
    return value


def _rate(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise ValueError
    return value


def _share(text: str) -> float:
    if not 0 < (value := float(text)) < 1:
        raise ValueError
    return value


def _fraction(text: str) -> float:
    if not 0 < (value := float(text)) <= 1:
        raise ValueError
    return value


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "epochs": (_count, "a whole number of at least 1"),
    "iterations": (_count, "a whole number of at least 1"),
    "val_iterations": (_count, "a whole number of at least 1"),
    "learning_rate": (_rate, "a positive number such as 0.01"),
    "seed": (_seed, "a whole number from 0 to 2147483647"),
    "synthetic": (str, "a dataset id or name"),
    "synthetic_share": (_share, "a number between 0 and 1"),
    "synthetic_count": (_count, "a whole number of at least 1"),
    "train_fraction": (_fraction, "a number above 0 and at most 1"),
    "keep_head": ({"0": False, "1": True}.__getitem__, "0 or 1"),
    "pretrained_weights": (str, "the path of a checkpoint"),
}


def read_settings(environment: Mapping[str, str] | None = None) -> TrainerSettings:
    """Settings from the JDM_ variables; an unset or empty variable keeps its default.

    Raises: ConfigError naming the variable, its value and what was expected.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for name, variable in VARIABLES.items():
        text = environment.get(variable, "").strip()
        parse, expected = _PARSERS[name]
        if not text:
            continue
        try:
            values[name] = parse(text)
        except (ValueError, KeyError):
            raise ConfigError(
                f"environment variable {variable} is {text!r}; expected {expected}; correct or unset it"
            ) from None
    return TrainerSettings(**values)


def ext_folder() -> Path:
    """The folder for nnU-Net's environment variable `nnUNet_extTrainer`."""
    return Path(__file__).resolve().parent / "ext"


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set (or, for None, unset) environment variables during a `with` block."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _apply(values)
        yield
    finally:
        _apply(before)


def _apply(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

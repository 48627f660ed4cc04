"""The request of `jdm-classify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from jdm.errors import ConfigError

Arm = Literal["real", "augmented", "real-long", "synthetic", "synthetic-then-real", "mixed", "pooled"]
ARMS: tuple[Arm, ...] = get_args(Arm)
USUAL = ARMS[:-1]
"""Synthetic sets of some classes only are for arm pooled."""
_WORDS = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class ClassifyOptions:
    """Train image classifiers with and without synthetic images under equal conditions, and report whether they helped.

    Both datasets have classes.csv. A killed run continues when the same command is given again.
    """

    real: tyro.conf.Positional[str]
    """Id or name of the real dataset."""
    synthetic: str
    """Id or name of the synthetic dataset."""
    folds: Annotated[tuple[str, ...], tyro.conf.arg(name="fold", metavar="0-4 ...", help_behavior_hint="")] = ("0",)
    """Folds to train on. Scored are imagesTs or, without classes for them, the validation cases."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...", help_behavior_hint="")] = (0, 1, 2)
    arms: Annotated[tuple[Arm, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = USUAL
    """real, augmented (real, augmented), real-long (twice the updates), synthetic, synthetic-then-real, mixed (half of
    each batch); also pooled (all images alike), for synthetic images that top up a class."""
    iterations: int = 600
    """Updates of arm real. Arms that also see synthetic images, and real-long, get twice as many."""
    network: Literal["small", "resnet50"] = "small"
    """A CNN of four blocks, or ResNet-50."""
    weights: Path | None = None
    """State dict of a pretrained ResNet-50 (.pt or .safetensors)."""
    size: int = 64
    """Pixels a side to which images are resized."""
    batch_size: int = 32
    learning_rate: float = 1e-3
    classes_balanced: bool = False
    """Draw all classes equally often."""
    out: Annotated[Path | None, _WORDS] = None
    """Default: classify in the real dataset's folder of runs."""
    overwrite: bool = False
    """Replace results of other settings."""


def check_options(options: ClassifyOptions) -> None:
    """Raises: ConfigError naming the flag."""
    checks = (
        (options.iterations >= 1, "iterations", options.iterations, "at least 1"),
        (options.batch_size >= 2, "batch-size", options.batch_size, "at least 2"),
        (options.size >= 8, "size", options.size, "at least 8"),
        (options.learning_rate > 0, "learning-rate", options.learning_rate, "more than 0"),
        (bool(options.folds), "fold", "empty", "at least one of 0 to 4"),
        (bool(options.seeds), "seeds", "empty", "at least one"),
        ("real" in options.arms, "arms", options.arms, "real among them, with which the others are compared"),
        (options.weights is None or options.network == "resnet50", "weights", options.weights, "none for small"),
    )
    for holds, flag, found, expected in checks:
        if not holds:
            raise ConfigError(f"--{flag} is {found}; expected {expected}; correct it")

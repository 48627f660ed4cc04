"""The request of `jdm-train` and `jdm.train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal

import tyro

from jdm.config.command import Count, Dataset, File, Fold, Number, Switch
from jdm.config.settings import Preset

Order = Literal["legacy", "new"]


@dataclass(frozen=True)
class TrainRequest:
    """Train a joint image-mask diffusion model on one fold of an nnU-Net raw dataset.

    The plan is derived from the dataset; --dry-run prints it, with the reason for each decision. Every decision and
    every expert setting is also a flag, such as --train.steps 5000 or --network.base-channels 64.
    """

    dataset: Dataset
    """nnU-Net dataset id or name, under $nnUNet_raw."""
    fold: Fold
    """0 to 4 as in nnU-Net's splits, or "all". Held-out cases are used only to measure the loss."""
    _: KW_ONLY
    budget_minutes: Number = None
    """Wall-clock minutes for training; network, batch and patch size are chosen to fit."""
    preset: Preset = "default"
    """default: EDM preconditioning, separate noise levels for image and mask. thesis: the process of Zhou 2023."""
    plan: File = None
    """TOML file of settings that override planned ones: all or part of a plan.toml."""
    train_fraction: Number = None
    """Train on this share of the training cases, of whole patients if known; the run is then fold_0_of_0.1."""
    classes: File = None
    """CSV file with the columns case and class, for sampling by class: a path, or a file beside dataset.json."""
    unlabelled: File = None
    """Folder of images without masks to train on too, named as in imagesTr: a path, or a folder beside dataset.json."""
    transductive: Switch = False
    """Allow --unlabelled images that are among the cases to be evaluated; results then say so."""
    init_from: File = None
    """Start from the weights of an improved-diffusion or guided-diffusion checkpoint (preset thesis; tensors only)."""
    init_heads: Count = None
    """Attention heads per level of the --init-from checkpoint, which does not store them."""
    init_attention_order: Annotated[Order | None, tyro.conf.arg(metavar="legacy|new", help_behavior_hint="")] = None
    """For --init-from: new if trained with use_new_attention_order, else legacy."""
    resume: Switch = False
    """Continue a killed run, or extend a finished one with more --budget-minutes or --train.steps."""
    overwrite: Switch = False
    """Replace an existing run, which is kept until the new one has written its first checkpoint."""
    dry_run: Switch = False
    """Print the plan and stop."""
    settings: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Nested settings, such as {"train": {"steps": 5000}}; on the command line each setting is a flag."""

    @property
    def run(self) -> str:
        """Name of the run, which `jdm-export` and others take as FOLD."""
        return self.fold if self.train_fraction is None else f"{self.fold}_of_{self.train_fraction:g}"

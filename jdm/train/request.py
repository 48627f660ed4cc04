"""What `jdm-train` and `jdm.train` are asked for."""

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

    The run plans itself from the dataset: --dry-run prints the plan, with a reason for each decision. Every decision
    and every expert setting is also a flag, such as --train.steps 5000 or --network.base-channels 64.
    """

    dataset: Dataset
    """nnU-Net dataset id or name, under $nnUNet_raw."""
    fold: Fold
    """0 to 4 as nnU-Net splits, or "all". Cases outside the training part only measure the held-out loss."""
    _: KW_ONLY
    budget_minutes: Number = None
    """Wall-clock minutes for training; the size of network and step are chosen to fit."""
    preset: Preset = "default"
    """default: EDM preconditioning, a noise level each for image and mask. thesis: the process of Zhou 2023."""
    plan: File = None
    """TOML file of settings that replace planned ones: a plan.toml or a part of one."""
    classes: File = None
    """CSV file with the columns case and class, to sample by class; also looked for beside dataset.json."""
    init_from: File = None
    """Start from the weights of an improved-diffusion or guided-diffusion checkpoint (preset thesis; tensors only)."""
    init_heads: Count = None
    """--init-from: its number of attention heads on every level, which its tensors do not tell."""
    init_attention_order: Annotated[Order | None, tyro.conf.arg(metavar="legacy|new", help_behavior_hint="")] = None
    """--init-from: new if it was trained with use_new_attention_order, else legacy; its tensors do not tell."""
    resume: Switch = False
    """Continue a killed run, or extend a finished one with more --budget-minutes or --train.steps."""
    overwrite: Switch = False
    """Replace an existing run, which is kept until the new one has passed its first checkpoint."""
    dry_run: Switch = False
    """Print the plan and stop."""
    settings: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Nested values of settings, such as {"train": {"steps": 5000}}; on the command line each is a flag."""

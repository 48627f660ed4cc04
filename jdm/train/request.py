"""What `jdm-train` and `jdm.train` are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jdm.config.command import Dataset, Fold
from jdm.config.settings import Preset


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
    budget_minutes: float | None = None
    """Wall-clock minutes for training; the size of network and step are chosen to fit."""
    preset: Preset = "default"
    """default: EDM preconditioning, a noise level each for image and mask. thesis: the process of Zhou 2023."""
    plan: Path | None = None
    """TOML file of settings that replace planned ones: a plan.toml or a part of one."""
    classes: Path | None = None
    """CSV file with the columns case and class, to sample by class; also looked for beside dataset.json."""
    init_from: Path | None = None
    """Start from the weights of an improved-diffusion or guided-diffusion checkpoint (preset thesis; tensors only)."""
    init_heads: int | None = None
    """--init-from: its number of attention heads on every level, which its tensors do not tell."""
    init_attention_order: Literal["legacy", "new"] | None = None
    """--init-from: new if it was trained with use_new_attention_order, else legacy; its tensors do not tell."""
    resume: bool = False
    """Continue a killed run, or extend a finished one with more --budget-minutes or --train.steps."""
    overwrite: bool = False
    """Replace an existing run, which is kept until the new one has passed its first checkpoint."""
    dry_run: bool = False
    """Print the plan and stop."""
    settings: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Nested values of settings, such as {"train": {"steps": 5000}}; on the command line each is a flag."""

"""The trained nnU-Net of an experiment as a judge, and images in memory as it reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jdm.config.settings import Config
from jdm.errors import DataError
from nnunet_integration.host import FINAL
from nnunet_integration.provenance import read_run

PICTURE_SPACING = 999.0
"""Slice thickness that nnU-Net assigns to a picture, which it treats as a volume of one slice."""


def real_arm(experiment: Path, seed: int) -> Path:
    """Folder of the checkpoint of a finished experiment's arm `real`.

    Raises: DataError if the experiment has none with that seed, or it was also trained on synthetic cases.
    """
    found = sorted((experiment / "runs" / "real" / f"seed_{seed}").glob(f"*/*/fold_*/{FINAL}"))
    if len(found) != 1:
        raise DataError(
            f"{experiment} holds {len(found)} networks of arm real, seed {seed}; expected one, of a finished "
            "jdm-experiment; run jdm-experiment with --arms real, or choose another seed"
        )
    if (generator := read_run(found[0].parent).get("generator")) is not None:
        raise DataError(
            f"{found[0]} was trained on pairs made from {generator.get('dataset')}; expected a network of real cases "
            "only; choose another experiment"
        )
    return found[0].parent


def as_volume(planes: np.ndarray, config: Config) -> tuple[np.ndarray, tuple[float, ...]]:
    """Images (n, channels, *spatial) as nnU-Net reads slices of one case: (channels, z, y, x), and its spacing."""
    axis, spacing = config.data.slice_axis, list(config.facts.spacing)
    spacing.insert(axis or 0, PICTURE_SPACING if axis is None else config.facts.slice_spacing)
    return np.moveaxis(planes, 0, 1 + (axis or 0)), tuple(spacing)

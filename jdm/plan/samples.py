"""What of a dataset becomes a training sample: whole images or patches, how large, and what is exported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jdm.config.facts import Fingerprint
from jdm.config.levels import padded
from jdm.config.settings import DataConfig, NetworkConfig
from jdm.system.progress import duration

WHOLE_PIXELS = 98_304
"""Images of up to this many pixels are trained whole, if the largest is not much larger than the others."""
SAMPLE_VOXELS = {"cpu": 64**3, "cuda": 128**3}
"""Voxels of a volume's training sample at most, by device."""
VOLUME_STEPS = 10_000
"""Fewest steps of a budget in 3-D; with fewer, volumes are trained as slices, each conditioned on the one before.

On 12 volumes of hippocampus these looked nearly real after half the minutes in which 2,000 steps in 3-D left grain
(results/hippocampus3d).
"""
_PATCH_SIDE = 256
_CANVAS_SIDE = {2: 512, 3: 128}


def sample_of(
    facts: Fingerprint, voxels: int, given: Mapping[str, Any], why: dict[str, str]
) -> tuple[tuple[int, ...], bool]:
    """Sides of a training sample before they are rounded to what the network takes, and whether it is a whole image.

    Args: voxels: of a volume's sample, at most.
    """
    largest, median = facts.largest_size, facts.median_size
    most = WHOLE_PIXELS if len(largest) == 2 else voxels
    fits = math.prod(largest) <= min(most, 2 * math.prod(median))
    asked = tuple(given.get("patch_size", largest))
    patch_fits = all(p >= side for p, side in zip(asked, largest, strict=False))
    whole = given.get("whole", fits and patch_fits)
    sides = "x".join(map(str, largest))
    why["data.whole"] = (
        f"all images fit, the largest is {sides}" if fits and whole
        else "the given patch is smaller" if not patch_fits
        else f"images of up to {sides} do not all fit in {most} pixels at little padding"
    )  # fmt: skip
    limit = f"{_PATCH_SIDE} a side" if len(largest) == 2 else f"{most} voxels, even in millimetres"
    why["data.patch_size"] = f"the largest image, {sides}" if whole else (
        f"at most {limit}, and not larger than most images"
    )  # fmt: skip
    if "patch_size" in given:
        return asked, whole
    if whole:
        return largest, whole
    if len(median) == 2:
        return tuple(min(_PATCH_SIDE, side) for side in median), whole
    return even_patch(median, facts.spacing, voxels), whole


def slices_instead(data: DataConfig, steps: int, budget_minutes: float | None, given: Mapping[str, Any]) -> str:
    """Why volumes planned in 3-D are rather trained as slices: the budget holds too few steps; empty: they are not.

    Settings that say what a sample is, or how many steps to train, are followed whatever the budget.

    Args: steps: that fit the budget. given: nested settings of the user.
    """
    sample = {"dims", "patch_size", "canvas_size", "whole", "position"} & set(given.get("data", {}))
    if data.dims == 2 or budget_minutes is None or sample or "steps" in given.get("train", {}) or steps >= VOLUME_STEPS:
        return ""
    return (
        f"volumes would get only {steps} steps in {duration(60 * budget_minutes)}; in 3-D at least {VOLUME_STEPS} are "
        "needed (more --budget-minutes, or --data.dims 3)"
    )


def even_patch(sides: tuple[int, ...], spacing: tuple[float, ...], voxels: int) -> tuple[int, ...]:
    """The largest patch of at most so many voxels that is as even in millimetres as `sides` allow."""
    reach = max(side * step for side, step in zip(sides, spacing, strict=True))

    def patch() -> tuple[int, ...]:
        return tuple(max(1, min(side, round(reach / step))) for side, step in zip(sides, spacing, strict=True))

    while math.prod(patch()) > voxels:
        reach *= 0.98
    return patch()


def data_of(
    facts: Fingerprint, sample: tuple[int, ...], whole: bool, network: NetworkConfig,
    canvas_limit: tuple[int, ...] | None, given: Mapping[str, Any], why: dict[str, str],
) -> DataConfig:  # fmt: skip
    """The settings of a sample for a network, and the size of an exported pair."""
    halvings, largest = len(network.channel_multipliers) - 1 + network.haar_levels, facts.largest_size
    # Images are halved alike along both axes, whatever their spacing.
    spacing = facts.spacing if len(largest) == 3 else None
    patch = sample if "patch_size" in given else padded(spacing, sample, halvings)
    why["data.patch_size"] += ", rounded up to what the network halves"
    canvas = patch
    why["data.canvas_size"] = "whole images" if whole else "the largest image"
    if not whole and len(patch) == len(largest):
        limit = canvas_limit or (_CANVAS_SIDE[len(patch)],) * len(patch)
        # Not larger than the images: sides of the canvas need not be multiples of the network's factor.
        canvas = tuple(max(p, min(side, most)) for p, side, most in zip(patch, largest, limit, strict=True))
        if canvas != largest:
            why["data.canvas_size"] = (
                "nnU-Net's patch" if canvas_limit else f"at most {_CANVAS_SIDE[len(patch)]} a side"
            )
    dims = len(largest)
    why["data.dims"] = facts.volumes or ("volumes as a whole" if dims == 3 else "images")
    why["data.slice_axis"] = "nothing is sliced" if facts.slice_axis is None else (
        "the axis of widest spacing, as in nnU-Net's 2d configuration"
    )  # fmt: skip
    return DataConfig(3 if dims == 3 else 2, patch, whole, canvas, facts.slice_axis)

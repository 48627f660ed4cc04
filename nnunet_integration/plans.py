"""nnU-Net plans as plain dictionaries: names after a move, and a smaller configuration for an experiment."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from typing import Any

from jdm.errors import ConfigError

SMALLEST = 4
"""Minimum side of a feature map, as in nnU-Net's own planner."""
EXPERIMENT = "jdm_experiment"
"""Name of the derived configuration."""


def moved_plans(plans_name: str, real_dataset: str) -> str:
    """Name of the real dataset's plans after moving them to a synthetic dataset: nnUNetPlans -> nnUNetPlansFrom011."""
    match = re.match(r"Dataset(\d{3})_", real_dataset)
    if match is None:
        raise ConfigError(f"dataset is named {real_dataset!r}; expected DatasetNNN_Name; give nnU-Net's full name")
    return f"{plans_name}From{match[1]}"


def moved_identifier(identifier: str, source_plans: str, target_plans: str) -> str:
    """Name of the preprocessed folder once `nnUNetv2_move_plans_between_datasets` has renamed the plans."""
    if identifier.startswith(source_plans):
        return target_plans + identifier[len(source_plans) :]
    return f"{target_plans}_{identifier}"


def resolve(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """A configuration with everything it inherits.

    Raises: ConfigError if the plans do not have it.
    """
    known = plans["configurations"]
    if configuration not in known:
        raise ConfigError(
            f"plans {plans['plans_name']} of {plans['dataset_name']} have no configuration "
            f"{configuration!r}; expected one of {', '.join(known)}; choose one with --configuration"
        )
    values = copy.deepcopy(known[configuration])
    parent = values.pop("inherits_from", None)
    return {**resolve(plans, parent), **values} if parent else values


def with_experiment_configuration(
    plans: dict[str, Any],
    configuration: str,
    patch_size: Sequence[int] | None,
    batch_size: int | None,
    features: Sequence[int] | None,
) -> tuple[dict[str, Any], str]:
    """The plans with an added configuration of equal or smaller patch, batch and network.

    Args:
        patch_size: pixels per axis; None: the plans'.
        features: channels per stage, highest resolution first; None: the plans', up to the stages the patch allows.
    Returns: a copy of the plans and the name of the configuration to train (the given one if all are None).
    Raises: ConfigError if the patch is too small for the network.
    """
    if patch_size is None and batch_size is None and features is None:
        resolve(plans, configuration)
        return copy.deepcopy(plans), configuration
    base = resolve(plans, configuration)
    derived: dict[str, Any] = {"inherits_from": configuration}
    if batch_size is not None:
        derived["batch_size"] = batch_size
    if patch_size is not None or features is not None:
        patch = [int(side) for side in patch_size or base["patch_size"]]
        if len(patch) != len(base["patch_size"]):
            raise ConfigError(
                f"--patch-size has {len(patch)} sides; expected {len(base['patch_size'])} for configuration "
                f"{configuration}; give one number per axis"
            )
        derived["patch_size"] = patch
        derived["architecture"] = _architecture(base["architecture"], patch, features)
    changed = copy.deepcopy(plans)
    changed["configurations"][EXPERIMENT] = derived
    return changed, EXPERIMENT


def _architecture(architecture: dict[str, Any], patch: list[int], features: Sequence[int] | None) -> dict[str, Any]:
    """The complete architecture for another patch and other channels, with as many stages as the patch allows."""
    changed = copy.deepcopy(architecture)
    kwargs = changed["arch_kwargs"]
    strides = stage_strides(patch)
    wanted = [int(channels) for channels in features or kwargs["features_per_stage"]]
    if features is None:
        wanted = wanted[: len(strides)]
    stages = len(wanted)
    if not 3 <= stages <= len(strides):
        raise ConfigError(
            f"--patch-size {'x'.join(map(str, patch))} allows {len(strides)} resolution stages, but the network "
            f"has {stages}; expected 3 to {len(strides)} entries in --network-features; change either"
        )
    dims = len(patch)
    kwargs["n_stages"], kwargs["features_per_stage"], kwargs["strides"] = stages, wanted, strides[:stages]
    kwargs["kernel_sizes"] = (kwargs["kernel_sizes"] + [[3] * dims] * stages)[:stages]
    for name in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if name in kwargs:
            count = stages - 1 if name.endswith("decoder") else stages
            kwargs[name] = (kwargs[name] + [kwargs[name][-1]] * stages)[:count]
    return changed


def stage_strides(patch: Sequence[int]) -> list[list[int]]:
    """Strides per stage (the first is 1) that halve each axis while its side is even and large enough."""
    strides, sides = [[1] * len(patch)], list(patch)
    while True:
        step = [2 if side % 2 == 0 and side // 2 >= SMALLEST else 1 for side in sides]
        if max(step) == 1:
            return strides
        strides.append(step)
        sides = [side // factor for side, factor in zip(sides, step, strict=True)]


def fitting_patch(wanted: Sequence[int], median: Sequence[int], halvings: Sequence[int]) -> tuple[int, ...]:
    """The patch `wanted`, reduced on each axis to the size of the median case, with sides that can still be halved.

    Args:
        median: sides of the median case.
        halvings: how often the network halves each axis; a side that is too small is halved less often.
    Returns: on each axis `wanted`, or the smallest multiple of the network's stride that covers the median if that is
        smaller; always `wanted` along an axis on which the median case is a single slice.
    """
    sides = []
    for side, case, times in zip(wanted, median, halvings, strict=True):
        case = case if case == 1 else max(case, 4 * SMALLEST)  # three stages at least
        multiple = 2 ** min(times, max(0, (case // SMALLEST).bit_length() - 1))
        covering = math.ceil(case / multiple) * multiple
        sides.append(min(side, covering) if case > 1 else side)
    return tuple(sides)


def padding_share(shapes: Sequence[Sequence[int]], patch: Sequence[int]) -> float:
    """Mean share of a patch that is padding because the case is smaller than the patch.

    Args:
        shapes: spatial shape of each preprocessed case; leading axes beyond the patch's are slices.
        patch: nnU-Net's patch size.
    """
    if not shapes:
        return 0.0
    shares = []
    for shape in shapes:
        filled = 1.0
        for side, wanted in zip(shape[-len(patch) :], patch, strict=True):
            filled *= min(side, wanted) / wanted
        shares.append(1 - filled)
    return sum(shares) / len(shares)

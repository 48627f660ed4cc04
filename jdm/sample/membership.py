"""Membership inference by the model's own loss: can training cases be told from held-out ones?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from jdm.data.groups import read_groups
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset
from jdm.draw.run import Run, check_origin
from jdm.evaluation.statistics import auc
from jdm.system.progress import progress
from jdm.train.objective import FIXED_BATCH, FixedLoss, memory_errors

_CASES, _BATCHES = 50, 2
"""Cases of each set, and batches of crops of each case."""
_ENOUGH = 5
"""Held-out patients of imagesTr above which imagesTs, which may be of another kind, is not needed."""


def membership(run: Run, real: RawDataset, device: str) -> dict[str, Any]:
    """Area under the ROC curve of telling training from held-out cases by their denoising loss; 0.5: they cannot be.

    Held-out cases are those of imagesTr that were not trained on, and the labelled ones of imagesTs if these are few.
    Losses are averaged by patient. Cases whose loss chose the weights count as held out, which favours the model.

    Returns: auc, low, high (95 %), patients and cases of each set, `held_out_from`; without `auc` if there are none.
    Raises: ConfigError if the run is of another dataset; TrainingError if memory runs out.
    """
    check_origin(run.checkpoint, real)
    trained = sorted(run.checkpoint.metadata["training_ids"])
    others, groups = sorted(set(real.cases) - set(trained)), read_groups(real)
    held_out, places = [(case, False) for case in others], ["imagesTr"]
    tested = [case for case in real.test_cases if real.test_files[case].label or not real.has_masks]
    if len({groups[case] for case in others}) < _ENOUGH and tested:
        held_out, places = [*held_out, *((case, True) for case in tested)], [*(places if others else []), "imagesTs"]
    if not held_out:
        return {"held_out_from": []}
    sets = {"training": _spread([(case, False) for case in trained]), "held_out": _spread(held_out)}
    with memory_errors(FIXED_BATCH, flag="--data.patch-size of jdm-train"):
        losses = _losses(run, real, [*sets["training"], *sets["held_out"]], device)
    known = (groups, read_groups(real, test=True))
    by_group = {name: _means(losses, {key: known[key[1]][key[0]] for key in keys}) for name, keys in sets.items()}
    area, low, high = auc(by_group["held_out"], by_group["training"])
    return {
        "auc": area, "low": low, "high": high, "held_out_from": places,
        "patients": {name: len(values) for name, values in by_group.items()},
        "cases": {name: len(keys) for name, keys in sets.items()},
        "loss": {name: float(np.mean(values)) for name, values in by_group.items()},
    }  # fmt: skip


def _spread(keys: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    chosen = np.linspace(0, len(keys) - 1, min(_CASES, len(keys))).round().astype(int)
    return [keys[n] for n in np.unique(chosen)]


def _means(losses: Mapping[tuple[str, bool], float], group_of: Mapping[tuple[str, bool], str]) -> np.ndarray:
    """Mean loss of each group of some cases."""
    by_group: dict[str, list[float]] = {}
    for key, group in group_of.items():
        if key in losses:
            by_group.setdefault(f"{group} {key[1]}", []).append(losses[key])
    return np.array([np.mean(values) for values in by_group.values()])


def _losses(run: Run, real: RawDataset, keys: list[tuple[str, bool]], device: str) -> dict[tuple[str, bool], float]:
    """Mean loss of random crops of each case (id, whether of imagesTs), without augmentation and class, at levels and
    noise that are the same for every case."""
    config, denoiser, place = run.config, run.checkpoint.denoiser(device), torch.device(device)
    return {
        (case, test): FixedLoss(PairDataset(real, [case], config, test=test), config, place, _BATCHES)(denoiser)
        for case, test in progress(keys, "losses")
    }

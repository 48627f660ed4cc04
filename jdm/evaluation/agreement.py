"""How well a segmentation network that did not see a case agrees with its mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

_SMOOTH = 1e-5
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GATE = 0.05
"""Share of the held-out real cases below which a pair's agreement is low."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a network's prediction with one mask."""

    dice: dict[str, float]
    """By foreground label; NaN where neither has it."""
    loss: float
    """Cross-entropy (mean over voxels, nats) plus one minus the soft Dice of the softmax (mean over the mask's labels):
    nnU-Net's own loss."""
    features: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Of the image, by the network's encoder."""

    @property
    def mean(self) -> float:
        """Mean Dice over the labels that either has; 1 if neither has any."""
        known = [value for value in self.dice.values() if not math.isnan(value)]
        return float(np.mean(known)) if known else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded, without the features."""
        dice = {name: None if math.isnan(value) else round(value, 6) for name, value in self.dice.items()}
        return {"agreement": round(self.mean, 6), "loss": round(self.loss, 6), "dice": dice}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Agreement:
        """The inverse of `to_dict`."""
        dice = {name: math.nan if value is None else float(value) for name, value in content["dice"].items()}
        return cls(dice, float(content["loss"]))


def agreement(probabilities: np.ndarray, label: np.ndarray, labels: Mapping[str, int]) -> Agreement:
    """Compare a softmax (classes, *spatial) with a label (*spatial).

    Args: labels: value by name, the background (0) included.
    """
    predicted, dice, soft = probabilities.argmax(0), {}, []
    truth = np.take_along_axis(probabilities, label[None].astype(np.int64), 0)
    for name, value in labels.items():
        if value == 0:
            continue
        found, wanted = predicted == value, label == value
        total = np.count_nonzero(found) + np.count_nonzero(wanted)
        dice[name] = 2 * np.count_nonzero(found & wanted) / total if total else math.nan
        if wanted.any():
            share = probabilities[value]
            overlap = 2 * float(share[wanted].sum(dtype=np.float64)) + _SMOOTH
            soft.append(overlap / (float(share.sum(dtype=np.float64)) + np.count_nonzero(wanted) + _SMOOTH))
    entropy = -float(np.log(np.maximum(truth, 1e-8)).mean(dtype=np.float64))
    return Agreement(dice, entropy + (1 - float(np.mean(soft)) if soft else 0.0))


def averaged(found: Sequence[Agreement]) -> Agreement:
    """Mean over networks, by label where any has it; the features follow each other."""
    dice = {}
    for name in found[0].dice:
        known = [one.dice[name] for one in found if not math.isnan(one.dice[name])]
        dice[name] = float(np.mean(known)) if known else math.nan
    features = np.concatenate([one.features for one in found])
    return Agreement(dice, float(np.mean([one.loss for one in found])), features)


def least(real: Mapping[str, Agreement], share: float) -> float:
    """The agreement below which a share of the real cases lies (linear between cases)."""
    return float(np.quantile([one.mean for one in real.values()], share))


def agreement_summary(
    synthetic: Mapping[str, Agreement], real: Mapping[str, Agreement], teacher_sha256: str
) -> dict[str, Any]:
    """What an audit says of agreement. Args: synthetic, real: by case; the real ones by a network not trained on them.

    below: share of synthetic pairs under the `GATE` quantile of the real cases, with its exact 95 % interval
    (Clopper-Pearson).
    """
    limit = least(real, GATE)
    below = sum(one.mean < limit for one in synthetic.values())
    interval = stats.binomtest(below, len(synthetic)).proportion_ci(method="exact")
    return {
        "least": limit,
        "below": below / len(synthetic),
        "below_interval": [float(interval.low), float(interval.high)],
        "teacher_sha256": teacher_sha256,
        "sets": {"synthetic": _distribution(synthetic), "held_out": _distribution(real)},
        "cases": {
            name: {case: round(one.mean, 4) for case, one in found.items()}
            for name, found in (("synthetic", synthetic), ("held_out", real))
        },
    }


def _distribution(found: Mapping[str, Agreement]) -> dict[str, float]:
    means = [one.mean for one in found.values()]
    numbers = {"n": len(means), "mean": float(np.mean(means)), "loss": float(np.mean([a.loss for a in found.values()]))}
    numbers |= {f"quantile {q:g}": float(np.quantile(means, q)) for q in _QUANTILES}
    for name in next(iter(found.values())).dice:
        known = [one.dice[name] for one in found.values() if not math.isnan(one.dice[name])]
        numbers[f"Dice of {name}"] = float(np.mean(known)) if known else math.nan
    return numbers

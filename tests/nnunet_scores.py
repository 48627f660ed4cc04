"""Experiments whose scores are known, summarised as if nnU-Net had been trained."""

from __future__ import annotations

import math

import numpy as np

from jdm.evaluation.scores import CaseScore, Evaluation, overlap
from jdm.evaluation.scores import summarise as classes_of
from nnunet_integration.arms import Resolved, schedule
from nnunet_integration.comparison import Entry, summarise


def resolved(**changes) -> Resolved:
    times = schedule(100, 200, 10, None)
    values = {
        "real": "R", "synthetic": "S", "cases_sha256": "", "fold": 0, "configuration": "2d",
        "plans": "nnUNetPlans", "patch_size": (64, 64), "batch_size": 2, "network_features": (8, 16, 32),
        "learning_rate": 0.01, "keep_head": True, "mirroring": False, "device": "cpu", "threads": 1, "workers": 0,
        "split_sha256": "",
        **vars(times), **changes,
    }  # fmt: skip
    return Resolved(**values)


UPDATES = {
    "real": (5, 0), "synthetic": (0, 5), "pretrain-finetune": (5, 5), "mix": (5, 5), "real-long": (10, 0),
}  # fmt: skip
ABSENT, INVENTED = "absent", "invented"  # the reference lacks the class; so does the prediction, or not


def evaluation(scores: dict[tuple[str, str], float | str]) -> dict:
    """`Evaluation.to_dict()` of Dice by image and class, to 1/2000."""
    cases = []
    for (case_id, label), dice in scores.items():
        tp = round(1000 * dice) if isinstance(dice, float) else 0
        counts = (tp, 1000 - tp, 1000 - tp) if isinstance(dice, float) else (0, 50 * (dice == INVENTED), 0)
        cases.append(CaseScore(case_id, label, *overlap(*counts), math.nan, *counts, tn=9, voxel_size=2.0))
    labels = {label: (value,) for value, label in enumerate(dict.fromkeys(label for _, label in scores), 1)}
    return Evaluation("nnunet", "", tuple(cases), classes_of("nnunet", cases, labels)).to_dict()


def summary(arms: dict, groups: dict[str, str] | None = None) -> dict:
    """Of scores by arm: a table as for `evaluation`, or several, one per seed."""
    seeds = {arm: found if isinstance(found, list) else [found] for arm, found in arms.items()}
    scores = {arm: {k: evaluation(found) for k, found in enumerate(each)} for arm, each in seeds.items()}
    images = {case for each in seeds.values() for case, _ in each[0]}
    facts = {
        arm: {"updates_real": UPDATES[arm][0], "updates_synthetic": UPDATES[arm][1], "padding_share": 0.0}
        for arm in arms
    }
    return summarise(resolved(), Entry(facts, scores, groups or {image: image for image in images}))


def scored_images(count: int, label: str, dice, spread: float = 0.05) -> dict:
    """One class of so many images: Dice about a mean, alike for all arms, or a word."""
    noise = np.random.default_rng(0).permutation(np.linspace(-spread, spread, count))
    return {(f"i{i:02d}", label): dice if isinstance(dice, str) else float(dice + noise[i]) for i in range(count)}

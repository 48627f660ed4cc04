"""Whether the first pairs of an export look like real ones: a model trained for few steps produces noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdm.config.facts import Fingerprint
from jdm.errors import DataError
from jdm.evaluation.likeness import NAMES, likeness

_SLACK = (0.3, 0.3, 1.0, 1.0)
"""How far the median of synthetic pairs may exceed the 95th percentile of real ones: for noise and fine detail, a share
of the distance to white noise; for outline and specks, a factor."""
_LEAST_AGREEMENT = 0.3
_STEPS_WANTED = 2_000
_LEAST_SPECKS = 1.0  # per 100 pixels of foreground


def judge(
    facts: Fingerprint, pairs: Sequence[tuple[np.ndarray, np.ndarray]], readings: Sequence[np.ndarray] | None
) -> list[str]:
    """Differences between synthetic pairs (image, label) and real ones, one phrase each; empty if there are none.

    Args: readings: the model's own segmentation of each image; None if it cannot segment.
    """
    found = np.array([likeness(image, label) for image, label in pairs])
    problems = []
    for number, name in enumerate(NAMES if facts.likeness else ()):
        values = found[:, number][np.isfinite(found[:, number])]
        low, high = facts.likeness[number]
        most = high + _SLACK[number] * (1 - high) if number < 2 else max(high * (1 + _SLACK[number]), _LEAST_SPECKS)
        if len(values) and (median := float(np.median(values))) > most:
            problems.append(f"{name} {median:.2g} (real {low:.2g} to {high:.2g})")
    if readings is not None:
        agreements = [dice(label, read) for (_, label), read in zip(pairs, readings, strict=True)]
        agreements = [agreement for agreement in agreements if agreement is not None]
        if agreements and (median := float(np.median(agreements))) < _LEAST_AGREEMENT:
            problems.append(f"Dice of {median:.2f} between the masks and the model's own segmentation of the images")
    return problems


def dice(label: np.ndarray, other: np.ndarray) -> float | None:
    """Dice of the foregrounds of two labels; None if both are empty."""
    total = np.count_nonzero(label) + np.count_nonzero(other)
    return 2 * np.count_nonzero((label > 0) & (other > 0)) / total if total else None


def refusal(problems: Sequence[str], metadata: Mapping[str, Any], pairs: int) -> DataError:
    """The error that stops an export.

    Args: metadata: the checkpoint's metadata.
    """
    step, minutes = int(metadata["step"]), float(metadata["minutes"])
    more = max(minutes * max(_STEPS_WANTED - step, 0) / max(step, 1), minutes, 1.0)
    again = f"jdm-train {metadata['dataset']} {metadata['fold']} --resume --budget-minutes {minutes + more:.0f}"
    return DataError(
        f"the first {pairs} pairs look unlike the real ones: {'; '.join(problems)}; expected pairs like those; the "
        f"model was trained for {step} steps in {minutes:.1f} minutes: train about {more:.0f} minutes more ({again}), "
        "or export them with --anyway"
    )

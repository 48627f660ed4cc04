"""How neighbouring slices of volumes fit together: a stack of unrelated slices has edges between all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jdm.data.raw_dataset import RawDataset, read_case
from jdm.evaluation.scores import mean_defined


def slice_coherence(image: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Gradients of a volume, and overlap of its neighbouring masks, along each array axis.

    gradient: mean absolute difference of neighbours along the axis, over the standard deviation of the channel; mean
    over channels. overlap: Dice of the foreground of neighbouring slices across the axis; mean over the pairs of which
    one has foreground, NaN if none has.

    Args: image: (channels, *spatial). label: (*spatial), three axes.
    """
    flat = image.reshape(len(image), -1).astype(np.float64)
    scaled = (flat / np.maximum(flat.std(1, keepdims=True), 1e-9)).reshape(image.shape)
    found = {}
    for axis in range(3):
        steps = np.abs(np.diff(scaled, axis=1 + axis))
        found[f"gradient along axis {axis}"] = float(steps.mean()) if steps.size else np.nan
        masks = np.moveaxis(label > 0, axis, 0).reshape(label.shape[axis], -1)
        total = masks[1:].sum(1) + masks[:-1].sum(1)
        both = (masks[1:] & masks[:-1]).sum(1)
        seen = total > 0
        found[f"overlap along axis {axis}"] = float((2 * both[seen] / total[seen]).mean()) if seen.any() else np.nan
    return found


def coherences(dataset: RawDataset, cases: Sequence[str], test: bool = False) -> list[dict[str, float]]:
    """`slice_coherence` of each case, one in memory at a time; none of pictures."""
    pairs = (read_case(dataset, case, test) for case in cases)
    return [slice_coherence(pair.image, pair.label) for pair in pairs if pair.label.ndim == 3]


def kolmogorov(some: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Kolmogorov distance of two sets' distributions of each number: 0 if equal, 1 if they do not meet; NaN if unknown.

    It is the largest difference of the two distribution functions, the statistic of Kolmogorov and Smirnov's test.
    """
    found = {}
    for name in some[0] if some and others else ():
        first, second = ([row[name] for row in rows if row[name] == row[name]] for rows in (some, others))
        values = np.sort([*first, *second])
        shares = [np.searchsorted(np.sort(part), values, "right") / max(len(part), 1) for part in (first, second)]
        found[name] = float(np.abs(shares[0] - shares[1]).max()) if first and second else np.nan
    return found


def compared(
    made: Sequence[Mapping[str, float]], training: Sequence[Mapping[str, float]], unseen: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Kolmogorov distances to training volumes of synthetic ones, of unseen real ones, and of their own halves; and
    the mean numbers of each set. Empty without volumes."""
    if not made or not training:
        return {}
    sets = {"synthetic": made, "training": training, **({"held_out": unseen} if unseen else {})}
    distances = {"synthetic": kolmogorov(made, training), "floor": kolmogorov(training[::2], training[1::2])}
    if unseen:
        distances["held_out"] = kolmogorov(unseen, training)
    means = {
        f"mean of {name.replace('_', '-')}": {key: mean_defined(row[key] for row in rows) for key in rows[0]}
        for name, rows in sets.items()
    }
    return {**distances, **means}

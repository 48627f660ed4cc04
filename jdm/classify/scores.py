"""Scores of classifiers: per class and overall, with bootstrap intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

_RESAMPLES, _BINS = 500, 10


def scores(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Overall scores of probabilities p (n, classes) for classes y (n,).

    auc: one class against the rest, mean over the classes present. calibration: expected calibration error over ten
    equal bins of the highest probability (Guo et al. 2017, arXiv:1706.04599, Eq. 3).
    """
    found = p.argmax(1)
    present = [k for k in range(p.shape[1]) if 0 < (y == k).sum() < len(y)]
    table = confusion(y, p)
    true, predicted, right = table.sum(1), table.sum(0), np.diag(table)
    f1 = [_ratio(2 * right[k], true[k] + predicted[k]) for k in range(p.shape[1]) if true[k]]
    return {
        "accuracy": float(np.mean(found == y)),
        "balanced accuracy": float(np.mean(right[true > 0] / true[true > 0])),
        "F1": float(np.mean(f1)),
        "AUC": float(np.mean([auc(y == k, p[:, k]) for k in present])) if present else math.nan,
        "calibration": calibration_error(y, p),
    }


def by_class(y: np.ndarray, p: np.ndarray) -> list[dict[str, float]]:
    """Sensitivity, specificity, precision, F1 and AUC of each class; NaN where a class does not occur."""
    table = confusion(y, p)
    rows = []
    for k in range(p.shape[1]):
        tp, fn, fp = table[k, k], table[k].sum() - table[k, k], table[:, k].sum() - table[k, k]
        tn = table.sum() - tp - fn - fp
        rows.append(
            {
                "n": int(tp + fn), "sensitivity": _ratio(tp, tp + fn), "specificity": _ratio(tn, tn + fp),
                "precision": _ratio(tp, tp + fp), "F1": _ratio(2 * tp, 2 * tp + fp + fn), "AUC": auc(y == k, p[:, k]),
            }
        )  # fmt: skip
    return rows


def confusion(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(classes, classes): rows true, columns found."""
    classes = p.shape[1]
    return np.bincount(y * classes + p.argmax(1), minlength=classes**2).reshape(classes, classes)


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve, by ranks (ties count half); NaN unless both kinds occur."""
    n, m = int(positive.sum()), int((~positive).sum())
    return _ratio(rankdata(score)[positive].sum() - n * (n + 1) / 2, n * m)


def calibration_error(y: np.ndarray, p: np.ndarray) -> float:
    confidence, right = p.max(1), p.argmax(1) == y
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def intervals(y: np.ndarray, runs: np.ndarray, groups: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Mean over runs of each of `scores`, with its 95 % percentile interval over resampled groups, such as patients.

    Args: y: (n,). runs: probabilities (runs, n, classes). groups: of each image.
    """
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    members = [np.flatnonzero(numbers == k) for k in range(numbers.max() + 1)]
    chosen = np.random.default_rng(0).integers(0, len(members), (_RESAMPLES, len(members)))
    draws = [np.arange(len(numbers)), *(np.concatenate([members[k] for k in row]) for row in chosen)]
    found = [[scores(y[draw], row[draw]) for row in runs] for draw in draws]
    result = {}
    for name in found[0][0]:
        whole, *drawn = (float(np.mean([one[name] for one in rows])) for rows in found)
        low, high = np.nanquantile(drawn, [0.025, 0.975]) if len(members) > 1 else (math.nan, math.nan)
        entries = (("mean", whole), ("low", low), ("high", high))
        result[name] = {key: None if math.isnan(value) else float(value) for key, value in entries}
    return result


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan

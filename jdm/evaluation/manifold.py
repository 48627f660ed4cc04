"""Distances between sets of features that need all of both sets: Frechet distance, precision and recall, density and
coverage."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 5


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the normal distributions fitted to features (n, d) and (m, d).

    With no more samples than features its bias exceeds most differences.
    Source: Heusel et al. 2017 (arXiv:1706.08500), Eq. 6. The trace of the root of the product of covariances is the
    sum of singular values of the product of the centred features, which needs no d x d matrix.
    """
    x, y = (part - part.mean(0) for part in (a, b))
    cross = np.linalg.norm(x @ y.T / np.sqrt((len(x) - 1) * (len(y) - 1)), "nuc")
    spread = np.square(x).sum() / (len(x) - 1) + np.square(y).sum() / (len(y) - 1)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread - 2 * cross)


def manifold(samples: np.ndarray, real: np.ndarray, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of samples (n, d) with respect to real ones (m, d).

    The support of a set is the union of balls about its members that reach to their `neighbours`-th nearest neighbour.
    precision: share of the samples in the real support. recall: share of real ones in the samples' support. density:
    number of real balls around a sample, over `neighbours`. coverage: share of real balls that hold a sample.
    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), Eq. 1 and 2; Naeem et al. 2020 (arXiv:2002.09797), Eq. 4 and 5.
    """
    k = min(neighbours, len(samples) - 1, len(real) - 1)
    of_real, of_made = (NearestNeighbors(n_neighbors=k).fit(part) for part in (real, samples))
    radius_real, radius_made = (found.kneighbors()[0][:, -1] for found in (of_real, of_made))
    inside_real = np.zeros(len(samples))
    covered = np.zeros(len(real), bool)
    recalled = np.zeros(len(real), bool)
    for first in range(0, len(samples), 256):
        block = slice(first, first + 256)
        squared = np.square(samples[block]).sum(1)[:, None] + np.square(real).sum(1) - 2 * samples[block] @ real.T
        distance = np.sqrt(np.maximum(squared, 0))
        held = distance <= radius_real
        inside_real[block] = held.sum(1)
        covered |= held.any(0)
        recalled |= (distance <= radius_made[block, None]).any(0)
    return {
        "precision": float(np.mean(inside_real > 0)),
        "recall": float(recalled.mean()),
        "density": float(inside_real.mean() / k),
        "coverage": float(covered.mean()),
    }

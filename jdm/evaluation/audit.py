"""Checks whether synthetic pairs are copies of training pairs, by nearest-neighbour distances, with real controls.

No single threshold separates copies from similar cases for every dataset. Each number is therefore also computed for
held-out real cases, which cannot be copies, and the closest pairs can be inspected by eye.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdm.errors import DataError
from jdm.system.files import strict

COPY_RATIO = 1 / 3
"""A sample is a suspected copy if its nearest distance over its second nearest is below this."""


@dataclass(frozen=True)
class Nearest:
    """The training case nearest to each of n samples, every array (n,)."""

    index: np.ndarray
    """Index of the nearest training case."""
    distance: np.ndarray
    """Root mean square difference to it, in the unit of the compared values."""
    ratio: np.ndarray
    """Ratio of that distance to the second nearest one; 0 for an exact copy, NaN with one training case."""
    turns: np.ndarray
    """Counter-clockwise quarter turns that map the training case to the sample, after `flipped`."""
    flipped: np.ndarray
    """Whether the training case is first mirrored along its last axis."""


@dataclass(frozen=True)
class Share:
    """Audit of one set of n samples."""

    n: int
    copies: int
    """Samples equal to a training case."""
    below_ratio: float
    """Share whose distance ratio is below `COPY_RATIO`; NaN with one training case."""
    authentic: float
    """Share of samples farther from their nearest training case than that case is from the rest of the set (100
    times this is AuthPct); NaN with one training case. Source: Alaa et al. 2022 (arXiv:2102.08921)."""
    median_distance: float
    smallest_distance: float
    mask_information: float
    """Mean mutual information of a sample's mask and that of its nearest training case, nats; NaN without masks."""


@dataclass(frozen=True)
class Audit:
    """Synthetic and held-out real samples, both compared with the same training set."""

    synthetic: Share
    held_out: Share | None
    nearest: Nearest
    """Of the synthetic samples."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with NaN as None; of `nearest`, only index, distance and ratio."""
        parts = {"synthetic": self.synthetic, "held_out": self.held_out}
        values: dict[str, Any] = {
            name: None if part is None else dataclasses.asdict(part) for name, part in parts.items()
        }
        near = self.nearest
        values["nearest"] = {
            "index": near.index.tolist(),
            "distance": near.distance.tolist(),
            "ratio": near.ratio.tolist(),
        }
        return strict(values)


def nearest_pairs(
    synthetic: np.ndarray,
    training: np.ndarray,
    *,
    symmetries: bool = True,
    standardise: bool = False,
    size: int | None = None,
) -> Nearest:
    """The nearest training case of each sample, over flips and quarter turns of the training set.

    Args:
        synthetic: (n, C, H, W), image channels and, to compare pairs, mask channels.
        training: (m, C, H, W).
        symmetries: compare with the eight flips and turns of each training case (four where H != W).
        standardise: first give every channel of every case zero mean and unit variance, so that brightness and
            contrast do not hide a copy.
        size: first reduce by area averaging to at most this many pixels per side.
    Raises: DataError if the sets are empty, differ in shape, or hold non-finite numbers.
    """
    queries, known = prepare(synthetic, standardise, size), prepare(training, standardise, size)
    return _nearest(queries, known, symmetries, exclude_self=False)


def audit(
    synthetic: np.ndarray,
    training: np.ndarray,
    held_out: np.ndarray | None = None,
    *,
    symmetries: bool = True,
    standardise: bool = False,
    size: int | None = None,
    mask_channels: int = 0,
) -> Audit:
    """Copies, distance ratios and authenticity of synthetic samples, with held-out real ones as control.

    Args: as for `nearest_pairs`, and:
        held_out: (k, C, H, W), real cases not used for training.
        mask_channels: number of trailing mask channels, one value per class and pixel.
    """
    own = _own_distances(prepare(training, standardise, size), symmetries)

    def share(samples: np.ndarray) -> tuple[Share, Nearest]:
        near = nearest_pairs(samples, training, symmetries=symmetries, standardise=standardise, size=size)
        below = math.nan if len(training) == 1 else float(np.mean(near.ratio < COPY_RATIO))
        return (
            Share(
                n=len(samples),
                copies=int(np.count_nonzero(near.distance == 0)),
                below_ratio=below,
                authentic=_authentic(near, own),
                median_distance=float(np.median(near.distance)),
                smallest_distance=float(near.distance.min()),
                mask_information=_shared_with_nearest(samples, training, near, mask_channels),
            ),
            near,
        )

    synthetic_share, near = share(synthetic)
    return Audit(synthetic_share, None if held_out is None else share(held_out)[0], near)


def mutual_information(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Mutual information of the labels of two masks of the same shape, pixel by pixel, in nats.

    Raises: DataError if the shapes differ.
    Source: thesis Eq. 5.1, with the joint histogram of the two masks.
    """
    if mask_a.shape != mask_b.shape or mask_a.size == 0:
        raise DataError(
            f"masks of shape {mask_a.shape} and {mask_b.shape}; expected the same, not empty; compare masks of one size"
        )
    values_a, a = np.unique(mask_a, return_inverse=True)
    values_b, b = np.unique(mask_b, return_inverse=True)
    shape = (values_a.size, values_b.size)
    joint = np.bincount(a.ravel() * shape[1] + b.ravel(), minlength=shape[0] * shape[1]).reshape(shape) / a.size
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log(joint[seen] / independent[seen])))


def _shared_with_nearest(samples: np.ndarray, training: np.ndarray, near: Nearest, mask_channels: int) -> float:
    """Mean mutual information of the masks of samples and of their nearest training cases, turned to match."""
    if mask_channels == 0:
        return math.nan
    symmetry = near.turns + 4 * near.flipped
    shared = [
        mutual_information(_classes(sample), _classes(transformed(training[index, -mask_channels:], int(number))))
        for sample, index, number in zip(samples[:, -mask_channels:], near.index, symmetry, strict=True)
    ]
    return float(np.mean(shared))


def _classes(mask: np.ndarray) -> np.ndarray:
    """(H, W): a number for each combination of values in the channels of a mask (M, H, W)."""
    _, number = np.unique(mask.reshape(len(mask), -1), axis=1, return_inverse=True)
    return number.reshape(mask.shape[1:])


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Images (n, C, H, W) averaged over areas to at most `size` pixels per side, the aspect kept."""
    height, width = images.shape[-2:]
    factor = min(1.0, size / max(height, width))
    rows = area_weights(height, max(1, round(height * factor)))
    columns = area_weights(width, max(1, round(width * factor)))
    return np.matmul(np.matmul(rows, images.astype(np.float64)), columns.T)


def prepare(images: np.ndarray, standardise: bool, size: int | None) -> np.ndarray:
    """Float64 copies of images (n, C, H, W), reduced in size and standardised as asked.

    Raises: DataError unless there is at least one image, all numbers finite.
    """
    if images.ndim != 4 or images.size == 0:
        raise DataError(
            f"images have shape {images.shape}; expected (cases, channels, y, x), at least one case; add some"
        )
    values = images.astype(np.float64) if size is None else shrink(images, size)
    if not np.isfinite(values).all():
        raise DataError("images hold NaN or infinite values; expected finite numbers; remove those cases")
    if standardise:
        values = values - values.mean((2, 3), keepdims=True)
        deviation = values.std((2, 3), keepdims=True)
        values = values / np.where(deviation > 0, deviation, 1)
    return values


def area_weights(length: int, parts: int) -> np.ndarray:
    """(parts, length): row i averages the i-th of `parts` equal stretches of `length` pixels."""
    edges = np.linspace(0, length, parts + 1)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) / (length / parts)


def _check(synthetic: np.ndarray, training: np.ndarray) -> None:
    if synthetic.shape[1:] != training.shape[1:]:
        raise DataError(
            f"samples have shape {synthetic.shape[1:]} and training cases {training.shape[1:]}; expected the same "
            "channels and size; cut both to patches of one size"
        )


def _nearest(queries: np.ndarray, known: np.ndarray, symmetries: bool, exclude_self: bool) -> Nearest:
    """`nearest_pairs` of prepared arrays; with `exclude_self`, query i is training case i and is left out."""
    _check(queries, known)
    squared = np.full((len(queries), len(known)), np.inf)
    symmetry = np.zeros(squared.shape, dtype=np.int64)
    for number in _symmetries(known.shape, symmetries):
        candidate = _squared_distances(queries, transformed(known, number))
        symmetry[candidate < squared] = number
        squared = np.minimum(squared, candidate)
    if exclude_self:
        np.fill_diagonal(squared, np.inf)
    rows = np.arange(len(queries))
    order = np.argsort(squared, axis=1, kind="stable")[:, :2]
    # Expanding |a - b|^2 rounds, but an exact copy must have distance zero: recompute the nearest two directly.
    exact = np.full(order.shape, np.inf)
    for row, column in zip(*np.nonzero(np.isfinite(squared[rows[:, None], order])), strict=True):
        case = order[row, column]
        difference = queries[row] - transformed(known[case], int(symmetry[row, case]))
        exact[row, column] = np.sqrt(np.mean(np.square(difference)))
    best = exact.argmin(1)
    index, distance = order[rows, best], exact[rows, best]
    ratio = np.full(len(queries), np.nan)
    if len(known) - exclude_self > 1:
        second = exact[rows, 1 - best]
        ratio = np.divide(distance, second, out=np.zeros(len(queries)), where=second > 0)
    chosen = symmetry[rows, index]
    return Nearest(index, distance, ratio, chosen % 4, chosen >= 4)


def _symmetries(shape: tuple[int, ...], wanted: bool) -> tuple[int, ...]:
    """Numbers of the symmetries to try: 0 is none, 1 to 3 quarter turns, 4 to 7 those after a flip."""
    if not wanted:
        return (0,)
    return tuple(range(8)) if shape[-1] == shape[-2] else (0, 2, 4, 6)


def transformed(images: np.ndarray, symmetry: int) -> np.ndarray:
    """Images (..., H, W) flipped along the last axis if symmetry is 4 or more, then turned by symmetry % 4 quarters."""
    flipped = images[..., ::-1] if symmetry >= 4 else images
    return np.rot90(flipped, symmetry % 4, axes=(-2, -1))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) summed squared differences, through one matrix product."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)


def _own_distances(known: np.ndarray, symmetries: bool) -> np.ndarray:
    """(m,) distance of each training case to the nearest other one."""
    if len(known) == 1:
        return np.full(1, np.nan)
    return _nearest(known, known, symmetries, exclude_self=True).distance


def _authentic(near: Nearest, own: np.ndarray) -> float:
    return math.nan if own.size == 1 else float(np.mean(near.distance > own[near.index]))

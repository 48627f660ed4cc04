"""Haar wavelets: an orthonormal change of basis that halves the grid at each level.

White noise stays white noise of the same level, and squared errors keep their sum, so all that holds for a sample in
pixels holds for its sub-bands. A network that works on them has 4 times (volumes: 8 times) fewer places per level.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MOST_LEVELS = 2
Levels = int | tuple[int, ...]
"""Of every axis, or of each; an axis without levels, such as that across thick slices, stays as it is."""


def haar(x: Tensor, levels: Levels) -> Tensor:
    """Sub-bands of x (B, C, *spatial): (B, C * bands, *spatial / 2^levels), where bands = 2^(sum of levels over axes).

    A level replaces each pair of neighbours along each axis by their sum and difference, over sqrt(2), in every band
    (a wavelet packet). The first band of a channel is sqrt(bands) times the local mean.
    Source: Haar 1910. As a denoiser's front end: Friedrich et al. 2024 (arXiv:2402.19043), with one level.

    Args: x: each side a multiple of 2^levels.
    """
    axes = x.ndim - 2
    along = _per_axis(levels, axes)
    if not any(along):
        return x
    blocks = x
    for axis, level in zip(range(2, 2 + 2 * axes, 2), along, strict=True):
        blocks = blocks.unflatten(axis, (-1, 2**level))  # (B, C, grid, side, grid, side, ...)
    grid, inner = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    blocks = blocks.permute(0, *grid, 1, *inner).flatten(-axes)  # (B, *grid, C, bands)
    bands = blocks @ torch.as_tensor(_packet(along), dtype=x.dtype, device=x.device).T
    return bands.flatten(-2).movedim(-1, 1)


def inverse_haar(bands: Tensor, levels: Levels) -> Tensor:
    """The x of which `haar` gave the bands."""
    axes = bands.ndim - 2
    along = _per_axis(levels, axes)
    if not any(along):
        return bands
    packet = torch.as_tensor(_packet(along), dtype=bands.dtype, device=bands.device)
    blocks = bands.movedim(1, -1).unflatten(-1, (-1, 2 ** sum(along))) @ packet
    blocks = blocks.unflatten(-1, [2**level for level in along])  # (B, *grid, C, side, ...)
    order = [part for axis in range(axes) for part in (1 + axis, 2 + axes + axis)]
    x = blocks.permute(0, 1 + axes, *order)
    for axis in range(2, 2 + axes):
        x = x.flatten(axis, axis + 1)
    return x


def band_stds(finest: Sequence[float], levels: Levels, axes: int) -> list[float]:
    """Standard deviations of the bands of some levels, from those of the bands of `MOST_LEVELS`.

    The variance of a band is the mean over the bands into which further levels split it.
    """
    sides = [side for level in _per_axis(levels, axes) for side in (2**level, 2 ** (MOST_LEVELS - level))]
    variances = np.square(finest).reshape(sides)  # (kept, split, kept, ...)
    return np.sqrt(variances.mean(tuple(range(1, 2 * axes, 2)))).ravel().tolist()


def _per_axis(levels: Levels, axes: int) -> tuple[int, ...]:
    return (levels,) * axes if isinstance(levels, int) else levels


@functools.cache
def _packet(levels: tuple[int, ...]) -> np.ndarray:
    """The orthonormal matrix (bands, pixels of a block), float64."""
    pair = np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)

    def along(level: int) -> np.ndarray:
        matrix = np.ones((1, 1))
        for _ in range(level):  # the first level acts on the last bit of a pixel's place, and decides the first bit
            matrix = np.einsum("bp,cq->bcqp", pair, matrix).reshape(2 * len(matrix), -1)
        return matrix

    return functools.reduce(np.kron, map(along, levels))

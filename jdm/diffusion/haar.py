"""Haar wavelets: an orthonormal change of basis that halves the grid at each level.

White noise stays white noise of the same level, and squared errors keep their sum, so all that holds for a sample in
pixels holds for its sub-bands. A network that works on them has 4 times (volumes: 8 times) fewer places per level.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

MOST_LEVELS = 2


def haar(x: Tensor, levels: int) -> Tensor:
    """Sub-bands of x (B, C, *spatial): (B, C * bands, *spatial / 2^levels), where bands = 2^(levels * axes).

    A level replaces each pair of neighbours along each axis by their sum and difference, over sqrt(2), in every band
    (a wavelet packet). The first band of a channel is 2^(levels * axes / 2) times the local mean.
    Source: Haar 1910. As a denoiser's front end: Friedrich et al. 2024 (arXiv:2402.19043), with one level.

    Args: x: each side a multiple of 2^levels.
    """
    if levels == 0:
        return x
    axes, side = x.ndim - 2, 2**levels
    blocks = x
    for axis in range(2, 2 + 2 * axes, 2):
        blocks = blocks.unflatten(axis, (-1, side))  # (B, C, grid, side, grid, side, ...)
    grid, inner = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    blocks = blocks.permute(0, *grid, 1, *inner).flatten(-axes)  # (B, *grid, C, side^axes)
    bands = blocks @ _packet(levels, axes, x.dtype, x.device).T
    return bands.flatten(-2).movedim(-1, 1)


def inverse_haar(bands: Tensor, levels: int) -> Tensor:
    """The x of which `haar` gave the bands."""
    if levels == 0:
        return bands
    axes, side = bands.ndim - 2, 2**levels
    blocks = bands.movedim(1, -1).unflatten(-1, (-1, side**axes)) @ _packet(levels, axes, bands.dtype, bands.device)
    blocks = blocks.unflatten(-1, (side,) * axes)  # (B, *grid, C, side, ...)
    order = [part for axis in range(axes) for part in (1 + axis, 2 + axes + axis)]
    x = blocks.permute(0, 1 + axes, *order)
    for axis in range(2, 2 + axes):
        x = x.flatten(axis, axis + 1)
    return x


def band_stds(finest: Sequence[float], levels: int, axes: int) -> list[float]:
    """Standard deviations of the bands of some levels, from those of the bands of `MOST_LEVELS`.

    The variance of a band is the mean over the bands into which further levels split it.
    """
    kept, split = 2**levels, 2 ** (MOST_LEVELS - levels)
    variances = torch.tensor(finest, dtype=torch.float64).square().reshape([kept, split] * axes)
    return variances.mean(list(range(1, 2 * axes, 2))).sqrt().flatten().tolist()


@functools.cache
def _packet(levels: int, axes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal matrix (bands, pixels of a block)."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    along = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(levels):  # the first level acts on the last bit of a pixel's place, and decides the first bit
        along = torch.einsum("bp,cq->bcqp", pair, along).reshape(2 * len(along), -1)
    matrix = functools.reduce(torch.kron, [along] * axes)
    return matrix.to(device, dtype)

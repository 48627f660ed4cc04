"""Canvases larger than the training patch: overlapping windows, blended at every call of the denoiser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from types import EllipsisType

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.noise import Denoise
from jdm.diffusion.repaint import Sample
from jdm.diffusion.run import Levels, Part
from jdm.errors import ConfigError

Place = tuple[slice | EllipsisType, ...]
"""Index of a window in (C, *spatial) or, with an ellipsis first, in (..., *spatial)."""


def windowed(denoise: Denoise, window: tuple[int, ...], overlap: float = 0.25, batch: int = 16) -> Denoise:
    """A `Denoise` for canvases larger than the network's window.

    The canvas is covered by equal windows, the first and last flush with its borders. Neighbours overlap by at least
    `overlap` of a side. The windows are denoised `batch` at a time and blended by weights that fall smoothly towards
    the sides of a window and sum to one at each pixel. The cost is linear in the size of the canvas. A canvas of the
    window's size is denoised as it is.

    Args: window: sides in pixels, one for each spatial axis.
    Raises: ConfigError if overlap is not in [0, 1) or batch is below 1; when called, if the canvas is smaller than the
        window.
    Source: Bar-Tal et al. 2023 (arXiv:2302.08113), MultiDiffusion, Eq. 5: the weighted mean of the windows.
    """
    if not 0 <= overlap < 1 or batch < 1:
        raise ConfigError(f"window overlap {overlap}, batch {batch}; expected overlap in [0, 1), batch at least 1")

    def denoise_canvas(x: Tensor, sigma: Tensor) -> Tensor:
        canvas = tuple(x.shape[2:])
        if canvas == tuple(window):
            return denoise(x, sigma)
        if len(canvas) != len(window) or any(c < w for c, w in zip(canvas, window, strict=True)):
            raise ConfigError(f"canvas {canvas} does not hold the window {window}; enlarge data.canvas_size")
        grid = _grid(canvas, window, overlap, x)
        tiles = [(case, *place) for case in range(len(x)) for place in grid]
        blended = torch.zeros_like(x)
        for first in range(0, len(tiles), batch):
            chunk = tiles[first : first + batch]
            cases = torch.tensor([case for case, _, _ in chunk], device=x.device)
            estimates = denoise(torch.stack([x[case][place] for case, place, _ in chunk]), sigma[cases])
            for (case, place, weight), estimate in zip(chunk, estimates, strict=True):
                blended[case][place] += estimate * weight
        return blended

    return denoise_canvas


def with_beside(denoise: Denoise, beside: Tensor) -> Denoise:
    """A `Denoise` for a network that is given further channels beside x, which it returns unchanged.

    Args: beside: (B or 1, channels, *spatial of a canvas); a smaller x is taken for the middle of that canvas.
    """

    def denoise_beside(x: Tensor, sigma: Tensor) -> Tensor:
        given = beside[_middle(beside.shape[2:], x.shape[2:])].expand(len(x), *[-1] * (x.ndim - 1))
        return denoise(torch.cat([x, given.to(x)], dim=1), sigma)[:, : x.shape[1]]

    return denoise_beside


def _middle(canvas: Sequence[int], window: Sequence[int]) -> Place:
    return (..., *(slice((c - w) // 2, (c - w) // 2 + w) for c, w in zip(canvas, window, strict=True)))


def with_one_look(
    sample: Sample, denoise: Denoise, noise: Tensor, fresh: Noise, sigmas: Tensor, window: tuple[int, ...],
    spread: float, known: Known | None,
) -> tuple[Tensor, Levels]:  # fmt: skip
    """Start of a canvas whose windows agree in their mean: its noise, and the levels that are left to step through.

    Windows that hardly overlap would each settle on a mean of their own, and one canvas would have the stain or the
    light of several images. Therefore its middle is first sampled alone, down to the level at which the noise of a
    window's mean is `spread`, how far these means lie apart within real images. The canvas begins there, from the mean
    found: its own noise, added to that, makes its windows differ as much as real ones. The steps above that level cost
    one window.

    Args:
        noise: of the canvas, standard normal. fresh: source of more like it, for the sample of the middle.
        sigmas, known: of the canvas, as for `sample`. window: its sides, as for `windowed`.
    Returns: noise and levels for `sample` with the windowed `denoise`; unchanged if the canvas is a window, or the
        schedule has no step on either side of the level.
    """
    level = sigmas.new_tensor([spread * math.sqrt(math.prod(window))])
    above, below = sigmas[sigmas > level], sigmas[sigmas < level]
    if noise.shape[2:] == tuple(window) or not len(above) or len(below) < 2:
        return noise, sigmas
    middle = _middle(noise.shape[2:], window)
    if known is not None:
        where, values = (each.expand(noise.shape)[middle] for each in (known.where, known.values))
        known = replace(known, where=where, values=values)
    steps = len(sigmas) - 1
    one = sample(denoise, fresh()[middle], Part(torch.cat([above, level]), steps), known)
    mean = one.mean(tuple(range(2, one.ndim)), keepdim=True)
    return noise + (mean / level).to(noise), Part(torch.cat([level, below]), steps)


def _grid(canvas: tuple[int, ...], window: tuple[int, ...], overlap: float, like: Tensor) -> list[tuple[Place, Tensor]]:
    """Place and weights (*window) of every window of the canvas. The weights sum to one at each pixel."""
    axes = [_axis(c, w, overlap) for c, w in zip(canvas, window, strict=True)]
    grid = []
    for windows in itertools.product(*axes):
        weight = torch.ones((), dtype=torch.float64)
        for _, along in windows:
            weight = weight.unsqueeze(-1) * along
        grid.append(((slice(None), *(place for place, _ in windows)), weight.to(like)))
    return grid


def window_starts(side: int, window: int, overlap: float) -> list[int]:
    """First pixel of each window along one axis: evenly spaced, the first and last window flush with the borders."""
    stride = max(1, math.floor(window * (1 - overlap)))
    count = math.ceil((side - window) / stride) + 1
    return [round(i * (side - window) / max(count - 1, 1)) for i in range(count)]


def _axis(side: int, window: int, overlap: float) -> list[tuple[slice, Tensor]]:
    """Place and weights (window,), float64, of each window along one axis."""
    starts = window_starts(side, window, overlap)
    # A squared sine, zero with zero slope half a pixel outside the window, leaves no visible edge.
    bump = torch.sin(math.pi * (torch.arange(window, dtype=torch.float64) + 0.5) / window) ** 2
    total = torch.zeros(side, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += bump
    return [(slice(s, s + window), bump / total[s : s + window]) for s in starts]

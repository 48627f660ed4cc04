"""Guidance: away from what a weaker denoiser would make."""

from __future__ import annotations

from torch import Tensor

from jdm.diffusion.noise import Denoise


def autoguided(denoise: Denoise, weaker: Denoise, scale: float) -> Denoise:
    """A denoiser pushed away from a weaker one of the same data: weaker + scale * (denoise - weaker).

    The weaker one is an earlier checkpoint or a smaller network. What both estimate alike, known entries among it,
    stays; twice the cost.

    Args: scale: 1 gives `denoise` itself, more guides.
    Source: Karras et al. 2024 (arXiv:2406.02507), autoguidance.
    """
    if scale == 1:
        return denoise

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        weak = weaker(x, sigma)
        return weak + scale * (denoise(x, sigma) - weak)

    return guided

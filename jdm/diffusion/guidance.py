"""A class as a condition, and guidance: away from what a weaker denoiser would make."""

from __future__ import annotations

from torch import Tensor

from jdm.diffusion.noise import Denoise, Denoiser
from jdm.diffusion.vp import VPDenoiser


def conditioned(denoiser: Denoiser | VPDenoiser, condition: Tensor) -> Denoise:
    """The denoiser told one condition (features,), such as a class, for every sample."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, condition.to(x.device).expand(len(x), -1))

    return denoise


def guided(denoise: Denoise, weaker: Denoise, scale: float) -> Denoise:
    """A denoiser pushed away from a weaker one of the same data: weaker + scale * (denoise - weaker).

    Autoguidance: the weaker one is an earlier checkpoint or a smaller network (Karras et al. 2024, arXiv:2406.02507).
    Classifier-free guidance: it is the same network that is not told the class (Ho & Salimans 2022, arXiv:2207.12598).
    Their strength w, with (1 + w) eps(x, class) - w eps(x), is scale - 1 here; an x0 estimate is linear in eps, so
    that it is guided alike. What both estimate alike, known entries among it, stays; twice the cost.

    Args: scale: 1 gives `denoise` itself, more guides.
    """
    if scale == 1:
        return denoise

    def denoise_guided(x: Tensor, sigma: Tensor) -> Tensor:
        weak = weaker(x, sigma)
        return weak + scale * (denoise(x, sigma) - weak)

    return denoise_guided

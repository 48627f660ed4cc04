"""Conditioning on a class, and guidance away from a weaker denoiser."""

from __future__ import annotations

from torch import Tensor

from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.noise import Denoise
from jdm.diffusion.vp import VPDenoiser


def conditioned(denoiser: Denoiser | VPDenoiser, condition: Tensor) -> Denoise:
    """The denoiser conditioned on one vector (features,), such as a class, for every sample."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, condition.to(x.device).expand(len(x), -1))

    return denoise


def guided(denoise: Denoise, weaker: Denoise, scale: float) -> Denoise:
    """A denoiser guided away from a weaker one of the same data: weaker + scale * (denoise - weaker).

    Autoguidance: the weaker one is an earlier checkpoint or a smaller network (Karras et al. 2024, arXiv:2406.02507).
    Classifier-free guidance: it is the same network without the class (Ho & Salimans 2022, arXiv:2207.12598), whose
    (1 + w) eps(x, class) - w eps(x) is scale = 1 + w here, because x0 is linear in eps.
    Entries that both estimate alike, such as known ones, do not change. It doubles the cost.

    Args: scale: 1 returns `denoise` itself; above 1 guides.
    """
    if scale == 1:
        return denoise

    def denoise_guided(x: Tensor, sigma: Tensor) -> Tensor:
        weak = weaker(x, sigma)
        return weak + scale * (denoise(x, sigma) - weak)

    return denoise_guided

"""Noise levels for the samplers beside `sampling.karras_sigmas`, and zero-terminal-SNR rescaling.

Each schedule returns levels of the variance-exploding x, highest first, ending in an exact zero, from sigma_max
down to sigma_min; they differ in where they spend their steps. The linear and cosine schedules of the discrete
variance-preserving process are `vp.VPProcess(..., schedule).respaced(steps).sigmas()`; `vp_sigmas` and
`cosine_sigmas` are the same two in continuous time, for any range of levels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jdm.errors import ConfigError


def ramp(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """0 to 1 in `steps` equal strides, float64 (steps,).

    Raises: ConfigError if steps < 2, or not 0 < sigma_min < sigma_max.
    """
    if steps < 2:
        raise ConfigError(f"sampling steps is {steps}; expected at least 2; raise it")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ConfigError(
            f"sigma_min {sigma_min} and sigma_max {sigma_max} do not fit; expected 0 < sigma_min < sigma_max"
        )
    return torch.arange(steps, dtype=torch.float64) / (steps - 1)


def ve_sigmas(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Geometric levels: equal strides in ln(sigma), those of the VE SDE.

    Returns: float64, shape (steps + 1,). Raises: ConfigError as `ramp`.
    Source: Song et al. 2021 (arXiv:2011.13456), Appendix C, sigma(t) = sigma_min (sigma_max / sigma_min)^t.
    """
    along = ramp(steps, sigma_min, sigma_max)
    return _ended(sigma_max * (sigma_min / sigma_max) ** along)


def vp_sigmas(steps: int, sigma_min: float, sigma_max: float, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """Equal strides in the time t of the VP SDE with beta(t) = beta_min + t (beta_max - beta_min).

    sigma(t)^2 = exp(integral of beta from 0 to t) - 1. Its own range, t = 1e-3 to 1, is sigma 0.0105 to 152.
    Returns: float64, shape (steps + 1,). Raises: ConfigError as `ramp`.
    Source: Song et al. 2021 (arXiv:2011.13456), Appendix C: the perturbation kernel of the VP SDE.
    """
    along, slope = ramp(steps, sigma_min, sigma_max), beta_max - beta_min

    def time(sigma: float) -> float:
        return (math.sqrt(beta_min**2 + 2 * slope * math.log1p(sigma**2)) - beta_min) / slope

    t = time(sigma_max) + along * (time(sigma_min) - time(sigma_max))
    return _ended(torch.expm1(beta_min * t + slope * t**2 / 2).sqrt())


def cosine_sigmas(steps: int, sigma_min: float, sigma_max: float, s: float = 0.008) -> Tensor:
    """Equal strides in the time t of the cosine schedule, alpha_bar = f(t) / f(0), f = cos^2((t + s) / (1 + s) pi / 2).

    Returns: float64, shape (steps + 1,). Raises: ConfigError as `ramp`.
    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), Eq. 17, without its bound on beta, which `sigma_max` replaces.
    """
    along, first = ramp(steps, sigma_min, sigma_max), s / (1 + s) * math.pi / 2

    def angle(sigma: float) -> float:
        # cos(angle)^2 = cos(first)^2 / (1 + sigma^2), through the sine, which is exact at small levels.
        return math.asin(math.sqrt((sigma**2 + math.sin(first) ** 2) / (1 + sigma**2)))

    theta = angle(sigma_max) + along * (angle(sigma_min) - angle(sigma_max))
    # cos(first)^2 / cos(theta)^2 - 1.
    return _ended((torch.sin(theta - first) * torch.sin(theta + first)).sqrt() / torch.cos(theta))


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """A variance-preserving schedule changed so that its last step has no signal at all.

    sqrt(alpha_bar) is shifted so that the last is zero and scaled so that the first stays.

    A network is trained with it from the start, and must not predict the noise, which says nothing of x0 at that
    step: Lin et al. let it predict v. The level of the last step is infinite; see `zero_snr_start`.

    Args: alpha_bar: (steps,), decreasing, as `VPProcess.alpha_bar`.
    Returns: float64 (steps,), ending in an exact zero.
    Raises: ConfigError if alpha_bar does not decrease within (0, 1].
    Source: Lin et al. 2023 (arXiv:2305.08891), Algorithm 1.
    """
    root = alpha_bar.to(torch.float64).sqrt()
    if len(root) < 2 or not bool((root.diff() < 0).all()) or not 0 < root[-1] < root[0] <= 1:
        raise ConfigError("alpha_bar does not decrease within (0, 1]; expected a schedule of at least 2 steps")
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()


def zero_snr_start(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Noise for a sampler that begins at level `sigma`, after DDIM's step to it from the step without signal.

    At an infinite level x is all noise, so that DDIM's step to sigma is x0 + sigma * noise; every sampler here
    multiplies its noise by its first level.

    Args: x0: estimate at the step without signal, from `noise` alone. noise: standard normal, like x0.
    Returns: like noise.
    Source: Song et al. 2021 (arXiv:2010.02502), Eq. 12 with eta = 0 and alpha_bar = 0.
    """
    return noise + x0.to(noise) / sigma


def _ended(levels: Tensor) -> Tensor:
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])

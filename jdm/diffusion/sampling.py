"""Samplers as plain functions over a `Denoise`, and their source of noise.

x is (B, C, *spatial) and variance exploding: x = x0 + sigma * noise. `denoise(x, sigma)` estimates x0; its sigma is
(B, 2), the noise level of the image channels and that of the mask channels. Randomness is an argument: `noise` is the
standard normal start, and each call of `fresh` returns new noise. Between steps x is float64; the denoiser gets x, and
the caller the result, in the dtype of `noise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.noise import Denoise
from jdm.diffusion.run import Levels, Run, start
from jdm.diffusion.vp import Predict, VPProcess
from jdm.errors import ConfigError


class CaseNoise:
    """Standard normal noise with one seed per case.

    The noise of a case depends only on its seed and the number of earlier draws, not on the other cases of the batch.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Args: seeds: one per case (B). shape: (C, *spatial). device: of the returned noise."""
        # Always drawn on the CPU, because a CUDA generator gives other numbers for the same seed.
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __call__(self) -> Tensor:
        """The next draw, float32 (B, C, *spatial)."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)


@dataclass(frozen=True)
class Churn:
    """How much noise `sample_heun_stochastic` adds on the way (Karras et al. 2022, Algorithm 2).

    The defaults are the authors' values for ImageNet.
    """

    s_churn: float = 40.0
    """Total amount. Each step raises its level by the factor 1 + min(s_churn / N, sqrt(2) - 1), with N the number of
    steps of the whole schedule."""
    s_min: float = 0.05
    s_max: float = 50.0
    """Noise is added only at levels in [s_min, s_max]."""
    s_noise: float = 1.003
    """Standard deviation of the added noise; slightly above 1, to compensate for lost detail."""


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Noise levels for sampling, highest first, ending in an exact zero.

    Returns: float64, shape (steps + 1,), in units of encoded intensity.
    Raises: ConfigError if steps < 2, or not 0 < sigma_min < sigma_max.
    Source: Karras et al. 2022 (arXiv:2206.00364), Eq. 5.
    """
    if steps < 2:
        raise ConfigError(f"sampling steps is {steps}; expected at least 2; raise it")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ConfigError(
            f"sigma_min {sigma_min} and sigma_max {sigma_max} do not fit; expected 0 < sigma_min < sigma_max"
        )
    along = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + along * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def sample_heun(denoise: Denoise, noise: Tensor, sigmas: Levels, known: Known | None = None) -> Tensor:
    """Heun's second-order integration of the probability flow ODE.

    Args:
        noise: standard normal (B, C, *spatial); multiplied here by the first level.
        sigmas: levels, highest first (steps + 1,); see `karras_sigmas`. If the last is not zero, the result is the
            sample at that level.
        known: entries to keep.
    Returns: x0, like noise. 2 * steps - 1 calls of `denoise` if sigmas ends in zero.
    Raises: ConfigError if sigmas does not decrease, or `known` does not fit (see `Known`).
    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 1 with sigma(t) = t, s(t) = 1.
    """
    run, x = start(denoise, noise, sigmas, known)
    for sigma, sigma_next in run.steps:
        x = _heun_step(run, x, sigma, sigma_next)
    return x.to(noise)


@torch.no_grad()
def sample_heun_stochastic(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Levels,
    fresh: Noise,
    churn: Churn | None = None,
    known: Known | None = None,
) -> Tensor:
    """Heun steps, each after some noise has been added; with s_churn 0 the same as `sample_heun` bit for bit.

    Args: fresh: source of standard normal noise like `noise`, called only by steps that add noise. Others: as for
        `sample_heun`.
    Returns and raises: as `sample_heun`.
    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2.
    """
    churn = Churn() if churn is None else churn
    run, x = start(denoise, noise, sigmas, known)
    gamma = min(churn.s_churn / run.schedule_steps, math.sqrt(2) - 1)
    for sigma, sigma_next in run.steps:
        if gamma > 0 and churn.s_min <= sigma <= churn.s_max:
            raised = sigma * (1 + gamma)
            x = x + math.sqrt(raised**2 - sigma**2) * churn.s_noise * fresh().to(x)
            # Noise was added to every entry. That is right for entries known by replacement, which are as noisy as the
            # others, but entries known exactly must stay clean.
            if run.known is not None and run.known.mode == "exact":
                x = run.known.impose(x, run.known.values)
            sigma = raised
        x = _heun_step(run, x, sigma, sigma_next)
    return x.to(noise)


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Levels,
    eta: float = 0.0,
    fresh: Noise | None = None,
    known: Known | None = None,
) -> Tensor:
    """DDIM, first order, on any schedule of levels.

    eta = 0 is deterministic and is Euler's method; eta = 1 is ancestral sampling, with the variance of thesis Eq. 2.6.
    At few steps the samples vary too little. Gaussian data of standard deviation 0.5, sampled with the exact denoiser
    over the levels 80 to 0.002, keep 0.72 of their variance at 18 steps and 0.94 at 100; with eta = 1, 0.54 and 0.89.

    Args: fresh: source of standard normal noise like `noise`, needed if eta > 0. Others: as for `sample_heun`.
    Returns: x0, like noise. One call of `denoise` a step.
    Raises: ConfigError if eta is not in [0, 1] or eta > 0 without `fresh`; else as `sample_heun`.
    Source: Song et al. 2021 (arXiv:2010.02502), Eq. 12 and 16, divided by sqrt(alpha_bar): with
        sigma^2 = (1 - alpha_bar) / alpha_bar their sigma_t becomes eta * sigma' * sqrt(1 - sigma'^2 / sigma^2).
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta is {eta}; expected 0 to 1; correct it")
    if eta > 0 and fresh is None:
        raise ConfigError(f"eta is {eta} without a source of noise; expected one; pass fresh=, or eta 0")
    run, x = start(denoise, noise, sigmas, known)
    for sigma, sigma_next in run.steps:
        x0 = run.predict(x, sigma)
        renewed = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        x = x0 + math.sqrt(sigma_next**2 - renewed**2) * (x - x0) / sigma
        if renewed > 0:
            assert fresh is not None
            x = x + renewed * fresh().to(x)
        x = run.keep(x, run.draw(sigma_next))
    return x.to(noise)


@torch.no_grad()
def sample_dpmpp_2m(denoise: Denoise, noise: Tensor, sigmas: Levels, known: Known | None = None) -> Tensor:
    """DPM-Solver++(2M): second order with one call of `denoise` a step.

    The steps are the paper's in lambda = -ln(sigma), with alpha = 1. The first step has no history and is of first
    order. A step to level zero, where lambda is infinite, returns the estimate of x0.

    Args, returns and raises: as `sample_heun`.
    Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 2.
    """
    run, x = start(denoise, noise, sigmas, known)
    previous: tuple[Tensor, float] | None = None  # the last estimate of x0, and the last step in lambda
    for sigma, sigma_next in run.steps:
        x0 = run.predict(x, sigma)
        estimate = x0
        if sigma_next > 0:
            h = math.log(sigma / sigma_next)
            if previous is not None:
                x0_before, h_before = previous
                estimate = x0 + (h / h_before) / 2 * (x0 - x0_before)
            previous = x0, h
        share = sigma_next / sigma
        x = run.keep(share * x + (1 - share) * estimate, run.draw(sigma_next))
    return x.to(noise)


@torch.no_grad()
def sample_ancestral(
    predict: Predict,
    process: VPProcess,
    noise: Tensor,
    fresh: Noise,
    known: Known | None = None,
    clip: float | None = None,
) -> Tensor:
    """Ancestral sampling of the variance-preserving process with its learned variance.

    x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) * eps) / sqrt(alpha_t) + sigma_t * z: thesis Eq. 2.19, which prints
    sqrt(alpha_bar_t) where sqrt(alpha_t) is meant. The mean is computed by Eq. 2.6 from the estimate of x0: the same
    value, and the estimate can be clipped first.

    Args:
        predict: `VPDenoiser.predict` of the same process.
        process: the whole process or a `respaced` one.
        noise: x_T, standard normal (B, C, *spatial). fresh: source of z.
        known: of mode "replacement" (thesis, Algorithm 2), because this network has one level for image and mask.
            Replacement is biased; see `Known`.
        clip: each estimate of x0 is clipped to [-clip, clip]; None: not clipped.
    Returns: x0, like noise.
    Raises: ConfigError if `known` is of mode "exact".
    """
    x = noise.to(torch.float64)
    known = None if known is None else known.prepared(x)
    if known is not None and known.mode == "exact":
        raise ConfigError("ancestral sampling got Known of mode 'exact'; expected mode 'replacement'; change it")
    if known is not None:
        x = known.impose(x, process.q_sample(known.values, process.steps - 1, x))
    for t in reversed(range(process.steps)):
        steps = torch.full((x.shape[0],), t, dtype=torch.long, device=x.device)
        estimate, log_variance = predict(x.to(noise.dtype), steps)
        x0 = process.predict_x0(x, t, estimate.to(x))
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
        x = process.posterior_mean(x0, x, t)
        if t > 0:
            x = x + torch.exp(0.5 * log_variance.to(x)) * fresh().to(x)
        if known is not None:
            level = process.sigma(t - 1) if t > 0 else 0.0
            x = known.impose(x, known.draw(level) / math.sqrt(1 + level**2))
    return x.to(noise)


def _heun_step(run: Run, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """One step of Karras et al. 2022, Algorithm 1, lines 4 to 8."""
    drawn = run.draw(sigma_next)
    slope = (x - run.predict(x, sigma)) / sigma
    euler = run.keep(x + (sigma_next - sigma) * slope, drawn)
    if sigma_next == 0:
        return euler
    slope_next = (euler - run.predict(euler, sigma_next)) / sigma_next
    return run.keep(x + (sigma_next - sigma) * (slope + slope_next) / 2, drawn)

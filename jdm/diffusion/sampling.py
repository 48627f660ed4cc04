"""Samplers: plain functions over a `Denoise`, and the noise they work with.

x is (B, C, *spatial) and variance exploding, x = x0 + sigma * noise. `denoise(x, sigma)` estimates x0; its
sigma is (B, 2), the level of the image channels and that of the mask channels. Noise comes in as an argument:
`noise` is the standard normal start, `fresh` a callable that gives more of it. The state is kept in float64;
the denoiser is handed, and the result returned in, the dtype of `noise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.noise import Denoise
from jdm.diffusion.run import Run, start
from jdm.diffusion.schedules import ramp
from jdm.diffusion.vp import Predict, VPProcess
from jdm.errors import ConfigError


class CaseNoise:
    """Standard normal noise with one seed per case.

    What a case receives depends on its seed and on how often it was asked, never on the cases beside it.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Args: seeds: one per case (B). shape: (C, *spatial). device: where the noise is delivered."""
        # Drawn on the CPU whatever the device: a CUDA generator would give other numbers than a CPU one.
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __call__(self) -> Tensor:
        """The next draw, float32 (B, C, *spatial)."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)


@dataclass(frozen=True)
class Churn:
    """How much noise `sample_heun_stochastic` renews (Karras et al. 2022, Algorithm 2).

    The defaults are the values of its authors for ImageNet.
    """

    s_churn: float = 40.0
    """Total amount; each step raises its level by the factor 1 + min(s_churn / steps, sqrt(2) - 1)."""
    s_min: float = 0.05
    s_max: float = 50.0
    """Only at levels in [s_min, s_max]."""
    s_noise: float = 1.003
    """Standard deviation of the new noise, slightly above 1 against the loss of detail."""


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Noise levels for sampling, highest first, ending in an exact zero.

    Returns: float64, shape (steps + 1,), in units of encoded intensity.
    Raises: ConfigError if steps < 2, or not 0 < sigma_min < sigma_max.
    Source: Karras et al. 2022 (arXiv:2206.00364), Eq. 5.
    """
    along = ramp(steps, sigma_min, sigma_max)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + along * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def sample_heun(denoise: Denoise, noise: Tensor, sigmas: Tensor, known: Known | None = None) -> Tensor:
    """Heun's second-order integration of the probability flow ODE.

    Args:
        noise: standard normal (B, C, *spatial); scaled here by sigmas[0].
        sigmas: levels, highest first (steps + 1,); see `karras_sigmas`. If the last is not zero, the result
            is the sample at that level.
    Returns: x0, shaped like noise. 2 * steps - 1 calls of `denoise` when sigmas ends in zero.
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
    sigmas: Tensor,
    fresh: Noise,
    churn: Churn | None = None,
    known: Known | None = None,
) -> Tensor:
    """Heun steps, each after a little new noise has been added; without churn, `sample_heun` bit for bit.

    Args: fresh: standard normal noise like `noise`; asked only where noise is renewed. Others: `sample_heun`.
    Returns: x0, shaped like noise.
    Raises: ConfigError as `sample_heun`.
    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2.
    """
    churn = Churn() if churn is None else churn
    run, x = start(denoise, noise, sigmas, known)
    gamma = min(churn.s_churn / len(run.steps), math.sqrt(2) - 1)
    for sigma, sigma_next in run.steps:
        if gamma > 0 and churn.s_min <= sigma <= churn.s_max:
            raised = sigma * (1 + gamma)
            x = x + math.sqrt(raised**2 - sigma**2) * churn.s_noise * fresh().to(x)
            # Entries known as noisy values have risen with the others; those known as clean ones must not.
            if run.known is not None and run.known.mode == "exact":
                x = run.known.impose(x, run.known.values)
            sigma = raised
        x = _heun_step(run, x, sigma, sigma_next)
    return x.to(noise)


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Tensor,
    eta: float = 0.0,
    fresh: Noise | None = None,
    known: Known | None = None,
) -> Tensor:
    """DDIM on any schedule of levels.

    eta = 0 is deterministic and Euler's method; eta = 1 is ancestral, with the variance of thesis Eq. 2.6.
    Song et al. 2021 (arXiv:2010.02502), Eq. 12 and 16, divided by sqrt(alpha_bar): with
    sigma^2 = (1 - alpha_bar) / alpha_bar their sigma_t becomes eta * sigma' * sqrt(1 - sigma'^2 / sigma^2).

    Args: fresh: standard normal noise like `noise`, needed if eta > 0. Others: `sample_heun`.
    Returns: x0, shaped like noise.
    Raises: ConfigError if eta is not in [0, 1] or eta > 0 without `fresh`; else as `sample_heun`.
    """
    if not 0 <= eta <= 1 or (eta > 0 and fresh is None):
        source = "no" if fresh is None else "a"
        raise ConfigError(f"eta is {eta} with {source} noise source; expected 0 to 1, and fresh= above 0")
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
def sample_dpmpp_2m(denoise: Denoise, noise: Tensor, sigmas: Tensor, known: Known | None = None) -> Tensor:
    """DPM-Solver++(2M): second order with one call of `denoise` a step.

    The steps are those of the paper in lambda = -ln(sigma), with alpha = 1. The first is of first order for
    want of history; so is one to level zero, where lambda is infinite and the step is the estimate itself.

    Args, returns and raises: as `sample_heun`.
    Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 2.
    """
    run, x = start(denoise, noise, sigmas, known)
    previous: tuple[Tensor, float] | None = None  # the last estimate and the last step in lambda
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

    x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) * eps) / sqrt(alpha_t) + sigma_t * z: thesis Eq. 2.19,
    whose print has sqrt(alpha_bar_t) for sqrt(alpha_t). It is computed as the mean of Eq. 2.6 at the estimate
    of x0, which is the same and lets the estimate be clipped.

    Args:
        predict: `VPDenoiser.predict` of the same process.
        process: whole or `respaced`.
        noise: x_T, standard normal (B, C, *spatial). fresh: z.
        known: of mode "replacement" (thesis, Algorithm 2): this network has one level for image and mask.
        clip: bound of |x0| that each estimate is clipped to; None: not clipped.
    Returns: x0, shaped like noise.
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

"""Samplers of the reverse-time SDE: Euler-Maruyama, and predictor-corrector with Langevin steps.

Source: Song et al. 2021 (arXiv:2011.13456). x is variance exploding in both SDEs; that of the VP SDE is
y = x / sqrt(1 + sigma^2), whose steps are written for x here. With z standard normal and D the estimate of x0, a
step from sigma to sigma' < sigma is x' = scale * (keep * x + pull * (D - x) + spread * z). A step to level zero has
no noise and is the estimate itself: Tweedie's formula, the authors' denoising step (Appendix G).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.noise import Denoise
from jdm.diffusion.run import Run, start
from jdm.errors import ConfigError

SDE = Literal["ve", "vp"]
"""Variance exploding: dx = sqrt(d[sigma^2] / dt) dw. Variance preserving: dy = -beta y / 2 dt + sqrt(beta) dw."""


@dataclass(frozen=True)
class Langevin:
    """How `sample_predictor_corrector` corrects (Song et al. 2021, Algorithms 4 and 5)."""

    snr: float = 0.16
    """r, the signal-to-noise ratio of a step. Table 5, CIFAR-10 with 1000 levels: 0.16 for VE, 0.01 for VP."""
    steps: int = 1
    """M, Langevin steps at each level; zero leaves the predictor, their reverse diffusion sampler."""
    sde: SDE = "ve"


@torch.no_grad()
def sample_euler_maruyama(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Tensor,
    fresh: Noise,
    sde: SDE = "ve",
    known: Known | None = None,
) -> Tensor:
    """Euler-Maruyama steps of the reverse-time SDE, each over the whole diffusion between two levels.

    Time is counted by the SDE's own clock, sigma^2 for VE and the integral of beta, ln(1 + sigma^2), for VP, in which
    the diffusion coefficient is one: so the levels alone say what the steps are, whatever schedule made them.

    Args: fresh: standard normal noise like `noise`, asked once a step. Others: `sample_heun`.
    Returns: x0, shaped like noise.
    Raises: ConfigError if sde is unknown; else as `sample_heun`.
    Source: Song et al. 2021 (arXiv:2011.13456), Eq. 6 with the VE and VP SDE of Eq. 9 and 11.
    """
    _check(sde)
    run, x = start(denoise, noise, sigmas, known)
    for sigma, sigma_next in run.steps:
        rule = _exploding(sigma, sigma_next) if sde == "ve" else _preserving(sigma, sigma_next)
        x = _step(run, x, (sigma, sigma_next), rule, fresh)
    return x.to(noise)


@torch.no_grad()
def sample_predictor_corrector(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Tensor,
    fresh: Noise,
    langevin: Langevin | None = None,
    known: Known | None = None,
) -> Tensor:
    """Reverse diffusion steps, with Langevin steps at every level before the step that leaves it.

    As in the authors' code the first level is corrected too; their Algorithms 2 and 3 begin with a predictor. A
    case's step size is from its own norms, not the mean of its batch, so that it stands alone;
    known entries do not count. That needs many entries: with a few, a gradient near zero makes a step of any size.

    Args: fresh: standard normal noise like `noise`. Others: `sample_heun`.
    Returns: x0, shaped like noise. (langevin.steps + 1) * steps calls of `denoise`.
    Raises: ConfigError if snr is not positive, steps is negative or sde unknown; else as `sample_heun`.
    Source: Song et al. 2021 (arXiv:2011.13456), Algorithms 2 to 5.
    """
    langevin = Langevin() if langevin is None else langevin
    _check(langevin.sde)
    if langevin.snr <= 0 or langevin.steps < 0:
        raise ConfigError(
            f"Langevin has snr {langevin.snr} and steps {langevin.steps}; expected snr above 0 and steps not negative"
        )
    run, x = start(denoise, noise, sigmas, known)
    for sigma, sigma_next in run.steps:
        vp = langevin.sde == "vp"
        # alpha_i of Algorithm 5; in x, which is y over its scale, nothing else differs from Algorithm 4.
        alpha = (1 + sigma_next**2) / (1 + sigma**2) if vp else 1.0
        for _ in range(langevin.steps):
            x = _langevin_step(run, x, sigma, langevin.snr * math.sqrt(alpha), fresh)
        rule = _reverse_diffusion(sigma, sigma_next) if vp else _exploding(sigma, sigma_next)
        x = _step(run, x, (sigma, sigma_next), rule, fresh)
    return x.to(noise)


Rule = tuple[float, float, float, float]
"""scale, keep, pull and spread of a step."""


def _exploding(sigma: float, sigma_next: float) -> Rule:
    """VE, where Euler-Maruyama in sigma^2 and reverse diffusion (Algorithm 2) are one."""
    return 1.0, 1.0, 1 - (sigma_next / sigma) ** 2, math.sqrt(sigma**2 - sigma_next**2)


def _preserving(sigma: float, sigma_next: float) -> Rule:
    """VP, Euler-Maruyama: y' = y + d (y / 2 + score) + sqrt(d) z with d the integral of beta over the step."""
    d = math.log1p(sigma**2) - math.log1p(sigma_next**2)
    scale = math.exp(-d / 2)
    return scale, 1 + d / 2, d * (1 + sigma**2) / sigma**2, math.sqrt(d * (1 + sigma**2))


def _reverse_diffusion(sigma: float, sigma_next: float) -> Rule:
    """VP, Algorithm 3: y' = (2 - sqrt(1 - beta)) y + beta score + sqrt(beta) z."""
    scale = math.sqrt((1 + sigma_next**2) / (1 + sigma**2))  # sqrt(1 - beta)
    return scale, 2 - scale, 1 - (sigma_next / sigma) ** 2, math.sqrt(sigma**2 - sigma_next**2)


def _step(run: Run, x: Tensor, levels: tuple[float, float], rule: Rule, fresh: Noise) -> Tensor:
    sigma, sigma_next = levels
    x0 = run.predict(x, sigma)
    if sigma_next > 0:
        scale, keep, pull, spread = rule
        x0 = scale * (keep * x + pull * (x0 - x) + spread * fresh().to(x))
    return run.keep(x0, run.draw(sigma_next))


def _langevin_step(run: Run, x: Tensor, sigma: float, snr: float, fresh: Noise) -> Tensor:
    """One step of Algorithm 4 with step size 2 (snr |z| / |g|)^2; a case whose gradient is zero stays."""
    g = run.free(run.predict(x, sigma) - x) / sigma**2
    z = run.free(fresh().to(x))
    size, rise = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (z, g))
    step = torch.where(rise > 0, 2 * (snr * size / rise) ** 2, 0.0).reshape(-1, *[1] * (x.ndim - 1))
    return x + step * g + (2 * step).sqrt() * z


def _check(sde: str) -> None:
    if sde not in ("ve", "vp"):
        raise ConfigError(f"SDE is {sde!r}; expected 've' or 'vp'; correct it")

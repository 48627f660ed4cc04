"""Samplers of the reverse-time SDE: Euler-Maruyama, and predictor-corrector with Langevin steps.

Source: Song et al. 2021 (arXiv:2011.13456). The state is the variance-exploding x for both SDEs. The variable of the VP
SDE is y = x / sqrt(1 + sigma^2); its steps are rewritten for x. With z standard normal and D the estimate of x0, a step
from sigma to sigma' < sigma is x' = scale * (keep * x + pull * (D - x) + spread * z). A step to level zero adds no
noise and returns the estimate of x0 (Tweedie's formula; the authors' denoising step, Appendix G).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.noise import Denoise
from jdm.diffusion.run import Levels, Run, start
from jdm.errors import ConfigError

SDE = Literal["ve", "vp"]
"""Variance exploding: dx = sqrt(d[sigma^2] / dt) dw. Variance preserving: dy = -beta y / 2 dt + sqrt(beta) dw."""


@dataclass(frozen=True)
class Langevin:
    """The corrector of `sample_predictor_corrector` (Song et al. 2021, Algorithms 4 and 5)."""

    snr: float = 0.16
    """r, the signal-to-noise ratio of a step. Table 5, CIFAR-10 with 1000 levels: 0.16 for VE, 0.01 for VP."""
    steps: int = 1
    """M, Langevin steps at each level; 0: the predictor alone, which is the authors' reverse diffusion sampler."""
    sde: SDE = "ve"


@torch.no_grad()
def sample_euler_maruyama(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Levels,
    fresh: Noise,
    sde: SDE = "ve",
    known: Known | None = None,
) -> Tensor:
    """Euler-Maruyama steps of the reverse-time SDE.

    Time is measured so that the diffusion coefficient is one: sigma^2 for VE, and for VP the integral of beta, which is
    ln(1 + sigma^2). The levels alone then determine the steps, whatever schedule they come from.

    Args: fresh: source of standard normal noise like `noise`, called once a step. Others: as for `sample_heun`.
    Returns: x0, like noise. One call of `denoise` a step.
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
    sigmas: Levels,
    fresh: Noise,
    langevin: Langevin | None = None,
    known: Known | None = None,
) -> Tensor:
    """Reverse diffusion steps (predictor), each preceded by Langevin steps at the level it leaves (corrector).

    The first level is corrected too, as in the authors' code; their Algorithms 2 and 3 begin with a predictor step.
    The Langevin step size of a case is computed from that case alone, without its known entries, and not from the mean
    over the batch, so that a case does not depend on its batch. It is reliable only for cases of many entries: with a
    few, the norm of the gradient can come near zero and the step can become arbitrarily large.

    Args: fresh: source of standard normal noise like `noise`. Others: as for `sample_heun`.
    Returns: x0, like noise. (langevin.steps + 1) * steps calls of `denoise`.
    Raises: ConfigError if snr is not positive, steps is negative or sde unknown; else as `sample_heun`.
    Source: Song et al. 2021 (arXiv:2011.13456), Algorithms 2 to 5.
    """
    langevin = Langevin() if langevin is None else langevin
    _check(langevin.sde)
    if langevin.snr <= 0 or langevin.steps < 0:
        raise ConfigError(
            f"Langevin has snr {langevin.snr} and {langevin.steps} steps; expected snr above 0 and at least 0 steps"
        )
    run, x = start(denoise, noise, sigmas, known)
    for sigma, sigma_next in run.steps:
        vp = langevin.sde == "vp"
        # alpha_i of Algorithm 5. Written for x instead of y, nothing else differs from Algorithm 4.
        alpha = (1 + sigma_next**2) / (1 + sigma**2) if vp else 1.0
        for _ in range(langevin.steps):
            x = _langevin_step(run, x, sigma, langevin.snr * math.sqrt(alpha), fresh)
        rule = _reverse_diffusion(sigma, sigma_next) if vp else _exploding(sigma, sigma_next)
        x = _step(run, x, (sigma, sigma_next), rule, fresh)
    return x.to(noise)


Rule = tuple[float, float, float, float]
"""scale, keep, pull and spread of a step; see the top of this file."""


def _exploding(sigma: float, sigma_next: float) -> Rule:
    """VE: Euler-Maruyama in sigma^2, which is the same as reverse diffusion (Algorithm 2)."""
    return 1.0, 1.0, 1 - (sigma_next / sigma) ** 2, math.sqrt(sigma**2 - sigma_next**2)


def _preserving(sigma: float, sigma_next: float) -> Rule:
    """VP, Euler-Maruyama: y' = y + d (y / 2 + score) + sqrt(d) z, with d the integral of beta over the step."""
    d = math.log1p(sigma**2) - math.log1p(sigma_next**2)
    scale = math.exp(-d / 2)
    return scale, 1 + d / 2, d * (1 + sigma**2) / sigma**2, math.sqrt(d * (1 + sigma**2))


def _reverse_diffusion(sigma: float, sigma_next: float) -> Rule:
    """VP, reverse diffusion (Algorithm 3): y' = (2 - sqrt(1 - beta)) y + beta score + sqrt(beta) z."""
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
    """One step of Algorithm 4, of size 2 (snr |z| / |g|)^2; a case whose gradient g is zero stays where it is."""
    g = run.free(run.predict(x, sigma) - x) / sigma**2
    z = run.free(fresh().to(x))
    size, rise = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (z, g))
    step = torch.where(rise > 0, 2 * (snr * size / rise) ** 2, 0.0).reshape(-1, *[1] * (x.ndim - 1))
    return x + step * g + (2 * step).sqrt() * z


def _check(sde: str) -> None:
    if sde not in ("ve", "vp"):
        raise ConfigError(f"SDE is {sde!r}; expected 've' or 'vp'; correct it")

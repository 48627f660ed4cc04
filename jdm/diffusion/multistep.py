"""UniPC: a multistep predictor, and a corrector that needs no further call of the network.

It is used instead of DPM-Solver++(3M), whose implementations give the second divided difference half the weight that
the integral of the polynomial has, and so converge with order two (2.2 and 2.1 measured with diffusers 0.42 on Gaussian
data). UniPC of order p converges with order p + 1, as `tests/test_multistep.py` measures.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.noise import Denoise
from jdm.diffusion.run import Levels, start
from jdm.errors import ConfigError


@torch.no_grad()
def sample_unipc(denoise: Denoise, noise: Tensor, sigmas: Levels, order: int = 3, known: Known | None = None) -> Tensor:
    """UniPC with data prediction and B(h) = e^h - 1: one call of `denoise` a step.

    The predictor (UniP-p) puts a polynomial in lambda = -ln(sigma) through the last `order` estimates of x0 and
    integrates it exactly. The corrector (UniC-p) adds the estimate at the end of the step to the polynomial and takes
    the step again, which raises the order of convergence to order + 1. The estimate is not computed again at the
    corrected x; the next step uses it as it is. The first steps have less history and lower order. A step to level
    zero, where lambda is infinite, returns the estimate of x0.

    Args: order: p, the order of the predictor, 1 to 3. Others: as for `sample_heun`.
    Returns: x0, like noise.
    Raises: ConfigError if order is not 1, 2 or 3; else as `sample_heun`.
    Source: Zhao et al. 2023 (arXiv:2302.04867), Theorem 3.1 and Corollary 3.2.
    """
    if order not in (1, 2, 3):
        raise ConfigError(f"order of UniPC is {order}; expected 1, 2 or 3; correct it")
    run, x = start(denoise, noise, sigmas, known)
    before, drawn = x, None
    past: list[tuple[float, Tensor]] = []  # (level, estimate of x0) of the last steps, the newest last
    for sigma, sigma_next in run.steps:
        x0 = run.predict(x, sigma)
        if past:
            x = run.keep(_step(before, past, sigma, x0), drawn)
        past = [*past, (sigma, x0)][-order:]
        before, drawn = x, run.draw(sigma_next)
        x = run.keep(_step(x, past, sigma_next) if sigma_next > 0 else x0, drawn)
    return x.to(noise)


def _step(x: Tensor, past: list[tuple[float, Tensor]], sigma_next: float, at_end: Tensor | None = None) -> Tensor:
    """x at sigma_next, from x at the newest level of `past`. at_end: estimate at sigma_next, for the corrector."""
    sigma, x0 = past[-1]
    h = math.log(sigma / sigma_next)
    share = sigma_next / sigma
    others = [(math.log(sigma / level) / h, estimate) for level, estimate in past[:-1]]
    if at_end is not None:
        others.append((1.0, at_end))
    step = share * x + (1 - share) * x0
    for weight, (_, estimate) in zip(_weights([place for place, _ in others], h), others, strict=True):
        step = step + weight * (estimate - x0)
    return step


def _weights(places: list[float], h: float) -> list[float]:
    """Weights of the estimates at `places`, each taken minus the newest estimate.

    They make the step exact if the estimate is a polynomial in lambda of degree len(places).
    Args: places: lambda minus that of the newest estimate, in units of h. h: length of the step in lambda.
    """
    if not places:
        return []
    if len(places) == 1:
        # The paper's a_1 = 1/2: it keeps the order, and no equation need be solved.
        return [-math.expm1(-h) / 2 / places[0]]
    powers = np.arange(1, len(places) + 1)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    u = (nodes + 1) / 2
    # h times the integral of e^{-h (1 - u)} u^k over 0..1, by quadrature: its recursion in k cancels at small h.
    moments = h / 2 * (weights * np.exp(-h * (1 - u)) * u ** powers[:, None]).sum(1)
    return np.linalg.solve(np.array(places) ** powers[:, None], moments).tolist()

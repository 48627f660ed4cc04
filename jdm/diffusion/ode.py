"""The probability flow ODE by an adaptive solver: sampling, and the likelihood of data.

In u = ln(sigma) the ODE of the variance-exploding x is dx/du = x - D(x, sigma), which is smooth at every level. Each
case is solved separately, so that the solver's steps, and thus the result, do not depend on the batch.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.noise import Denoise
from jdm.diffusion.run import Levels, Run, start
from jdm.errors import ConfigError


@dataclass(frozen=True)
class Solver:
    """Settings of `scipy.integrate.solve_ivp`. The defaults are those of Song et al. 2021, Appendix D.4."""

    method: Literal["RK45", "DOP853"] = "RK45"
    rtol: float = 1e-5
    """Relative tolerance. Below about 1e-6, float32 rounding in the network corrupts the solver's error estimate."""
    atol: float = 1e-5
    """Absolute tolerance, in units of encoded intensity."""
    calls: int = 10_000
    """Maximum network calls per case; a solver that needs more is stopped with an error."""


@dataclass(frozen=True)
class Likelihood:
    """The result of `log_likelihood` for a batch."""

    log_density: Tensor
    """float64 (B,): natural logarithm of the density, whose unit is 1 / encoded intensity^entries."""
    entries: Tensor
    """(B,): number of entries in the density, which are the unknown ones."""
    noise: Tensor
    """Like x0: the standard normal start from which `sample_ode` returns x0."""


@torch.no_grad()
def sample_ode(
    denoise: Denoise, noise: Tensor, sigmas: Levels, solver: Solver | None = None, known: Known | None = None
) -> Tensor:
    """The probability flow ODE by an adaptive solver.

    Args:
        sigmas: as for `sample_heun`, but only the ends are used. If the last is zero, the ODE is solved to the last
            positive level, and the estimate of x0 there is returned.
        known: of mode "exact". The solver chooses its own levels, so replacement would not know the next one.
        Others: as for `sample_heun`.
    Returns: x0, like noise.
    Raises: ConfigError if `known` is of mode "replacement", the solver fails, or the denoiser returns a value that is
        not finite; else as `sample_heun`.
    Source: Song et al. 2021 (arXiv:2011.13456), Eq. 13 and Appendix D.4.
    """
    run, x = start(denoise, noise, sigmas, known)
    _refuse_replacement(run.known)
    highest, lowest = _ends(run)
    cases = []
    for one, state in _cases(run, x):
        cases.append(_flow(one, state, (highest, lowest), solver or Solver(), None)[0])
        if run.steps[-1][1] == 0:
            cases[-1] = one.keep(one.predict(cases[-1], lowest), one.draw(0.0))
    return torch.cat(cases).to(noise)


@torch.no_grad()
def log_likelihood(
    denoise: Denoise,
    x0: Tensor,
    sigmas: Tensor,
    probes: Tensor,
    solver: Solver | None = None,
    known: Known | None = None,
) -> Likelihood:
    """Logarithm of the density of x0 under the probability flow ODE.

    The ODE is solved from x0, placed at the lowest positive level, up to x at sigma_max:
    log p(x0) = log N(x; 0, sigma_max^2) + the integral of the divergence along the path. It is the density of data with
    noise of the lowest level. The density of a discrete channel, such as a mask, grows without bound as that level
    falls, so masks should be given as known.
    The divergence is estimated as probe^T Jacobian probe (Hutchinson), with the same probes throughout the solve, and
    averaged over them. It is unbiased if the probes have mean zero and covariance one. Signs (+-1) have the least
    variance; `rademacher` makes them.

    Args:
        x0: (B, C, *spatial). See `dequantised` for data of discrete levels.
        sigmas: as for `sample_ode`; only the highest and the lowest positive level are used.
        probes: (P, B, C, *spatial), P at least 1.
        known: of mode "exact". The density is that of the other entries given these, with the values of `known`.
    Raises: ConfigError as `sample_ode`, or if the probes do not fit x0.
    Source: Song et al. 2021 (arXiv:2011.13456), Eq. 39 and 40; Grathwohl et al. 2019 (arXiv:1810.01367).
    """
    if probes.ndim != x0.ndim + 1 or probes.shape[1:] != x0.shape or len(probes) == 0:
        raise ConfigError(
            f"probes have shape {tuple(probes.shape)}; expected {('P', *x0.shape)} with P at least 1; make them like x0"
        )
    run, _ = start(denoise, x0, sigmas, known)
    _refuse_replacement(run.known)
    highest, lowest = _ends(run)
    data = x0.to(torch.float64)
    data = run.keep(data, run.draw(0.0))
    densities, noises = [], []
    for (one, state), probe in zip(_cases(run, data), probes.to(data).unbind(1), strict=True):
        end, gained = _flow(one, state, (lowest, highest), solver or Solver(), one.free(probe))
        z = one.free(end) / highest
        free = one.free(torch.ones_like(z)).sum()
        prior = -0.5 * (z.square().sum() + free * math.log(2 * math.pi * highest**2))
        densities.append(prior + gained)
        noises.append(end / highest)
    entries = run.free(torch.ones_like(data)).flatten(1).sum(1).long()
    return Likelihood(torch.stack(densities), entries, torch.cat(noises).to(x0))


def rademacher(noise: Tensor) -> Tensor:
    """Probes of +-1 from standard normal noise."""
    return torch.where(noise < 0, -1.0, 1.0).to(noise)


def dequantised(x0: Tensor, uniform: Tensor, bin_width: float | Tensor = 2 / 255) -> Tensor:
    """Data of discrete levels, each spread evenly over a bin centred on it.

    Args:
        uniform: in [0, 1), like x0.
        bin_width: distance between two levels, in units of encoded intensity; a number, or broadcastable to x0. The
            codec maps [low, high] to [-1, 1], so integers are 2 / (high - low) apart: 2 / 255 for 8 bits.
    Source: uniform dequantisation as in Song et al. 2021; centred because decoding rounds to the nearest level.
    """
    return x0 + (uniform - 0.5) * bin_width


def bits_per_dim(likelihood: Likelihood, bin_width: float = 2 / 255) -> Tensor:
    """Negative log2-likelihood of discrete data per entry, float64 (B,).

    The probability of a level is the integral of the density over its bin. For `dequantised` data the expectation of
    -log2(density * bin_width) is therefore an upper bound of the level's bits. A bin_width of 2 / 255 adds 6.994 bits
    to -log2 of the density; Song et al. (score_sde) map 8-bit data to 256 bins of width 2 / 256 and add 7 bits.

    Args: bin_width: as in `dequantised`, the same for every entry that counts.
    """
    return -(likelihood.log_density / likelihood.entries + math.log(bin_width)) / math.log(2)


def _flow(
    run: Run, x: Tensor, levels: tuple[float, float], solver: Solver, probes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """x (1, C, *spatial) carried from the first level to the second, and the integral of the divergence on the way.

    Args: probes: (P, C, *spatial), zero where entries are known; None: no divergence.
    """

    calls = itertools.count(1)

    def slope(u: float, state: np.ndarray) -> np.ndarray:
        at, sigma = torch.from_numpy(state[:-1]).to(x).reshape(x.shape), math.exp(u)
        if probes is None:
            away, divergence = run.free(at - run.predict(at, sigma)), x.new_zeros(())
        else:
            away, divergence = _divergence(run, at, sigma, probes)
        # Without these two checks the solver would reduce its step almost without end.
        if not (away.isfinite().all() and divergence.isfinite()):
            raise ConfigError(
                f"the denoiser is not finite at level {sigma:.3g}; expected it to be; use another checkpoint"
            )
        if next(calls) > solver.calls:
            raise ConfigError(
                f"{solver.method} is at level {sigma:.3g} after {solver.calls} calls of the denoiser; expected level"
                f" {levels[1]:.3g}; raise rtol ({solver.rtol:g}) and atol ({solver.atol:g})"
            )
        return np.append(away.flatten().cpu().numpy(), divergence.item())

    initial = np.append(x.flatten().cpu().numpy(), 0.0)
    span = (math.log(levels[0]), math.log(levels[1]))
    found = solve_ivp(slope, span, initial, method=solver.method, rtol=solver.rtol, atol=solver.atol)
    if not found.success:
        raise ConfigError(
            f"{solver.method} stopped at level {math.exp(found.t[-1]):.3g}: {found.message} Expected level"
            f" {levels[1]:.3g}; raise rtol ({solver.rtol:g}) and atol ({solver.atol:g})"
        )
    end = torch.from_numpy(found.y[:, -1]).to(x)
    return end[:-1].reshape(x.shape), end[-1]


def _divergence(run: Run, x: Tensor, sigma: float, probes: Tensor) -> tuple[Tensor, Tensor]:
    """dx/du at x, with zeros where entries are known, and the estimate of its divergence."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = run.predict(x, sigma)
        trace = x.new_zeros(())
        for probe in probes:
            (product,) = torch.autograd.grad(x0, x, probe[None], retain_graph=True)
            trace = trace + (product * probe).sum() / len(probes)
    free = run.free(torch.ones_like(x)).sum()
    return run.free((x - x0).detach()), free - trace.detach()


def _ends(run: Run) -> tuple[float, float]:
    """The highest and the lowest positive level."""
    last = run.steps[-1]
    return run.steps[0][0], last[1] if last[1] > 0 else last[0]


def _cases(run: Run, x: Tensor) -> list[tuple[Run, Tensor]]:
    """A separate run for each case, with its x (1, C, *spatial)."""
    singles = []
    for i in range(len(x)):
        known = run.known
        if known is not None:
            known = replace(known, where=known.where[i : i + 1], values=known.values[i : i + 1])
        singles.append((replace(run, known=known), x[i : i + 1]))
    return singles


def _refuse_replacement(known: Known | None) -> None:
    if known is not None and known.mode == "replacement":
        raise ConfigError("the ODE solver got Known of mode 'replacement'; expected mode 'exact'; change it")

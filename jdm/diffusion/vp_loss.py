"""Losses of the variance-preserving process, one number a sample: L_simple, L_vlb and L_hybrid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jdm.diffusion.vp import VPDenoiser, VPProcess

GREY_LEVELS = 256
"""Bins of the decoder over [-1, 1]."""


def l_simple(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the network's estimate (B, C, *spatial): (B,). Thesis Eq. 2.16, with the noise as target.

    With v as target it is the "SNR + 1" weighting of Salimans & Ho 2022 (arXiv:2202.00512), Section 4.
    """
    return (estimate - target).square().flatten(1).mean(1)


def l_vlb(process: VPProcess, prediction: tuple[Tensor, Tensor], x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """One term of the variational bound, in bits per dimension: (B,).

    At t > 0 it is the divergence of the reverse step from the posterior of Eq. 2.6, L_{t-1} of thesis Eq. 2.10. At
    t = 0 it is the negative log likelihood of x0 under the discretised Gaussian decoder, L_0. No gradient reaches the
    estimate of the mean: this loss trains only the variance (thesis, section 2.1.4).

    Args:
        prediction: estimate of the target and log variance, (B, C, *spatial) each; see `VPDenoiser.predict`.
        x0: data in [-1, 1]. t: (B,) steps of the process.
    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), Eq. 4 to 7; Ho et al. 2020 (arXiv:2006.11239), Eq. 13.
    """
    estimate, log_variance = prediction
    mean = process.posterior_mean(process.predict_x0(x_t, t, estimate.detach()), x_t, t)
    true_mean = process.posterior_mean(x0, x_t, t)
    shape = (-1, *[1] * (x0.ndim - 1))
    true_log_variance = process.posterior_log_variance.to(t.device)[t].to(x0.dtype).reshape(shape)
    divergence = _gaussian_divergence(true_mean, true_log_variance, mean, log_variance)
    decoder = -discretised_log_likelihood(x0, mean, log_variance)
    nats = torch.where((t == 0).reshape(shape), decoder, divergence)
    return nats.flatten(1).mean(1) / math.log(2)


def l_hybrid(
    denoiser: VPDenoiser,
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    vlb_weight: float = 0.001,
    condition: Tensor | None = None,
) -> Tensor:
    """L_simple + vlb_weight * L_vlb: (B,), for steps t (B,) drawn uniformly from the process. Thesis Eq. 2.18.

    L_vlb is a sum over all steps. One of its terms times the number of steps is an unbiased estimate. With T = 1000 the
    weight 0.001 cancels that factor, which gives the "rescaled" loss of improved DDPM's code.

    Args: x0: encoded data (B, C, *spatial) in [-1, 1]. noise: standard normal like x0.
    """
    process = denoiser.process
    x_t = process.q_sample(x0, t, noise)
    prediction = denoiser.predict(x_t, t, condition)
    bound = process.steps * l_vlb(process, prediction, x0, x_t, t)
    return l_simple(prediction[0], process.target(x0, t, noise)) + vlb_weight * bound


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability in nats, under a Gaussian, of the grey level of x in [-1, 1]; like x.

    A grey level is the interval of width 2 / 255 around x; the first and last extend to infinity.
    Source: Ho et al. 2020 (arXiv:2006.11239), Eq. 13.
    """
    half = 1 / (GREY_LEVELS - 1)
    std = torch.exp(0.5 * log_variance)
    upper, lower = (x - mean + half) / std, (x - mean - half) / std
    # An interval above the mean is reflected below it: there the distribution function does not round to 1.
    reflect = lower > 0
    upper, lower = torch.where(reflect, -lower, upper), torch.where(reflect, -upper, lower)
    inside = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    first = torch.special.ndtr((x - mean + half) / std)
    last = torch.special.ndtr(-(x - mean - half) / std)
    probability = torch.where(x < -0.999, first, torch.where(x > 0.999, last, inside))
    return probability.clamp_min(1e-12).log()


def _gaussian_divergence(mean: Tensor, log_variance: Tensor, mean_q: Tensor, log_variance_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence in nats of N(mean, ...) from N(mean_q, ...), per entry."""
    ratio = log_variance - log_variance_q
    return 0.5 * (ratio.exp() - ratio - 1 + (mean - mean_q).square() * torch.exp(-log_variance_q))

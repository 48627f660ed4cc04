"""The discrete variance-preserving process of `preset = "thesis"`, and its network as a `Denoise`.

x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise. Equation numbers are the thesis's. It counts t from 1 to T in
its equations and from 0 to T - 1 in its network; here t is always 0 to T - 1.
Dividing x_t by sqrt(alpha_bar_t) gives the variance-exploding x = x0 + sigma * noise of the samplers, with
sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from jdm.diffusion.conditioning import Known
from jdm.diffusion.noise import Denoise
from jdm.errors import ConfigError

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_t (B, C, *spatial), t (B,) step of the process) -> (estimate of the target, log variance), each like x_t."""
Prediction = Literal["epsilon", "v"]
"""Target of the network: the noise, or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022,
arXiv:2202.00512, Section 4). v determines x0 at every step, even one without signal; the noise does not."""


class VPProcess:
    """Tables of the forward process and its posterior, float64, one entry a step.

    Source: Ho et al. 2020 (arXiv:2006.11239) for the process and the linear schedule; Nichol & Dhariwal 2021
    (arXiv:2102.09672), Eq. 17, for the cosine schedule and Eq. 15 for the learned variance.
    """

    def __init__(
        self,
        steps: int = 1000,
        schedule: Literal["linear", "cosine"] = "linear",
        keep: Sequence[int] | None = None,
        *,
        prediction: Prediction = "epsilon",
        zero_snr: bool = False,
    ) -> None:
        """Args:
            steps: T of the training process. keep: its steps that this process has, ascending; None: all.
            prediction: target of the network. zero_snr: the last step has no signal (Lin et al. 2023).

        Raises: ConfigError if there are fewer than two steps, `keep` is not ascending within 0 to T - 1, the schedule
            is unknown, or zero_snr comes with prediction "epsilon", from which x0 cannot be estimated without signal.
        """
        if zero_snr and prediction == "epsilon":
            raise ConfigError("zero terminal SNR with prediction 'epsilon'; expected prediction 'v'; change one")
        if schedule not in _SCHEDULES:
            raise ConfigError(f"noise schedule is {schedule!r}; expected one of {', '.join(_SCHEDULES)}")
        kept = list(range(steps) if keep is None else keep)
        if len(kept) < 2 or sorted(set(kept)) != kept or kept[0] < 0 or kept[-1] >= steps:
            raise ConfigError(f"steps kept are {kept}; expected at least 2, ascending, of 0 to {steps - 1}")
        self.schedule: Literal["linear", "cosine"] = schedule
        self.training_steps = steps
        self.timesteps = torch.tensor(kept)
        """Each step's number in the training process, which the network is conditioned on."""
        self.prediction: Prediction = prediction
        self.zero_snr = zero_snr
        training_beta = _SCHEDULES[schedule](steps)
        training_alpha_bar = torch.cumprod(1 - training_beta, 0)
        if zero_snr:
            training_alpha_bar = _without_terminal_signal(training_alpha_bar)
        self.training_sigma = _sigma(training_alpha_bar)
        self.alpha_bar = training_alpha_bar[self.timesteps]
        self.alpha_bar_previous = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])
        # Eq. 2.3 solved for beta: one step does what the skipped steps did together.
        as_made = keep is None and not zero_snr
        self.beta = training_beta if as_made else 1 - self.alpha_bar / self.alpha_bar_previous
        rest, rest_previous = 1 - self.alpha_bar, 1 - self.alpha_bar_previous
        # Eq. 2.6.
        self.posterior_variance = self.beta * rest_previous / rest
        self.posterior_x0 = self.alpha_bar_previous.sqrt() * self.beta / rest
        self.posterior_xt = (1 - self.beta).sqrt() * rest_previous / rest
        # The first posterior variance is zero; its logarithm is taken as the second's, as improved DDPM does.
        variance = self.posterior_variance
        self.posterior_log_variance = torch.cat([variance[1:2], variance[1:]]).log()
        self.log_beta = self.beta.log()

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def respaced(self, count: int) -> VPProcess:
        """The same process in `count` evenly spaced steps, including the first and last of training.

        Raises: ConfigError if count is not 2 to T.
        """
        if not 2 <= count <= self.training_steps:
            raise ConfigError(f"sampling steps is {count}; expected 2 to {self.training_steps}; correct it")
        stride = (self.training_steps - 1) / (count - 1)
        # Summed, not multiplied, so that ties are rounded as in improved DDPM's code.
        places = itertools.accumulate([stride] * (count - 1), initial=0.0)
        kept = [round(place) for place in places]
        return VPProcess(self.training_steps, self.schedule, kept, prediction=self.prediction, zero_snr=self.zero_snr)

    def q_sample(self, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """x_t from x0 (B, C, *spatial) and standard normal noise: Eq. 2.4. t: (B,), or one for all."""
        alpha_bar = _at(self.alpha_bar, t, x0)
        return (alpha_bar.sqrt() * x0.double() + (1 - alpha_bar).sqrt() * noise.double()).to(x0.dtype)

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x0), shaped like x_t: Eq. 2.6."""
        mean = _at(self.posterior_x0, t, x_t) * x0.double() + _at(self.posterior_xt, t, x_t) * x_t.double()
        return mean.to(x_t.dtype)

    def target(self, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """Target of the network at x_t, like x0."""
        if self.prediction == "epsilon":
            return noise
        alpha_bar = _at(self.alpha_bar, t, x0)
        return (alpha_bar.sqrt() * noise.double() - (1 - alpha_bar).sqrt() * x0.double()).to(x0.dtype)

    def predict_x0(self, x_t: Tensor, t: Tensor | int, estimate: Tensor) -> Tensor:
        """x0 from x_t and the network's estimate of the target there: Eq. 2.4 solved for x0, or the definition of v."""
        alpha_bar = _at(self.alpha_bar, t, x_t)
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.prediction == "v":
            return (signal * x_t.double() - spread * estimate.double()).to(x_t.dtype)
        return ((x_t.double() - spread * estimate.double()) / signal).to(x_t.dtype)

    def log_variance(self, v: Tensor, t: Tensor | int) -> Tensor:
        """Logarithm of the learned reverse variance from the network's v: Eq. 2.17.

        v = -1 gives the posterior variance, v = 1 gives beta, and other values interpolate or extrapolate in the log
        domain. The v of Eq. 2.17 is (v + 1) / 2, as in improved DDPM's code.
        """
        share = (v + 1) / 2
        low, high = _at(self.posterior_log_variance, t, v), _at(self.log_beta, t, v)
        return share * high.to(v.dtype) + (1 - share) * low.to(v.dtype)

    def sigma(self, t: int) -> float:
        """Variance-exploding level of step t; for a step without signal, whose level is infinite, a large number."""
        return self.training_sigma[self.timesteps[t]].item()

    def span(self) -> tuple[float, float]:
        """Lowest and highest level for the samplers over a `Denoise`: those of the first and last step.

        With zero SNR the highest is that of the last step with signal, at most 80; see `begun`.
        """
        if not self.zero_snr:
            return self.sigma(0), self.sigma(self.steps - 1)
        return self.sigma(0), min(self.sigma(self.steps - 2), 80.0)

    def begun(self, denoise: Denoise, noise: Tensor, sigma: float, known: Known | None = None) -> Tensor:
        """The noise for a sampler to start from at level `sigma`: `noise` itself, unless this process has zero SNR.

        With zero SNR the process starts at a step without signal, above `sigma`. DDIM's step from there to `sigma` ends
        in x = x0 + sigma * noise, with x0 estimated from the noise alone. Samplers multiply their noise by their first
        level, so x / sigma is returned. For data of standard deviation d the step has a relative error of
        d^2 / (2 sigma^2). Known entries stay as they are.

        Args: noise: standard normal (B, C, *spatial).
        Returns: like noise. One call of `denoise` with zero SNR, otherwise none.
        Source: Song et al. 2021 (arXiv:2010.02502), Eq. 12 with eta = 0 and alpha_bar = 0.
        """
        if not self.zero_snr:
            return noise
        level = noise.new_full((len(noise), 2), self.training_sigma[-1].item())
        x = noise + denoise(level[0, 0] * noise, level).to(noise) / sigma
        return x if known is None else torch.where(known.where.to(x.device), noise, x)

    def time(self, sigma: Tensor) -> Tensor:
        """Step of the training process at level sigma: float64, like sigma, from 0 to T - 1.

        Between steps it is linear in ln(sigma). A level beyond the first or last step gives that step.
        """
        table = self.training_sigma.to(sigma.device).log()
        log_sigma = sigma.double().clamp_min(1e-12).log()
        above = torch.searchsorted(table, log_sigma).clamp(1, len(table) - 1)
        left, right = table[above - 1], table[above]
        t = (above - 1 + (log_sigma - left) / (right - left)).clamp(0, len(table) - 1)
        # In float32 the level of a step is off by 1e-5 steps, and the network was trained on whole steps.
        return torch.where((t - t.round()).abs() < 1e-3, t.round(), t)


class VPDenoiser(nn.Module):
    """A network of the variance-preserving process as a `Denoise` at any level.

    The network takes (x_t (B, C, *spatial), t (B, 1) float from 0 to T - 1, condition) and returns 2 C channels: the
    estimate of the target, then the v of the learned variance (not the v of `Prediction`).
    """

    def __init__(self, network: nn.Module, process: VPProcess, image_channels: int, mask_channels: int) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.image_channels = image_channels
        self.mask_channels = mask_channels

    def respaced(self, count: int) -> VPDenoiser:
        """The same network with the process in `count` steps, for ancestral sampling; see `VPProcess.respaced`."""
        return VPDenoiser(self.network, self.process.respaced(count), self.image_channels, self.mask_channels)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate of x0 from the variance-exploding x (B, C, *spatial) at sigma (B, 2), in the dtype of x.

        Args: condition: (B, features), passed to the network.
        Raises: ConfigError if the levels of image and mask differ, because this network has one for both.
        """
        if not torch.equal(sigma[:, 0], sigma[:, 1]):
            raise ConfigError(
                "the image and the mask have different noise levels, but a network of preset thesis takes one level for"
                " both; expected equal levels; use Known of mode 'replacement', or preset default"
            )
        level = sigma[:, 0].double()
        spread = level.reshape(-1, *[1] * (x.ndim - 1))
        x_t = x.double() / (1 + spread**2).sqrt()
        estimate, _ = self._split(x_t, self.process.time(level), condition)
        if self.process.prediction == "v":
            return ((x_t - spread * estimate.double()) / (1 + spread**2).sqrt()).to(x.dtype)
        return (x.double() - spread * estimate.double()).to(x.dtype)

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimate of the target and log variance, each like x_t, at step t (B,) of the process."""
        time = self.process.timesteps.to(t.device)[t]
        estimate, v = self._split(x_t, time.double(), condition)
        return estimate.to(x_t.dtype), self.process.log_variance(v.to(x_t.dtype), t)

    def _split(self, x_t: Tensor, time: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """The network's estimate of the target and its v, (B, C, *spatial) each."""
        parameter = next(self.network.parameters(), x_t)
        output = self.network(x_t.to(parameter.dtype), time[:, None].to(parameter.dtype), condition)
        channels = self.image_channels + self.mask_channels
        return output[:, :channels], output[:, channels:]


def _linear(steps: int) -> Tensor:
    """1e-4 to 0.02 for 1000 steps (Ho et al. 2020); scaled for other counts, to end with about the same noise."""
    scale = 1000 / steps
    # Below 20 steps the scaled beta would exceed 1.
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64).clamp_max(0.999)


def _cosine(steps: int) -> Tensor:
    """Nichol & Dhariwal 2021, Eq. 17, with s = 0.008 and beta at most 0.999."""
    at = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp_max(0.999)


def _without_terminal_signal(alpha_bar: Tensor) -> Tensor:
    """A decreasing alpha_bar (T,) changed so that its last entry is exactly zero.

    sqrt(alpha_bar) is shifted so that the last entry is zero, then scaled so that the first stays as it was.
    Source: Lin et al. 2023 (arXiv:2305.08891), Algorithm 1.
    """
    root = alpha_bar.sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()


_SCHEDULES = {"linear": _linear, "cosine": _cosine}


def _sigma(alpha_bar: Tensor) -> Tensor:
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    # The infinite level of a step without signal becomes one at which float32 has no signal left either.
    return torch.where(alpha_bar == 0, 1000 * sigma[-2].clamp_min(1e4), sigma)


def _at(table: Tensor, t: Tensor | int, x: Tensor) -> Tensor:
    """Entries t (B,), or one entry, of a float64 table, broadcastable to x (B, C, *spatial)."""
    values = table[t] if isinstance(t, int) else table.to(t.device)[t]
    return values.to(x.device).reshape(-1, *[1] * (x.ndim - 1))

"""The discrete variance-preserving process of `preset = "thesis"`, and its network as a `Denoise`.

x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise. Equations are the thesis's. Its t = 1..T is counted
from zero here, as its network counts: index t stands for its t + 1.
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
from jdm.diffusion.schedules import zero_snr_start, zero_terminal_snr
from jdm.errors import ConfigError

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_t (B, C, *spatial), t (B,) index of the process) -> (estimate of its target, log variance), each like x_t."""
Prediction = Literal["epsilon", "v"]
"""What a network estimates: the noise, or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022,
arXiv:2202.00512, Section 4), which says x0 at every step, one without signal included."""


class VPProcess:
    """Tables of the forward process and its posterior, float64, one entry per step.

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
        """Args: steps: T of the training process. keep: the steps of it that stay, ascending; None: all.
            prediction: target of the network. zero_snr: the last step has no signal, see `zero_terminal_snr`.

        Raises: ConfigError if fewer than two steps are left, `keep` is not ascending in 0..T-1, the
            schedule is unknown, or the noise is to be predicted at a step without signal, which it says nothing of.
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
        """Index of each step in the training process, which is what the network is told."""
        self.prediction: Prediction = prediction
        self.zero_snr = zero_snr
        training_beta = _SCHEDULES[schedule](steps)
        training_alpha_bar = torch.cumprod(1 - training_beta, 0)
        if zero_snr:
            training_alpha_bar = zero_terminal_snr(training_alpha_bar)
        self.training_sigma = _sigma(training_alpha_bar)
        self.alpha_bar = training_alpha_bar[self.timesteps]
        self.alpha_bar_previous = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])
        # Eq. 2.3 read backwards: the one step that does what the skipped ones did together.
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
        """The same process in `count` evenly strided steps, the first and last of training included.

        Raises: ConfigError if count is not in 2..T.
        """
        if not 2 <= count <= self.training_steps:
            raise ConfigError(f"sampling steps is {count}; expected 2 to {self.training_steps}; correct it")
        stride = (self.training_steps - 1) / (count - 1)
        # Summed, not multiplied: a tie then rounds as in improved DDPM's code.
        places = itertools.accumulate([stride] * (count - 1), initial=0.0)
        kept = [round(place) for place in places]
        return VPProcess(self.training_steps, self.schedule, kept, prediction=self.prediction, zero_snr=self.zero_snr)

    def q_sample(self, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """x_t from x0 (B, C, *spatial) and standard normal noise: Eq. 2.4. t: (B,) or one for all."""
        alpha_bar = _at(self.alpha_bar, t, x0)
        return (alpha_bar.sqrt() * x0.double() + (1 - alpha_bar).sqrt() * noise.double()).to(x0.dtype)

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x0), shaped like x_t: Eq. 2.6."""
        mean = _at(self.posterior_x0, t, x_t) * x0.double() + _at(self.posterior_xt, t, x_t) * x_t.double()
        return mean.to(x_t.dtype)

    def target(self, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """What the network estimates at x_t, shaped like x0."""
        if self.prediction == "epsilon":
            return noise
        alpha_bar = _at(self.alpha_bar, t, x0)
        return (alpha_bar.sqrt() * noise.double() - (1 - alpha_bar).sqrt() * x0.double()).to(x0.dtype)

    def predict_x0(self, x_t: Tensor, t: Tensor | int, estimate: Tensor) -> Tensor:
        """x0 from x_t and the target at it: Eq. 2.4 solved for the noise; rotated back, for v."""
        alpha_bar = _at(self.alpha_bar, t, x_t)
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.prediction == "v":
            return (signal * x_t.double() - spread * estimate.double()).to(x_t.dtype)
        return ((x_t.double() - spread * estimate.double()) / signal).to(x_t.dtype)

    def log_variance(self, v: Tensor, t: Tensor | int) -> Tensor:
        """Logarithm of the learned reverse variance from the network's v: Eq. 2.17.

        v = -1 gives the posterior variance, 1 gives beta, in between they are mixed in the log domain; v is
        not bounded. Eq. 2.17's own v is (v + 1) / 2 of this one, as in improved DDPM's code.
        """
        share = (v + 1) / 2
        low, high = _at(self.posterior_log_variance, t, v), _at(self.log_beta, t, v)
        return share * high.to(v.dtype) + (1 - share) * low.to(v.dtype)

    def sigma(self, t: int) -> float:
        """Variance-exploding level of step t; that of a step without signal is some large one."""
        return self.training_sigma[self.timesteps[t]].item()

    def span(self) -> tuple[float, float]:
        """Lowest and highest level for the samplers over a `Denoise`.

        Those of the first and last step; but above level 80 a step without signal is left in one, see `begun`.
        """
        if not self.zero_snr:
            return self.sigma(0), self.sigma(self.steps - 1)
        return self.sigma(0), min(self.sigma(self.steps - 2), 80.0)

    def begun(self, denoise: Denoise, noise: Tensor, sigma: float, known: Known | None = None) -> Tensor:
        """Noise for a sampler that starts at level `sigma`: with zero SNR after DDIM's step from no signal to there.

        Of data of deviation d the step is exact to d^2 / (2 sigma^2). One call of `denoise`; `noise` itself without
        zero SNR, and where entries are known.
        """
        if not self.zero_snr:
            return noise
        level = noise.new_full((len(noise), 2), self.training_sigma[-1].item())
        x = zero_snr_start(denoise(level[0, 0] * noise, level), noise, sigma)
        return x if known is None else torch.where(known.where.to(x.device), noise, x)

    def sigmas(self) -> Tensor:
        """Levels for the samplers over a `Denoise`, highest first, ending in zero: float64 (steps + 1,)."""
        return torch.cat([self.training_sigma[self.timesteps].flip(0), torch.zeros(1, dtype=torch.float64)])

    def time(self, sigma: Tensor) -> Tensor:
        """Step of the training process at level sigma: float64, shaped like sigma, in 0..T-1.

        Linear in ln(sigma) between steps; a level beyond the first or last step gives that step.
        """
        table = self.training_sigma.to(sigma.device).log()
        log_sigma = sigma.double().clamp_min(1e-12).log()
        above = torch.searchsorted(table, log_sigma).clamp(1, len(table) - 1)
        left, right = table[above - 1], table[above]
        t = (above - 1 + (log_sigma - left) / (right - left)).clamp(0, len(table) - 1)
        # A float32 level of a step is off by 1e-5 steps; the network was trained on whole ones.
        return torch.where((t - t.round()).abs() < 1e-3, t.round(), t)


class VPDenoiser(nn.Module):
    """A network of the variance-preserving process as a `Denoise` at any level.

    The network takes (x_t (B, C, *spatial), t (B, 1) float in 0..T-1, condition) and returns 2 C channels:
    the process's target, then v of the learned variance (which is not the v of `Prediction`).
    """

    def __init__(self, network: nn.Module, process: VPProcess, image_channels: int, mask_channels: int) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.image_channels = image_channels
        self.mask_channels = mask_channels

    def respaced(self, count: int) -> VPDenoiser:
        """The same network over the process in `count` steps, for ancestral sampling; see `VPProcess.respaced`."""
        return VPDenoiser(self.network, self.process.respaced(count), self.image_channels, self.mask_channels)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate of x0 from variance-exploding x (B, C, *spatial) at sigma (B, 2), in the dtype of x.

        Raises: ConfigError if the levels of image and mask differ: this network has one.
        """
        if not torch.equal(sigma[:, 0], sigma[:, 1]):
            raise ConfigError(
                "the thesis preset has one noise level for image and mask, found two; expected equal levels;"
                " use Known of mode 'replacement', or preset default"
            )
        level = sigma[:, 0].double()
        spread = level.reshape(-1, *[1] * (x.ndim - 1))
        x_t = x.double() / (1 + spread**2).sqrt()
        estimate, _ = self._split(x_t, self.process.time(level), condition)
        if self.process.prediction == "v":
            return ((x_t - spread * estimate.double()) / (1 + spread**2).sqrt()).to(x.dtype)
        return (x.double() - spread * estimate.double()).to(x.dtype)

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimate of the target and log variance, each shaped like x_t, at step t (B,) of the process."""
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
    """1e-4 to 0.02 for 1000 steps (Ho et al. 2020); scaled so that others end at about the same noise."""
    scale = 1000 / steps
    # Below 20 steps the scaled rate would pass 1, which leaves no signal.
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64).clamp_max(0.999)


def _cosine(steps: int) -> Tensor:
    """Nichol & Dhariwal 2021, Eq. 17, with s = 0.008 and beta at most 0.999."""
    at = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp_max(0.999)


_SCHEDULES = {"linear": _linear, "cosine": _cosine}


def _sigma(alpha_bar: Tensor) -> Tensor:
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    # A step without signal has an infinite level. Its stand-in is one at which float32 sees no signal either.
    return torch.where(alpha_bar == 0, 1000 * sigma[-2].clamp_min(1e4), sigma)


def _at(table: Tensor, t: Tensor | int, x: Tensor) -> Tensor:
    """The table's float64 values at t (B,) or one t, broadcastable to x (B, C, *spatial)."""
    values = table[t] if isinstance(t, int) else table.to(t.device)[t]
    return values.to(x.device).reshape(-1, *[1] * (x.ndim - 1))

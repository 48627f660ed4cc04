"""Data whose denoisers are known in closed form, and the samplers with noise of their own."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.multistep import sample_unipc
from jdm.diffusion.noise import Denoise
from jdm.diffusion.sampling import (
    Churn,
    karras_sigmas,
    sample_ancestral,
    sample_ddim,
    sample_dpmpp_2m,
    sample_heun,
    sample_heun_stochastic,
)
from jdm.diffusion.sde import Langevin, sample_euler_maruyama, sample_predictor_corrector
from jdm.diffusion.vp import VPDenoiser, VPProcess

torch.set_num_threads(1)  # two busy threads of a shared machine wait for each other

MEAN, STD, RHO = 0.3, 0.5, 0.8
SIGMAS = karras_sigmas(18, 0.002, 80.0)
PROCESS = VPProcess()


def normal_data(mean: float, std: float) -> Denoise:
    """The exact denoiser of data N(mean, std^2), each entry independent."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        variance = sigma[:, :1].square().reshape(-1, *[1] * (x.ndim - 1))
        return (std**2 * x + variance * mean) / (std**2 + variance)

    return denoise


gaussian = normal_data(MEAN, STD)


def normal_pairs(image: float, mask: float, covariance: float) -> Denoise:
    """The exact denoiser of an image and a mask channel, (B, 2, *spatial): jointly normal with mean zero, by pixel.

    Args: image, mask: variances.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean = torch.tensor([[image, covariance], [covariance, mask]], dtype=x.dtype)
        noisy = clean + torch.diag_embed(sigma.to(x.dtype).square())  # (B, 2, 2)
        return torch.einsum("bij,bj...->bi...", clean @ torch.linalg.inv(noisy), x)

    return denoise


joint = normal_pairs(1.0, 1.0, RHO)


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of 0.3 N(-1, 0.2^2) + 0.7 N(1, 0.4^2), each entry independent."""
    variance = sigma[:, :1].square().reshape(-1, *[1] * (x.ndim - 1))
    logits, estimates = [], []
    for weight, mean, std in ((0.3, -1.0, 0.2), (0.7, 1.0, 0.4)):
        total = std**2 + variance
        logits.append(math.log(weight) - 0.5 * total.log() - (x - mean) ** 2 / (2 * total))
        estimates.append((std**2 * x + variance * mean) / total)
    return (torch.softmax(torch.stack(logits), 0) * torch.stack(estimates)).sum(0)


def assert_mixture(x: Tensor) -> None:
    """The entries of x have the shares, means and standard deviations of `mixture`'s two components."""
    low, high = x[x < -0.3], x[x >= -0.3]
    # The components overlap by 4e-4 at -0.3.
    assert low.numel() / x.numel() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / x.numel()) + 1e-3)
    assert [low.mean().item(), high.mean().item()] == pytest.approx([-1, 1], abs=0.02)
    assert [low.std().item(), high.std().item()] == pytest.approx([0.2, 0.4], rel=0.05)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def source(*shape: int, seed: int = 1) -> Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=torch.float64)


def moments(sample: Callable[[Noise], Tensor], entries: int) -> tuple[Tensor, Tensor]:
    """Mean (entries,) and covariance (entries, entries) of what a sampler returns, without sampling error.

    With the denoiser of Gaussian data most samplers are affine in their noise. Case 0 gets none; each other case gets a
    single one, for one entry of one draw.

    Args: sample: takes all its noise, (B, entries, 1), from its argument.
    """

    def impulses(count: int) -> tuple[Tensor, int]:
        turn = itertools.count()

        def draw() -> Tensor:
            first = next(turn) * entries
            noise = torch.zeros(count + 1, entries, 1, dtype=torch.float64)
            for entry in range(min(entries, count - first)):
                noise[1 + first + entry, entry] = 1
            return noise

        return sample(draw)[..., 0], next(turn) * entries

    _, count = impulses(0)
    x, _ = impulses(count)
    response = x[1:] - x[0]
    return x[0], response.T @ response


def levels_in_ratio(steps: int, low: float, high: float) -> Tensor:
    """Levels from high to low in constant ratio, then zero: (steps + 1,)."""
    levels = high * (low / high) ** (torch.arange(steps, dtype=torch.float64) / (steps - 1))
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def levels_of(process: VPProcess) -> Tensor:
    """The levels of a process's steps, highest first, then zero: (steps + 1,)."""
    return torch.cat([process.training_sigma[process.timesteps].flip(0), torch.zeros(1, dtype=torch.float64)])


def every_sampler(*shape: int) -> dict[str, Callable[..., Tensor]]:
    """Those that step through given levels, as (denoise, noise, sigmas, known=None), with noise of their own."""

    def corrector(sde):
        return lambda d, n, s, known=None: sample_predictor_corrector(
            d, n, s, source(*shape), Langevin(0.1, 2, sde), known
        )

    return {
        "heun": sample_heun,
        "stochastic": lambda d, n, s, known=None: sample_heun_stochastic(
            d, n, s, source(*shape), Churn(s_churn=10, s_min=0.01, s_max=60, s_noise=1.0), known
        ),
        "ddim": lambda d, n, s, known=None: sample_ddim(d, n, s, known=known),
        "ancestral": lambda d, n, s, known=None: sample_ddim(d, n, s, 1.0, source(*shape), known),
        "dpmpp": sample_dpmpp_2m,
        "unipc": lambda d, n, s, known=None: sample_unipc(d, n, s, known=known),
        "euler ve": lambda d, n, s, known=None: sample_euler_maruyama(d, n, s, source(*shape), "ve", known),
        "euler vp": lambda d, n, s, known=None: sample_euler_maruyama(d, n, s, source(*shape), "vp", known),
        "corrector ve": corrector("ve"),
        "corrector vp": corrector("vp"),
    }


SAMPLERS = list(every_sampler(1))
# Steps after which the error of discretisation is below the sampling error of the tests. The correctors are not among
# them: they need cases of many entries.
STEPS = {
    "heun": 60, "stochastic": 160, "ddim": 600, "ancestral": 600, "dpmpp": 60, "unipc": 60,
    "euler ve": 600, "euler vp": 600,
}  # fmt: skip


class GaussianNetwork(nn.Module):
    """The exact target of a process for data N(MEAN, STD^2), at any t between its steps, and a constant v."""

    def __init__(self, v: float = 0.0, process: VPProcess = PROCESS) -> None:
        super().__init__()
        self.v, self.process = nn.Parameter(torch.tensor(v, dtype=torch.float64)), process

    def forward(self, x_t: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
        assert levels.shape == (len(x_t), 1)
        low = levels[:, 0].floor().long()
        # Between steps ln(sigma) is linear, as in VPProcess.time.
        table = self.process.training_sigma.log()
        sigma = table[low].lerp(table[(low + 1).clamp_max(999)], levels[:, 0] - low).exp()
        alpha_bar = 1 / (1 + sigma**2)
        if self.process.zero_snr:
            alpha_bar = torch.where(levels[:, 0] == 999, 0.0, alpha_bar)
        alpha_bar = alpha_bar.reshape(-1, *[1] * (x_t.ndim - 1))
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        away = (x_t - signal * MEAN) / (alpha_bar * STD**2 + 1 - alpha_bar)
        target = spread * away
        if self.process.prediction == "v":
            target = signal * target - spread * (MEAN + signal * STD**2 * away)
        return torch.cat([target, self.v.expand(x_t.shape)], dim=1)


def ancestral(process: VPProcess, network: nn.Module, shape: tuple[int, ...], known: Known | None = None) -> Tensor:
    """Ancestral samples of shape (B, C, ...) by a network, with noise of their own."""
    predict = VPDenoiser(network, process, shape[1] - 1, 1).predict
    return sample_ancestral(predict, process, normal(*shape), source(*shape), known)

"""Data whose denoisers are known in closed form, and the samplers with noise of their own."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jdm.diffusion.conditioning import Known
from jdm.diffusion.multistep import sample_unipc
from jdm.diffusion.sampling import (
    Churn,
    karras_sigmas,
    sample_ancestral,
    sample_ddim,
    sample_dpmpp_2m,
    sample_heun,
    sample_heun_stochastic,
)
from jdm.diffusion.sde import sample_euler_maruyama
from jdm.diffusion.vp import VPDenoiser, VPProcess

MEAN, DEVIATION = 0.3, 0.5
SIGMAS = karras_sigmas(18, 0.002, 80.0)
PROCESS = VPProcess()


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of data N(MEAN, DEVIATION^2)."""
    variance = sigma[:, :1].square().reshape(-1, *[1] * (x.ndim - 1))
    return (DEVIATION**2 * x + variance * MEAN) / (DEVIATION**2 + variance)


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of 0.3 N(-1, 0.2^2) + 0.7 N(1, 0.4^2), each entry by itself."""
    variance = sigma[:, :1].square().reshape(-1, *[1] * (x.ndim - 1))
    logits, estimates = [], []
    for weight, mean, deviation in ((0.3, -1.0, 0.2), (0.7, 1.0, 0.4)):
        total = deviation**2 + variance
        logits.append(math.log(weight) - 0.5 * total.log() - (x - mean) ** 2 / (2 * total))
        estimates.append((deviation**2 * x + variance * mean) / total)
    return (torch.softmax(torch.stack(logits), 0) * torch.stack(estimates)).sum(0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def source(*shape: int, seed: int = 1) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=torch.float64)


def every_sampler(*shape: int, eta: float = 1.0) -> dict[str, Callable[..., Tensor]]:
    """Each as (denoise, noise, sigmas, known=None), with noise of its own."""
    return {
        "heun": sample_heun,
        "stochastic": lambda d, n, s, known=None: sample_heun_stochastic(
            d, n, s, source(*shape), Churn(s_churn=10, s_min=0.01, s_max=60, s_noise=1.0), known
        ),
        "ddim": lambda d, n, s, known=None: sample_ddim(d, n, s, known=known),
        "ancestral": lambda d, n, s, known=None: sample_ddim(d, n, s, eta, source(*shape), known),
        "dpmpp": sample_dpmpp_2m,
        "unipc": lambda d, n, s, known=None: sample_unipc(d, n, s, known=known),
        "euler ve": lambda d, n, s, known=None: sample_euler_maruyama(d, n, s, source(*shape), "ve", known),
        "euler vp": lambda d, n, s, known=None: sample_euler_maruyama(d, n, s, source(*shape), "vp", known),
    }


SAMPLERS = list(every_sampler(1))
# Steps after which the error of discretisation is below the sampling error of the tests.
STEPS = {
    "heun": 60, "stochastic": 160, "ddim": 600, "ancestral": 600, "dpmpp": 60, "unipc": 60,
    "euler ve": 600, "euler vp": 600,
}  # fmt: skip


class GaussianNetwork(nn.Module):
    """The exact noise prediction for data N(MEAN, DEVIATION^2), and a constant v."""

    def __init__(self, v: float = 0.0) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.tensor(v, dtype=torch.float64))

    def forward(self, x_t: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
        assert levels.shape == (len(x_t), 1)
        low = levels[:, 0].floor().long()
        # Between steps ln(sigma) is linear, as in VPProcess.time.
        table = PROCESS.training_sigma.log()
        sigma = table[low].lerp(table[(low + 1).clamp_max(999)], levels[:, 0] - low).exp()
        alpha_bar = (1 / (1 + sigma**2)).reshape(-1, *[1] * (x_t.ndim - 1))
        total = alpha_bar * DEVIATION**2 + 1 - alpha_bar
        eps = (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * MEAN) / total
        return torch.cat([eps, self.v.expand(x_t.shape)], dim=1)


def ancestral(process: VPProcess, network: nn.Module, shape: tuple[int, ...], known: Known | None = None) -> Tensor:
    """Ancestral samples of shape (B, C, ...) by a network, with noise of their own."""
    generator = torch.Generator().manual_seed(1)
    predict = VPDenoiser(network, process, shape[1] - 1, 1).predict
    return sample_ancestral(
        predict,
        process,
        normal(*shape),
        lambda: torch.randn(shape, generator=generator, dtype=torch.float64),
        known,
    )

"""L_simple, L_vlb and L_hybrid against direct computations."""

import json
import math
from pathlib import Path

import pytest
import torch
from closed_forms import PROCESS, normal
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from jdm.diffusion.vp import VPDenoiser, VPProcess
from jdm.diffusion.vp_loss import discretised_log_likelihood, l_hybrid, l_simple, l_vlb

torch.set_num_threads(1)

REFERENCE = json.loads((Path(__file__).parent / "reference" / "vp_process.json").read_text())


def test_l_vlb_is_the_divergence_of_the_steps():
    x0, noise = normal(3, 2, 4).clamp(-1, 1), normal(3, 2, 4, seed=1)
    t = torch.tensor([1, 300, 999])
    x_t = PROCESS.q_sample(x0, t, noise)
    eps, v = normal(3, 2, 4, seed=2), normal(3, 2, 4, seed=3).clamp(-1, 1)
    log_variance = PROCESS.log_variance(v, t)
    found = l_vlb(PROCESS, (eps, log_variance), x0, x_t, t)
    for i, step in enumerate(t.tolist()):
        beta, alpha_bar = PROCESS.beta[step], PROCESS.alpha_bar[step]
        mean = (x_t[i] - beta / (1 - alpha_bar).sqrt() * eps[i]) / (1 - beta).sqrt()
        true_mean = (x_t[i] - beta / (1 - alpha_bar).sqrt() * noise[i]) / (1 - beta).sqrt()
        q = Normal(true_mean, PROCESS.posterior_variance[step].sqrt())
        p = Normal(mean, (log_variance[i] / 2).exp())
        expected = kl_divergence(q, p).mean() / math.log(2)
        torch.testing.assert_close(found[i], expected, rtol=1e-8, atol=0)


def test_decoder_is_a_distribution_over_the_grey_levels():
    grey = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, std in ((0.1, 0.3), (-0.97, 0.02), (0.9, 2.0), (0.0, 0.004)):
        log_variance = torch.full_like(grey, 2 * math.log(std))
        probability = discretised_log_likelihood(grey, torch.full_like(grey, mean), log_variance).exp()
        # Each level is floored at 1e-12.
        assert probability.sum().item() == pytest.approx(1, abs=1e-9)
        i = 140
        direct = Normal(mean, std).cdf(grey[i] + 1 / 255) - Normal(mean, std).cdf(grey[i] - 1 / 255)
        assert probability[i].item() == pytest.approx(direct.item(), rel=1e-6, abs=2e-12)


def test_l_vlb_at_the_first_step_is_the_decoder_in_bits():
    x0 = torch.linspace(-1, 1, 256, dtype=torch.float64).reshape(1, 1, 256)
    t, noise = torch.tensor([0]), normal(1, 1, 256)
    x_t = PROCESS.q_sample(x0, t, noise)
    log_variance = torch.full_like(x0, 2 * math.log(0.01))
    found = l_vlb(PROCESS, (noise, log_variance), x0, x_t, t)
    # The mean is x0 itself: with the true noise the estimate of x0 is exact.
    expected = -discretised_log_likelihood(x0, x0, log_variance).mean() / math.log(2)
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("step", [0, 1, 700])
def test_gradient_of_l_vlb_does_not_reach_the_mean(step):
    x0, noise, t = normal(2, 2, 4).clamp(-1, 1), normal(2, 2, 4, seed=1), torch.full((2,), step)
    eps, v = normal(2, 2, 4, seed=2).requires_grad_(), normal(2, 2, 4, seed=3).requires_grad_()
    l_vlb(PROCESS, (eps, PROCESS.log_variance(v, t)), x0, PROCESS.q_sample(x0, t, noise), t).sum().backward()
    assert eps.grad is None
    assert v.grad is not None
    assert v.grad.isfinite().all()
    assert (v.grad != 0).all()


def test_l_hybrid_is_the_weighted_sum_and_trains_each_half_by_its_loss():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eps, self.v = nn.Parameter(torch.full((2, 4), 0.1)), nn.Parameter(torch.full((2, 4), 0.2))

        def forward(self, x_t: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
            return torch.cat([self.eps.expand(x_t.shape), self.v.expand(x_t.shape)], dim=1)

    network = Network()
    denoiser = VPDenoiser(network, PROCESS, 1, 1)
    x0, noise = normal(3, 2, 4).clamp(-1, 1).float(), normal(3, 2, 4, seed=1).float()
    t = torch.tensor([0, 10, 800])
    loss = l_hybrid(denoiser, x0, t, noise)
    x_t = PROCESS.q_sample(x0, t, noise)
    simple, bound = l_simple(network.eps.expand(3, 2, 4), noise), l_vlb(PROCESS, denoiser.predict(x_t, t), x0, x_t, t)
    assert loss.shape == (3,)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, simple + 0.001 * 1000 * bound)
    by_hybrid = torch.autograd.grad(loss.sum(), [network.eps, network.v])
    torch.testing.assert_close(by_hybrid[0], torch.autograd.grad(simple.sum(), network.eps)[0])
    torch.testing.assert_close(by_hybrid[1], torch.autograd.grad(bound.sum(), network.v)[0])


@pytest.mark.parametrize("name", REFERENCE["processes"])
def test_parity_of_the_terms_with_guided_diffusion(name):
    """The origin of the values is in the file."""
    schedule, count = name.split("-")
    process = VPProcess(1000, schedule).respaced(int(count))
    x0, noise, eps, v = (
        torch.tensor(REFERENCE[key], dtype=torch.float64).reshape(1, 1, 6) for key in ("x0", "noise", "eps", "v")
    )
    for row in REFERENCE["processes"][name]["rows"]:
        t = torch.tensor([row["t"]])
        assert l_simple(eps, noise).item() == pytest.approx(row["mse"], rel=1e-12)
        prediction = eps, process.log_variance(v, t)
        bound = l_vlb(process, prediction, x0, process.q_sample(x0, t, noise), t).item()
        # Their decoder approximates the normal distribution function by a tanh.
        assert bound == pytest.approx(row["vb"], rel=2e-2 if row["t"] == 0 else 1e-8)

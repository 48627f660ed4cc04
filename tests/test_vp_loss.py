"""L_simple, L_vlb and L_hybrid against direct computations."""

import math

import pytest
import torch
from closed_forms import PROCESS, normal
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from jdm.diffusion.vp import VPDenoiser, VPProcess
from jdm.diffusion.vp_loss import discretised_log_likelihood, l_hybrid, l_simple, l_vlb

PROCESSES = (PROCESS, VPProcess(prediction="v", zero_snr=True))


@pytest.mark.parametrize("process", PROCESSES, ids=["epsilon", "v"])
def test_l_vlb_is_the_divergence_of_the_steps(process):
    x0, noise, t = normal(3, 2, 4).clamp(-1, 1), normal(3, 2, 4, seed=1), torch.tensor([1, 400, 999])
    x_t, output = process.q_sample(x0, t, noise), normal(3, 2, 4, seed=2)
    log_variance = process.log_variance(normal(3, 2, 4, seed=3).clamp(-1, 1), t)
    found = l_vlb(process, (output, log_variance), x0, x_t, t)
    for i, step in enumerate(t.tolist()):
        beta, alpha_bar, before = process.beta[step], process.alpha_bar[step], process.alpha_bar[step - 1]
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        estimates = {"epsilon": (x_t[i] - spread * output[i]) / signal, "v": signal * x_t[i] - spread * output[i]}
        # Bayes: x_{t-1} is seen from x0 with variance 1 - before, and from x_t.
        precision = (1 - beta) / beta + 1 / (1 - before)
        true_mean, mean = (
            ((1 - beta).sqrt() / beta * x_t[i] + before.sqrt() * x / (1 - before)) / precision
            for x in (x0[i], estimates[process.prediction])
        )
        p = Normal(mean, (log_variance[i] / 2).exp())
        expected = kl_divergence(Normal(true_mean, precision**-0.5), p).mean() / math.log(2)
        torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-9)


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
    assert v.grad is not None and v.grad.isfinite().all() and (v.grad != 0).all()


@pytest.mark.parametrize("process", PROCESSES, ids=["epsilon", "v"])
def test_l_hybrid_is_the_weighted_sum_and_trains_each_half_by_its_loss(process):
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.target, self.v = nn.Parameter(torch.full((2, 4), 0.1)), nn.Parameter(torch.full((2, 4), 0.2))

        def forward(self, x_t: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
            return torch.cat([self.target.expand(x_t.shape), self.v.expand(x_t.shape)], dim=1)

    network = Network()
    denoiser = VPDenoiser(network, process, 1, 1)
    x0, noise = normal(3, 2, 4).clamp(-1, 1).float(), normal(3, 2, 4, seed=1).float()
    t = torch.tensor([0, 10, 800])
    loss = l_hybrid(denoiser, x0, t, noise)
    x_t, alpha_bar = process.q_sample(x0, t, noise), process.alpha_bar[t].reshape(3, 1, 1)
    target = noise
    if process.prediction == "v":
        target = (alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0).float()
    simple = l_simple(network.target.expand(3, 2, 4), target)
    bound = l_vlb(process, denoiser.predict(x_t, t), x0, x_t, t)
    assert loss.shape == (3,) and loss.dtype == torch.float32
    torch.testing.assert_close(loss, simple + 0.001 * 1000 * bound)
    by_hybrid = torch.autograd.grad(loss.sum(), [network.target, network.v])
    torch.testing.assert_close(by_hybrid[0], torch.autograd.grad(simple.sum(), network.target)[0])
    torch.testing.assert_close(by_hybrid[1], torch.autograd.grad(bound.sum(), network.v)[0])

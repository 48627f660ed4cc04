"""The variance-preserving process, its adapter and its ancestral sampler, against independent computations."""

import json
import math
from pathlib import Path

import mpmath
import pytest
import torch
from closed_forms import MEAN, PROCESS, STD, GaussianNetwork, ancestral, gaussian, levels_of, normal, source
from torch import Tensor, nn
from torch.distributions import Normal

from jdm.diffusion.sampling import sample_ancestral, sample_ddim
from jdm.diffusion.vp import VPDenoiser, VPProcess
from jdm.diffusion.vp_loss import l_simple, l_vlb
from jdm.errors import ConfigError

REFERENCE = json.loads((Path(__file__).parent / "reference" / "vp_process.json").read_text())


def test_linear_schedule_is_the_thesis_one():
    t = torch.arange(1, 1001, dtype=torch.float64)
    torch.testing.assert_close(PROCESS.beta, (1000 - t) / 999 * 1e-4 + (t - 1) / 999 * 0.02)


def test_cosine_schedule_is_eq_17():
    process = VPProcess(1000, "cosine")
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    torch.testing.assert_close(process.alpha_bar[:999], torch.tensor(f[1:1000], dtype=torch.float64) / f[0])
    assert process.beta.max().item() == 0.999


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("count", [1000, 10])
def test_eq_2_4_is_the_chain_of_eq_2_2(schedule, count):
    """Mean factor and variance after composing single steps, with 50 digits."""
    whole = VPProcess(1000, schedule)
    process = whole if count == 1000 else whole.respaced(count)
    x0, noise = normal(1, 1, 4), normal(1, 1, 4, seed=1)
    factor, variance = mpmath.mpf(1), mpmath.mpf(0)
    with mpmath.workdps(50):
        for t, beta in enumerate(process.beta.tolist()):
            factor *= mpmath.sqrt(1 - mpmath.mpf(beta))
            variance = (1 - mpmath.mpf(beta)) * variance + mpmath.mpf(beta)
            if t in (0, 1, count // 2, count - 1):
                expected = float(factor) * x0 + float(mpmath.sqrt(variance)) * noise
                torch.testing.assert_close(process.q_sample(x0, t, noise), expected, rtol=1e-9, atol=1e-12)
                sigma = float(mpmath.sqrt(variance) / factor)
                assert process.sigma(t) == pytest.approx(sigma, rel=1e-9)


@pytest.mark.parametrize("t", [1, 2, 30, 500, 999])
def test_eq_2_6_is_bayes_rule(t):
    """Mean and variance of q(x_{t-1} | x_t, x0), from the two densities multiplied on a grid."""
    x0, x_t, beta = 0.7, -0.4, PROCESS.beta[t].item()
    before = PROCESS.alpha_bar[: t + 1].tolist()[-2]
    grid = torch.linspace(-8, 8, 2_000_001, dtype=torch.float64)
    prior = Normal(math.sqrt(before) * x0, math.sqrt(1 - before)).log_prob(grid)
    likelihood = Normal(math.sqrt(1 - beta) * grid, math.sqrt(beta)).log_prob(torch.tensor(x_t))
    density = torch.softmax(prior + likelihood, 0)
    mean = (density * grid).sum()
    variance = (density * (grid - mean) ** 2).sum()
    found = PROCESS.posterior_mean(torch.full((1, 1), x0).double(), torch.full((1, 1), x_t).double(), t)
    assert found.item() == pytest.approx(mean.item(), abs=1e-7)
    assert PROCESS.posterior_variance[t].item() == pytest.approx(variance.item(), rel=1e-5)


def test_eq_2_17_mixes_in_the_log_domain():
    v = torch.tensor([-1.0, -0.5, 0.0, 0.3, 1.0, 1.5], dtype=torch.float64).reshape(1, 6, 1)
    for t in (1, 500, 999):
        share = (v + 1) / 2
        expected = PROCESS.beta[t] ** share * PROCESS.posterior_variance[t] ** (1 - share)
        torch.testing.assert_close(PROCESS.log_variance(v, t).exp(), expected, rtol=1e-12, atol=0)
    # The first posterior variance is zero: its logarithm is that of the second.
    low = PROCESS.log_variance(torch.full((1, 1, 1), -1.0), 0).item()
    assert low == pytest.approx(math.log(PROCESS.posterior_variance[1].item()))


def test_eq_2_19_holds_with_alpha_not_alpha_bar():
    """Eq. 2.14 and 2.19 print sqrt(alpha_bar_t); the mean of Eq. 2.6 has sqrt(alpha_t)."""
    x_t, eps = normal(1, 2, 5), normal(1, 2, 5, seed=1)
    for t in (1, 400, 999):
        beta, alpha_bar = PROCESS.beta[t], PROCESS.alpha_bar[t]
        mean = PROCESS.posterior_mean(PROCESS.predict_x0(x_t, t, eps), x_t, t)
        derived = (x_t - beta / (1 - alpha_bar).sqrt() * eps) / (1 - beta).sqrt()
        printed = (x_t - beta / (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
        torch.testing.assert_close(mean, derived)
        assert not torch.allclose(mean, printed, rtol=1e-5)


def test_time_is_the_inverse_of_sigma():
    for process in (PROCESS, *(VPProcess(1000, name, prediction="v", zero_snr=True) for name in ("linear", "cosine"))):
        for sigma in (process.training_sigma, process.training_sigma.float()):
            assert torch.equal(process.time(sigma), torch.arange(1000.0).double())
    between = PROCESS.time(torch.tensor([math.sqrt(PROCESS.sigma(10) * PROCESS.sigma(11))]))
    assert between.item() == pytest.approx(10.5, abs=1e-4)
    beyond = PROCESS.time(torch.tensor([0.0, 1e-4, 1e4], dtype=torch.float64))
    assert beyond.tolist() == [0, 0, 999]


def test_respaced_process_is_a_subset_with_composed_steps():
    process = PROCESS.respaced(50)
    assert process.steps == 50
    assert process.timesteps[[0, -1]].tolist() == [0, 999]
    torch.testing.assert_close(torch.cumprod(1 - process.beta, 0), PROCESS.alpha_bar[process.timesteps])
    assert [process.sigma(0), process.sigma(49)] == PROCESS.training_sigma[[0, 999]].tolist()
    assert PROCESS.respaced(1000).timesteps.tolist() == list(range(1000))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: PROCESS.respaced(1), "steps is 1;.* 2 to 1000"),
        (lambda: PROCESS.respaced(1001), "steps is 1001;.* 2 to 1000"),
        (lambda: VPProcess(1000, keep=[0, 5, 5]), r"\[0, 5, 5\].*ascending"),
        (lambda: VPProcess(1000, keep=[0, 1000]), r"\[0, 1000\].*0 to 999"),
        (lambda: VPProcess(1), r"\[0\].*at least 2"),
        (lambda: VPProcess(1000, "quadratic"), "'quadratic'.*linear, cosine"),
    ],
)
def test_impossible_processes_are_refused(build, named):
    with pytest.raises(ConfigError, match=named):
        build()


@pytest.mark.parametrize("name", REFERENCE["processes"])
def test_parity_with_guided_diffusion(name):
    """Tables, means, log variances and terms of the loss; the origin is in the file."""
    schedule, count = name.split("-")
    process = VPProcess(1000, schedule).respaced(int(count))
    x0, noise, eps, v = (
        torch.tensor(REFERENCE[key], dtype=torch.float64).reshape(1, 1, 6) for key in ("x0", "noise", "eps", "v")
    )

    def close(found: Tensor, expected: list[float]) -> None:
        torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64))

    places = [0, 1, process.steps // 2, process.steps - 1]
    close(process.beta[places], REFERENCE["processes"][name]["beta"])
    close(process.alpha_bar[places], REFERENCE["processes"][name]["alpha_bar"])
    for row in REFERENCE["processes"][name]["rows"]:
        t = torch.tensor([row["t"]])
        assert process.timesteps[t].item() == row["timestep"]
        x_t = process.q_sample(x0, t, noise)
        close(x_t, row["x_t"])
        close(process.posterior_mean(process.predict_x0(x_t, t, eps), x_t, t), row["mean"])
        close(process.log_variance(v, t), row["log_variance"])
        assert l_simple(eps, noise).item() == pytest.approx(row["mse"], rel=1e-12)
        # Their decoder, the term of the first step, approximates the normal distribution function by a tanh.
        bound = l_vlb(process, (eps, process.log_variance(v, t)), x0, x_t, t).item()
        assert bound == pytest.approx(row["vb"], rel=2e-2 if row["t"] == 0 else 1e-8)


@pytest.mark.parametrize(
    ("schedule", "prediction", "zero_snr"),
    [("linear", "epsilon", False), ("linear", "v", False), ("linear", "v", True), ("cosine", "v", True)],
)
def test_adapter_is_the_exact_denoiser_at_any_level(schedule, prediction, zero_snr):
    process = VPProcess(1000, schedule, prediction=prediction, zero_snr=zero_snr)
    denoise = VPDenoiser(GaussianNetwork(process=process), process, 2, 1)
    sigma = torch.tensor([0.02, 0.5, 3.3, 79.0], dtype=torch.float64)[:, None].expand(4, 2)
    x = normal(4, 3, 5, 5) * (1 + sigma[:, :1, None, None])
    torch.testing.assert_close(denoise(x, sigma), gaussian(x, sigma), rtol=1e-6, atol=1e-6)
    assert torch.equal(denoise(x, torch.zeros(4, 2)), x)
    single = denoise(x.float(), sigma.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, gaussian(x, sigma).float(), rtol=1e-3, atol=1e-3)
    if zero_snr:  # without signal the estimate is the mean
        far = torch.full((4, 2), process.sigma(999), dtype=torch.float64)
        mean = denoise(far[:, :1, None] * normal(4, 3, 5), far)
        torch.testing.assert_close(mean, torch.full_like(mean, MEAN), rtol=0, atol=1e-6)


def test_adapter_passes_the_step_and_the_condition_to_the_network():
    seen: list[tuple[Tensor, Tensor]] = []

    class Network(nn.Module):
        def forward(self, x_t: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
            assert condition is not None
            seen.append((levels, condition))
            return torch.cat([x_t, x_t], dim=1)

    denoise, condition = VPDenoiser(Network(), PROCESS, 1, 1).respaced(5), torch.ones(2, 9)
    denoise(torch.zeros(2, 2, 4), torch.full((2, 2), PROCESS.sigma(250)), condition)
    denoise.predict(torch.zeros(2, 2, 4), torch.tensor([1, 4]), condition)
    assert [levels.flatten().tolist() for levels, _ in seen] == [[250, 250], [250, 999]]
    assert all(levels.shape == (2, 1) and given is condition for levels, given in seen)


def test_adapter_refuses_two_levels():
    denoise = VPDenoiser(GaussianNetwork(), PROCESS, 1, 1)
    with pytest.raises(ConfigError, match=r"thesis.*equal levels.*'replacement'"):
        denoise(normal(1, 2, 4), torch.tensor([[1.0, 0.0]]))


def test_adapter_has_no_state_but_the_network():
    assert list(VPDenoiser(GaussianNetwork(), PROCESS, 1, 1).state_dict()) == ["network.v"]


def _exact_predict(process: VPProcess):
    """The true reverse step for Gaussian data: its noise estimate and its variance."""

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        i = int(t[0])
        alpha_bar = process.alpha_bar[i]
        total = alpha_bar * STD**2 + 1 - alpha_bar
        eps = (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * MEAN) / total
        x0_variance = STD**2 * (1 - alpha_bar) / total
        variance = process.posterior_variance[i] + process.posterior_x0[i] ** 2 * x0_variance
        return eps, variance.log().expand(x_t.shape)

    return predict


@pytest.mark.parametrize("count", [1000, 50, 5])
def test_ancestral_sampling_of_gaussian_data_is_exact(count):
    """With the true variance the reverse chain is exact however few its steps, but for the noiseless last."""
    n, process = 40_000, PROCESS.respaced(count)
    x = sample_ancestral(_exact_predict(process), process, normal(n, 1, 1), source(n, 1, 1))
    # The last step returns the mean of x0 given x_1.
    last = STD**2 * PROCESS.sigma(0) ** 2 / (STD**2 + PROCESS.sigma(0) ** 2)
    variance = STD**2 - last
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(n) + MEAN * 0.007)
    assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


def test_ancestral_sampling_by_the_network_with_the_learned_variance():
    process = PROCESS.respaced(250)
    with torch.no_grad():
        x = ancestral(process, GaussianNetwork(v=1.0), (4000, 2, 2))
    assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x.std().item() == pytest.approx(STD, rel=0.03)


def test_clip_bounds_each_estimate():
    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x_t), torch.full_like(x_t, -20.0)

    process = PROCESS.respaced(10)
    noise = normal(2, 2, 8)
    x = sample_ancestral(predict, process, noise, lambda: torch.zeros_like(noise), clip=1.0)
    assert x.abs().max().item() <= 1
    assert sample_ancestral(predict, process, noise, lambda: torch.zeros_like(noise)).abs().max().item() > 1


@pytest.mark.parametrize(("prediction", "theirs"), [("epsilon", "epsilon"), ("v", "v_prediction")])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_ddim_parity_with_diffusers(eta, prediction, theirs):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        1000, 1e-4, 0.02, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", prediction_type=theirs
    )
    scheduler.set_timesteps(20)
    process = VPProcess(keep=scheduler.timesteps.flip(0).tolist(), prediction=prediction)
    denoiser, shape = VPDenoiser(GaussianNetwork(process=process), process, 1, 1), (2, 2, 4, 4)
    x, first = normal(*shape), process.sigma(process.steps - 1)
    draws = [normal(*shape, seed=10 + i) for i in range(20)]
    with torch.no_grad():
        queue = iter(draws)
        # Their start has unit variance after scaling; ours before it.
        start = x * math.sqrt(1 + first**2) / first
        ours = sample_ddim(denoiser, start, levels_of(process), eta, lambda: next(queue))
        for t, draw in zip(scheduler.timesteps, draws, strict=True):
            output = denoiser.network(x, t.double().expand(2, 1))[:, :2]
            x = scheduler.step(output, t, x, eta=eta, variance_noise=draw).prev_sample
    # Their tables are float32.
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4)


def test_ancestral_parity_with_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        1000, 1e-4, 0.02, variance_type="learned_range", clip_sample=False, timestep_spacing="leading"
    )
    scheduler.set_timesteps(1000)
    shape, network = (2, 2, 4, 4), GaussianNetwork(v=0.3)
    x, generator = normal(*shape), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = network(x, t.double().expand(2, 1))
            x = scheduler.step(output, int(t), x, generator=generator).prev_sample
        ours = ancestral(PROCESS, network, shape)
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)

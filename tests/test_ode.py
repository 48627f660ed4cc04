"""The probability flow ODE by an adaptive solver: its solution, and densities against exact ones."""

import math

import pytest
import torch
from closed_forms import (
    MEAN,
    PROCESS,
    RHO,
    SIGMAS,
    STD,
    GaussianNetwork,
    assert_mixture,
    gaussian,
    joint,
    levels_of,
    mixture,
    normal,
    source,
)  # fmt: skip
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from jdm.config.settings import NetworkConfig
from jdm.diffusion.conditioning import Known
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.ode import (
    Likelihood,
    Solver,
    bits_per_dim,
    dequantised,
    log_likelihood,
    rademacher,
    sample_ode,
)
from jdm.diffusion.sampling import karras_sigmas, sample_heun
from jdm.diffusion.unet import UNet
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.windows import windowed
from jdm.errors import ConfigError

LOW, HIGH = 0.02, 80.0
LEVELS = torch.tensor([HIGH, LOW], dtype=torch.float64)
TIGHT = Solver("DOP853", 1e-9, 1e-9)


def signs(*shape: int, seed: int = 3) -> Tensor:
    return rademacher(normal(*shape, seed=seed))


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_error_follows_the_tolerance(method):
    noise = normal(4, 1, 8)
    exact = MEAN + (HIGH * noise - MEAN) * math.sqrt((STD**2 + LOW**2) / (STD**2 + HIGH**2))
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        solver = Solver(method, tolerance, tolerance)
        errors.append((sample_ode(gaussian, noise, LEVELS, solver) - exact).abs().max().item())
        assert errors[-1] < 20 * tolerance
    assert errors == sorted(errors, reverse=True)


def test_levels_to_zero_end_in_the_estimate_at_the_last_positive_one():
    noise = normal(2, 2, 5)
    last = sample_ode(mixture, noise, SIGMAS[:-1], TIGHT)
    expected = mixture(last, SIGMAS[-2].expand(2, 2))
    torch.testing.assert_close(sample_ode(mixture, noise, SIGMAS, TIGHT), expected)
    # Only the ends count, and one step to zero is one estimate.
    assert torch.equal(sample_ode(mixture, noise, SIGMAS[[0, -2]], TIGHT), last)
    start = SIGMAS[0] * noise
    assert torch.equal(sample_ode(mixture, noise, SIGMAS[[0, -1]], TIGHT), mixture(start, SIGMAS[0].expand(2, 2)))


def test_heun_with_many_steps_finds_the_same_solution():
    noise = normal(2, 2, 5)
    heun = sample_heun(mixture, noise, karras_sigmas(1000, 0.002, 80.0))
    torch.testing.assert_close(sample_ode(mixture, noise, SIGMAS, TIGHT), heun, rtol=1e-3, atol=1e-4)


def test_mixture_keeps_its_shares_means_and_variances():
    assert_mixture(sample_ode(mixture, normal(2, 1, 90, 90), SIGMAS))


def test_denoiser_gets_float32_and_the_sample_is_float32():
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float32
        assert x.shape == (1, 2, 4, 4)
        assert sigma.shape == (1, 2)
        return mixture(x, sigma)

    noise = normal(2, 2, 4, 4)
    x = sample_ode(denoise, noise.float(), SIGMAS)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), sample_ode(mixture, noise, SIGMAS, TIGHT), rtol=1e-3, atol=1e-3)


def test_the_thesis_process_is_sampled_too():
    noise = normal(2, 2, 6)
    with torch.no_grad():
        x = sample_ode(VPDenoiser(GaussianNetwork(), PROCESS, 1, 1), noise, levels_of(PROCESS))
    first, last = PROCESS.sigma(999) ** 2, PROCESS.sigma(0) ** 2
    exact = MEAN + (first**0.5 * noise - MEAN) * STD**2 / ((STD**2 + first) * (STD**2 + last)) ** 0.5
    torch.testing.assert_close(x, exact, rtol=1e-3, atol=1e-3)


def test_known_groups_stay_and_lead_to_the_conditional_mean_and_spread():
    """Given the other entry, the solution is the conditional mean plus the start, shrunk by the ODE of its variance."""
    noise, value = normal(3, 2, 1), 1.5
    where = torch.tensor([[[True], [False]], [[False], [True]], [[False], [False]]])
    known = Known(where, torch.full((3, 2, 1), value), 1)
    x = sample_ode(joint, noise, LEVELS, TIGHT, known)
    variance = 1 - RHO**2
    shrink = math.sqrt((variance + LOW**2) / (variance + HIGH**2))
    expected = RHO * value + (HIGH * noise[[0, 1], [1, 0], 0] - RHO * value) * shrink
    assert x[0, 0, 0] == x[1, 1, 0] == value
    torch.testing.assert_close(x[[0, 1], [1, 0], 0], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x[2:], sample_ode(joint, noise[2:], LEVELS, TIGHT))


def test_everything_and_nothing_known_and_replacement():
    noise, values = normal(2, 3, 4), normal(2, 3, 4, seed=9)
    everything, nothing = torch.ones(1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, dtype=torch.bool)
    assert torch.equal(sample_ode(mixture, noise, SIGMAS, known=Known(everything, values, 2)), values)
    free = sample_ode(mixture, noise, SIGMAS)
    assert torch.equal(sample_ode(mixture, noise, SIGMAS, known=Known(nothing, values, 2)), free)
    replacement = Known(everything, values, 2, "replacement", source(2, 3, 4))
    with pytest.raises(ConfigError, match=r"'replacement'.*'exact'"):
        sample_ode(mixture, noise, SIGMAS, known=replacement)
    with pytest.raises(ConfigError, match=r"'replacement'.*'exact'"):
        log_likelihood(mixture, noise, SIGMAS, signs(1, 2, 3, 4), known=replacement)


def test_a_solver_that_cannot_go_on_says_so():
    rough = source(1, 1, 4)
    with pytest.raises(ConfigError, match=r"RK45 .* 200 calls .* rtol \(1e-05\)"):
        sample_ode(lambda x, sigma: 1e6 * rough(), normal(1, 1, 4), SIGMAS, Solver(calls=200))
    with pytest.raises(ConfigError, match=r"RK45 .* level 1\.23.* rtol \(1e-05\)"):
        # A slope without bound at level 1.2345.
        sample_ode(lambda x, sigma: x + 1 / (1.2345 - sigma[:, :1, None]) ** 2, normal(1, 1, 4), SIGMAS)
    with pytest.raises(ConfigError, match="finite at level 80"):
        sample_ode(lambda x, sigma: x * math.nan, normal(1, 1, 4), SIGMAS)


def test_gaussian_density_is_exact():
    """Against the density that the ODE carries down from N(0, 80^2), and against that of the data."""
    x0 = MEAN + STD * normal(5, 2, 3, seed=4)
    found = log_likelihood(gaussian, x0, LEVELS, signs(1, 5, 2, 3), TIGHT)
    high, low = STD**2 + HIGH**2, STD**2 + LOW**2
    ends = MEAN + (x0 - MEAN) * math.sqrt(high / low)
    carried = Normal(0.0, HIGH).log_prob(ends).sum((1, 2)) + 6 / 2 * math.log(high / low)
    torch.testing.assert_close(found.log_density, carried, rtol=0, atol=1e-6)
    data = Normal(MEAN, math.sqrt(low)).log_prob(x0).sum((1, 2))
    # The start leaves out a variance of 0.25 of 6400 and a mean of 0.3 of 80.
    torch.testing.assert_close(found.log_density, data, rtol=0, atol=0.1)
    assert found.entries.tolist() == [6] * 5
    torch.testing.assert_close(found.noise, ends / HIGH)


@pytest.mark.parametrize("solver", [Solver(), TIGHT])
def test_mixture_density_is_exact(solver):
    stds = torch.tensor([0.2, 0.4], dtype=torch.float64)
    exact = MixtureSameFamily(
        Categorical(torch.tensor([0.3, 0.7], dtype=torch.float64)),
        Normal(torch.tensor([-1.0, 1.0], dtype=torch.float64), (stds**2 + LOW**2).sqrt()),
    )
    x0 = torch.linspace(-1.6, 2.2, 12, dtype=torch.float64).reshape(12, 1, 1)
    # From so high a level that the prior is the data's density there.
    levels = torch.tensor([2000.0, LOW], dtype=torch.float64)
    found = log_likelihood(mixture, x0, levels, signs(1, 12, 1, 1), solver)
    torch.testing.assert_close(found.log_density, exact.log_prob(x0.flatten()), rtol=0, atol=2e-3)


def test_trace_estimates_average_to_the_exact_density_of_correlated_data():
    x0 = normal(4, 2, 1, seed=6)
    levels = torch.tensor([2000.0, LOW], dtype=torch.float64)
    covariance = torch.tensor([[1, RHO], [RHO, 1]]).double() + LOW**2 * torch.eye(2).double()
    exact = MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(x0[..., 0])

    def density(*probes: tuple[float, float]) -> Tensor:
        stacked = torch.tensor(probes, dtype=torch.float64)[:, None, :, None].expand(-1, 4, 2, 1)
        return log_likelihood(joint, x0, levels, stacked, TIGHT).log_density

    # Any probes whose mean outer product is one give the trace itself.
    torch.testing.assert_close(density((1, 1), (1, -1)), exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(density((math.sqrt(2), 0), (0, math.sqrt(2))), exact, rtol=0, atol=1e-4)
    # One pair of signs is off by the Jacobian's other entries, and its opposite by as much the other way.
    off = density((1, 1)) - exact, density((1, -1)) - exact
    torch.testing.assert_close(off[0], -off[1], rtol=1e-3, atol=1e-4)
    assert off[0].abs().min() > 0.5


def test_random_signs_are_unbiased():
    n = 100
    x0 = normal(1, 2, 1, seed=6).expand(n, 2, 1)
    levels = torch.tensor([200.0, 0.1], dtype=torch.float64)
    some = log_likelihood(joint, x0, levels, signs(1, n, 2, 1)).log_density
    both = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double()[:, None, :, None]
    exact = log_likelihood(joint, x0[:1], levels, both).log_density.item()
    assert some.mean().item() == pytest.approx(exact, abs=4 * some.std().item() / math.sqrt(n))


@pytest.mark.parametrize("given", [0, 1])
def test_density_given_the_other_group(given):
    """The image's density for a given mask, and the reverse; what x0 says of the given group does not count."""
    x0, value = normal(3, 2, 1, seed=6), 0.7
    where = torch.zeros(1, 2, 1, dtype=torch.bool)
    where[:, given] = True
    known = Known(where, torch.full((1, 2, 1), value), 1)
    levels = torch.tensor([2000.0, LOW], dtype=torch.float64)
    found = log_likelihood(joint, x0, levels, signs(1, 3, 2, 1), TIGHT, known)
    exact = Normal(RHO * value, math.sqrt(1 - RHO**2 + LOW**2)).log_prob(x0[:, 1 - given, 0])
    torch.testing.assert_close(found.log_density, exact, rtol=0, atol=2e-3)
    assert found.entries.tolist() == [1, 1, 1]


def test_the_noise_of_a_likelihood_leads_back():
    x0 = normal(3, 2, 5, seed=8)
    noise = log_likelihood(mixture, x0, LEVELS, signs(1, 3, 2, 5), TIGHT).noise
    torch.testing.assert_close(sample_ode(mixture, noise, LEVELS, TIGHT), x0, rtol=0, atol=1e-5)


def test_divergence_through_the_network_is_its_derivative_along_the_probe():
    """The preconditioned U-Net in windows, over a stretch of levels so short that its Jacobian is constant."""
    generator = torch.Generator().manual_seed(0)
    network = UNet(8, 12, NetworkConfig(8, (1, 2), 1, (2,), 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    denoiser = Denoiser(
        network, (0.1,), ((1.0,),), ((0.5,) * 16,), torch.tensor([[-0.5], [0.5]]), (0.6, 0.4), haar_levels=1
    )
    denoise, shape = windowed(denoiser, (8, 8)), (1, 2, 8, 12)
    x0, probe = normal(*shape), signs(1, *shape)
    low, high = 0.5, 0.5 * 1.001
    found = log_likelihood(denoise, x0.float(), torch.tensor([high, low]), probe.float())
    level, reach = torch.full((1, 2), low), 1e-2 * probe[0]
    with torch.no_grad():
        ahead, behind = denoise((x0 + reach).float(), level), denoise((x0 - reach).float(), level)
    trace = ((ahead.double() - behind.double()) / 2e-2 * probe[0]).sum().item()
    prior = Normal(0.0, high).log_prob(high * found.noise.double()).sum().item()
    divergence = (found.log_density.item() - prior) / math.log(high / low)
    assert divergence == pytest.approx(x0.numel() - trace, rel=0.01)
    assert abs(trace) > 5
    assert all(parameter.grad is None for parameter in network.parameters())


def test_probes_that_do_not_fit_are_refused():
    x0 = normal(2, 1, 4)
    for shape in ((2, 1, 4), (1, 1, 1, 4), (0, 2, 1, 4)):
        with pytest.raises(ConfigError, match="probes") as caught:
            log_likelihood(gaussian, x0, LEVELS, torch.zeros(shape))
        assert str(shape) in str(caught.value) and "('P', 2, 1, 4)" in str(caught.value)


def test_a_uniform_density_costs_the_bits_of_its_levels():
    """256 bins in [-1, 1], the convention of score_sde, add 7 bits to the uniform density's one."""
    uniform = Likelihood(torch.tensor([30 * math.log(0.5)]).double(), torch.tensor([30]), torch.zeros(1, 30))
    assert bits_per_dim(uniform, 2 / 256).item() == pytest.approx(8)
    assert bits_per_dim(uniform).item() == pytest.approx(math.log2(255))


def test_bits_of_dequantised_data_are_those_of_its_levels():
    """8-bit levels of Gaussian data: -log2 of the exact probability of each level's bin."""
    bins = 2 / 255
    levels = torch.arange(60, 240, 9)
    x0 = (levels.double() * bins - 1).reshape(1, 1, -1)
    uniform = torch.rand(40, 1, len(levels), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    spread = dequantised(x0, uniform)
    assert ((spread - x0).abs() <= bins / 2).all()
    assert torch.equal(((spread + 1) / bins).round().long(), levels.expand(40, 1, -1))
    wide = torch.tensor([2000.0, 1e-3], dtype=torch.float64)
    found = bits_per_dim(log_likelihood(gaussian, spread, wide, signs(1, *spread.shape))).mean()
    data = Normal(MEAN, STD)
    probability = data.cdf(x0 + bins / 2) - data.cdf(x0 - bins / 2)
    assert found.item() == pytest.approx(-probability.log2().mean().item(), abs=2e-3)

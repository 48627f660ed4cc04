"""Samplers against closed forms: order of convergence, mean and variance, parity."""

import itertools
import math

import pytest
import torch
from closed_forms import (
    MEAN,
    SAMPLERS,
    SIGMAS,
    STD,
    STEPS,
    assert_mixture,
    every_sampler,
    gaussian,
    mixture,
    normal,
    source,
)
from torch import Tensor

from jdm.diffusion.sampling import (
    CaseNoise,
    Churn,
    karras_sigmas,
    sample_ddim,
    sample_dpmpp_2m,
    sample_heun,
    sample_heun_stochastic,
)
from jdm.errors import ConfigError


def test_karras_sigmas_follow_eq_5_and_end_in_exact_zero():
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    torch.testing.assert_close(SIGMAS, torch.tensor([*expected, 0.0], dtype=torch.float64))
    assert SIGMAS[-1].item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1, 0.002, 80.0), "steps is 1;.* at least 2"),
        ((18, 0.0, 80.0), "sigma_min 0.0 .*0 < sigma_min"),
        ((18, 80.0, 0.002), "80.0 .*0.002 .*sigma_min < sigma_max"),
        ((18, 0.002, math.inf), "sigma_max inf"),
    ],
)
def test_karras_sigmas_refuse_what_is_no_schedule(arguments, named):
    with pytest.raises(ConfigError, match=named):
        karras_sigmas(*arguments)


@pytest.mark.parametrize("levels", [[1.0], [1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, -1.0]])
def test_levels_that_do_not_decrease_are_refused(levels):
    with pytest.raises(ConfigError) as caught:
        sample_heun(gaussian, normal(1, 1, 4), torch.tensor(levels))
    assert str(levels) in str(caught.value)


def test_case_noise_depends_on_the_seed_and_the_turn_alone():
    together, alone = CaseNoise([7, 8, 2**40], (2, 5, 3)), CaseNoise([8], (2, 5, 3))
    for _ in range(3):
        both, one = together(), alone()
        assert both.dtype == torch.float32
        assert torch.equal(both[1:2], one)
        assert not torch.equal(both[0], both[1])
    assert not torch.equal(alone(), one)
    assert abs(CaseNoise([3], (100, 1000))().std().item() - 1) < 0.01


@pytest.mark.parametrize(
    ("sample", "low", "high"), [(sample_heun, 3.5, 4.7), (sample_dpmpp_2m, 3.5, 4.7), (sample_ddim, 1.9, 2.1)]
)
def test_halving_the_step_divides_the_error_by_two_to_the_order(sample, low, high):
    noise = normal(64, 1, 8)
    exact = MEAN + (80 * noise - MEAN) * STD / math.sqrt(STD**2 + 80**2)
    errors = [
        (sample(gaussian, noise, karras_sigmas(n, 0.002, 80.0)) - exact).abs().max().item() for n in (32, 64, 128, 256)
    ]
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(low < ratio < high for ratio in ratios), (errors, ratios)


def test_deterministic_ddim_is_eulers_method():
    noise = normal(3, 2, 5)
    x = SIGMAS[0] * noise
    for sigma, following in itertools.pairwise(SIGMAS):
        slope = (x - mixture(x, sigma.expand(3, 2))) / sigma
        x = x + (following - sigma) * slope
    torch.testing.assert_close(sample_ddim(mixture, noise, SIGMAS), x)


def test_no_churn_is_the_deterministic_sampler_bit_for_bit():
    noise = normal(3, 2, 5)

    def forbidden() -> Tensor:
        raise AssertionError("noise was drawn")

    for churn in (Churn(s_churn=0), Churn(s_min=1000, s_max=2000)):
        churned = sample_heun_stochastic(mixture, noise, SIGMAS, forbidden, churn)
        assert torch.equal(churned, sample_heun(mixture, noise, SIGMAS))


@pytest.mark.parametrize(("s_churn", "gamma"), [(3.6, 0.2), (100.0, math.sqrt(2) - 1)])
def test_churn_raises_levels_in_its_range_by_its_share_of_a_step(s_churn, gamma):
    seen = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma[0, 0].item())
        return gaussian(x, sigma)

    sample_heun_stochastic(denoise, normal(1, 2, 5), SIGMAS, source(1, 2, 5), Churn(s_churn, s_min=0.05, s_max=50.0))
    raised = [s * (1 + gamma) if 0.05 <= s <= 50 else s for s in SIGMAS[:-1].tolist()]
    assert seen[::2] == pytest.approx(raised)  # each step asks at its own level, then at the next
    assert seen[1::2] == pytest.approx(SIGMAS[1:-1].tolist())


@pytest.mark.parametrize("name", STEPS)
def test_mixture_keeps_its_shares_means_and_variances(name):
    n = 20_000
    assert_mixture(every_sampler(n, 1, 1)[name](mixture, normal(n, 1, 1), karras_sigmas(STEPS[name], 0.002, 80.0)))


def test_ancestral_step_has_the_variance_of_eq_2_6():
    """One step of eta = 1 is the posterior q(x' | x, x0) of the variance-exploding process."""
    n, sigma, following = 200_000, 2.0, 1.2
    x0 = torch.full((n, 1, 1), 0.7, dtype=torch.float64)
    noise = normal(n, 1, 1)
    levels = torch.tensor([sigma, following], dtype=torch.float64)
    x = sample_ddim(lambda x, sigma: x0, noise, levels, 1.0, source(n, 1, 1))
    mean = x0 + following**2 / sigma**2 * (sigma * noise - x0)
    variance = following**2 * (sigma**2 - following**2) / sigma**2
    error = (x - mean).flatten()
    assert error.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance / n))
    assert error.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert abs(torch.corrcoef(torch.stack([error, noise.flatten()]))[0, 1].item()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("name", SAMPLERS)
def test_denoiser_gets_float32_and_a_level_for_each_group(name):
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float32
        assert sigma.shape == (3, 2)
        seen.append(sigma)
        return gaussian(x, sigma)

    result = every_sampler(3, 2, 4, 4)[name](denoise, normal(3, 2, 4, 4).float(), SIGMAS)
    assert result.dtype == torch.float32
    assert len(seen) == {"heun": 35, "stochastic": 35, "corrector ve": 54, "corrector vp": 54}.get(name, 18)
    assert all(torch.equal(s[:, 0], s[:, 1]) for s in seen)
    assert not any((s == 0).any() for s in seen)


@pytest.mark.parametrize(
    ("eta", "fresh", "fix"), [(0.5, None, "fresh="), (1.5, None, "0 to 1"), (-0.1, None, "0 to 1")]
)
def test_an_eta_out_of_bounds_or_without_noise_is_refused(eta, fresh, fix):
    with pytest.raises(ConfigError, match=rf"eta is {eta}.*{fix}"):
        sample_ddim(gaussian, normal(1, 1, 4), SIGMAS, eta, fresh)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_parity_with_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    steps, noise = 18, normal(2, 2, 4, 4)
    scheduler = getattr(diffusers, name)(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    scheduler.set_timesteps(steps)
    x = 80.0 * noise
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].item()
        scheduler.scale_model_input(x, t)
        x0 = mixture(x, torch.full((2, 2), sigma))
        # The scheduler applies EDM's preconditioning itself: undo it.
        keep, scale = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / math.sqrt(sigma**2 + 0.25)
        x = scheduler.step((x0 - keep * x) / scale, t, x).prev_sample
    ours = sample_ddim if name == "EDMEulerScheduler" else sample_dpmpp_2m
    # Their schedule is float32.
    torch.testing.assert_close(x.double(), ours(mixture, noise, SIGMAS), rtol=1e-3, atol=1e-4)

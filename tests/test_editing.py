"""Variations, inversion and interpolation, against closed forms of Gaussian data."""

import math

import pytest
import torch
from closed_forms import MEAN, STD, gaussian, mixture, normal, source
from hypothesis import given, settings
from hypothesis import strategies as st

from jdm.diffusion.editing import invert_heun, slerp, vary
from jdm.diffusion.sampling import karras_sigmas, sample_ddim, sample_dpmpp_2m, sample_heun
from jdm.errors import ConfigError


@pytest.mark.parametrize("sigma", [0.02, 0.4, 2.0])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_variation_keeps_what_the_posterior_keeps(sigma, deterministic):
    """Noised to sigma and sampled again, Gaussian data stay correlated by STD^2 / (STD^2 + sigma^2)."""
    n, fresh = 20_000, source(20_000, 2, seed=3)
    values, share = MEAN + STD * normal(n, 2, seed=1), STD**2 / (STD**2 + sigma**2)
    sample = sample_heun if deterministic else lambda d, x, s, k: sample_ddim(d, x, s, 1.0, fresh, k)
    varied = vary(gaussian, values, normal(n, 2, seed=2), karras_sigmas(300, 0.002, sigma), sample)
    assert varied.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(2 * n))
    assert varied.std().item() == pytest.approx(STD, rel=0.02)
    correlation = torch.corrcoef(torch.stack([values.flatten(), varied.flatten()]))[0, 1].item()
    assert correlation == pytest.approx(math.sqrt(share) if deterministic else share, abs=0.02)


def test_inversion_is_the_closed_form_of_the_gaussian_and_of_second_order():
    values = MEAN + STD * normal(50, 2, 3, seed=1)
    errors = []
    for steps in (20, 40, 80):
        sigmas = karras_sigmas(steps, 1e-4, 20.0)
        found = invert_heun(gaussian, values, sigmas)
        # The ODE keeps x - MEAN in proportion to the standard deviation at its level.
        exact = (MEAN + (values - MEAN) * math.sqrt(STD**2 + 400) / STD) / 20
        errors.append((found - exact).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("sample", [sample_heun, sample_dpmpp_2m])
def test_inverted_samples_come_back_from_their_noise(sample):
    values = sample_heun(mixture, normal(6, 2, 4, 4), karras_sigmas(60, 0.002, 80.0))
    sigmas = karras_sigmas(120, 0.002, 80.0)
    noise = invert_heun(mixture, values, sigmas)
    assert noise.std().item() == pytest.approx(1, rel=0.15)
    torch.testing.assert_close(sample(mixture, noise, sigmas), values, atol=0.02, rtol=0)


def test_inversion_keeps_the_dtype_and_refuses_levels_that_do_not_end_in_zero():
    values = torch.zeros(1, 2, 3)
    assert invert_heun(gaussian, values, karras_sigmas(5, 0.1, 10.0)).dtype == torch.float32
    for levels in ([10.0, 1.0, 0.1], [1.0, 0.0], [1.0, 2.0, 0.0]):
        with pytest.raises(ConfigError, match=rf"levels.*\[{levels[0]}, .*at least 3, decreasing, the last zero"):
            invert_heun(gaussian, values, torch.tensor(levels))


@given(st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_slerp_stays_on_the_great_circle(share, seed):
    a = normal(2, 3, 5, seed=seed)
    b = normal(2, 3, 5, seed=seed + 1000)
    a, b = (v / v.flatten(1).norm(dim=1).reshape(-1, 1, 1) for v in (a, b))
    middle = slerp(a, b, share)
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), torch.ones(2, dtype=torch.float64))

    def angle(p, q):
        return torch.arccos((p * q).flatten(1).sum(1).clamp(-1, 1))

    torch.testing.assert_close(angle(a, middle), share * angle(a, b), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(slerp(b, a, 1 - share), middle, atol=1e-9, rtol=1e-9)


def test_slerp_of_noise_is_noise_and_its_ends_are_exact():
    a, b = normal(3, 4, 64, 64, seed=1).float(), normal(3, 4, 64, 64, seed=2).float()
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1), b)
    assert slerp(a, b, 0.5).std().item() == pytest.approx(1, abs=0.01)
    assert ((a + b) / 2).std().item() == pytest.approx(math.sqrt(0.5), abs=0.01)  # what it is there to avoid
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, -a, 0.5), torch.zeros_like(a))
    assert slerp(torch.zeros_like(a), a, 0.5).isfinite().all()

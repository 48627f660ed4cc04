"""Autoguidance between Gaussian denoisers, where the guided one is again linear."""

import math

import pytest
import torch
from closed_forms import SIGMAS, gaussian, mixture, normal, normal_data

from jdm.diffusion.conditioning import Known
from jdm.diffusion.guidance import guided
from jdm.diffusion.sampling import karras_sigmas, sample_heun


def test_no_guidance_is_the_denoiser_itself():
    noise = normal(2, 3, 4, 4)
    same = guided(mixture, gaussian, 1.0)
    assert torch.equal(sample_heun(same, noise, SIGMAS), sample_heun(mixture, noise, SIGMAS))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 3.0])
def test_the_guided_ode_has_its_closed_form(scale):
    """dx / dsigma = sigma x (scale / (a^2 + sigma^2) + (1 - scale) / (b^2 + sigma^2)): a product of powers."""
    a, b, top = 0.5, 0.8, 80.0
    noise = normal(50, 2, 3)
    made = sample_heun(guided(normal_data(0, a), normal_data(0, b), scale), noise, karras_sigmas(200, 1e-3, top))
    factor = (a / math.hypot(a, top)) ** scale * (b / math.hypot(b, top)) ** (1 - scale) * top
    torch.testing.assert_close(made, factor * noise, rtol=5e-3, atol=1e-6)
    assert (factor < a) == (scale > 1)  # guided away from the wider one, the samples get narrower


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_classifier_free_guidance_samples_the_tilted_gaussian(scale):
    """p(x | c) = N(mean, a^2) and p(x) = N(0, b^2): D_null + scale (D_class - D_null) has the ODE's closed form.

    With equal standard deviations it is the exact denoiser of p(x) (p(x | c) / p(x))^scale = N(scale mean, a^2).
    """
    mean, a, b = 0.3, 0.5, 0.8
    wide, narrow, of_class = normal_data(0, b), normal_data(0, a), normal_data(mean, a)
    noise, sigmas = normal(50, 2, 3), karras_sigmas(200, 1e-3, 80.0)
    made = sample_heun(guided(of_class, narrow, scale), noise, sigmas)
    shrink = a / math.hypot(a, 80.0)
    torch.testing.assert_close(made, scale * mean + shrink * (80.0 * noise - scale * mean), rtol=5e-3, atol=1e-3)
    # Whatever they are, the score at no noise is that of p(x) (p(x | c) / p(x))^scale.
    x, level = normal(50, 2, 3), 1e-3
    score = (guided(of_class, wide, scale)(x, torch.full((50, 2), level, dtype=x.dtype)) - x) / level**2
    v = scale * b**2 + (1 - scale) * a**2
    torch.testing.assert_close(score, -(x - scale * mean * b**2 / v) * v / (a * b) ** 2, rtol=1e-4, atol=1e-4)


def test_what_is_known_stays():
    where = torch.zeros(1, 3, 1, 1, dtype=torch.bool)
    where[:, 2] = True
    values = normal(2, 3, 4, 4, seed=5)
    known = Known(where, values, 2)
    made = sample_heun(guided(mixture, gaussian, 2.0), normal(2, 3, 4, 4), SIGMAS, known)
    assert torch.equal(made[:, 2], values[:, 2]) and made.isfinite().all()

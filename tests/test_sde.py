"""Reverse-time SDE samplers: order of convergence, stationary variance, the authors' algorithms in their own terms."""

import itertools
import math

import pytest
import torch
from closed_forms import (
    MEAN,
    SIGMAS,
    STD,
    assert_mixture,
    gaussian,
    levels_in_ratio,
    mixture,
    moments,
    normal,
    source,
)  # fmt: skip
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.sampling import karras_sigmas
from jdm.diffusion.sde import Langevin, sample_euler_maruyama, sample_predictor_corrector
from jdm.errors import ConfigError

LOW, HIGH = 0.05, 20.0


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_euler_maruyama_converges_to_the_moments_of_the_sde_with_order_one(sde):
    """Reverse SDE and forward SDE have the same joint law, which is Gaussian here, whatever the start."""
    high, low = STD**2 + HIGH**2, STD**2 + LOW**2
    share = low / high
    mean, variance = MEAN - share * MEAN, share**2 * HIGH**2 + low - low**2 / high
    errors = []
    for n in (101, 201, 401):
        levels = levels_in_ratio(n, LOW, HIGH)[:-1]
        found = moments(lambda draw, s=levels: sample_euler_maruyama(gaussian, draw(), s, draw, sde), 1)
        errors.append([value.item() for value in found])
    for which, exact in enumerate((mean, variance)):
        off = [abs(e[which] - exact) for e in errors]
        if sde == "ve" and which == 0:
            # The mean of a VE step is that of the posterior, which is linear here: exact at any number of steps.
            assert max(off) < 1e-12
            continue
        slopes = [math.log2(a / b) for a, b in itertools.pairwise(off)]
        assert all(0.85 < s < 1.25 for s in slopes), (off, slopes)
    assert errors[-1] == pytest.approx((mean, variance), abs=0.02)


def _score(y: Tensor, sigma: float) -> Tensor:
    """Score of the variance-preserving mixture at y."""
    scale = 1 / math.sqrt(1 + sigma**2)
    x0 = mixture(y / scale, torch.full((len(y), 2), sigma, dtype=y.dtype))
    return -(y - scale * x0) / (1 - scale**2)


def test_euler_maruyama_of_the_vp_sde_in_its_own_terms():
    noise, shape = normal(2, 2, 5), (2, 2, 5)
    fresh = source(*shape)
    y = SIGMAS[0] * noise / math.sqrt(1 + SIGMAS[0] ** 2)
    for sigma, following in itertools.pairwise(SIGMAS[:-1].tolist()):
        d = math.log((1 + sigma**2) / (1 + following**2))  # integral of beta: alpha_bar = exp(-integral)
        y = y + d * (y / 2 + _score(y, sigma)) + math.sqrt(d) * fresh()
    ours = sample_euler_maruyama(mixture, noise, SIGMAS[:-1], source(*shape), "vp")
    torch.testing.assert_close(ours, y * math.sqrt(1 + SIGMAS[-2] ** 2))


@pytest.mark.parametrize("corrections", [0, 2])
def test_algorithms_3_and_5_in_their_own_terms(corrections):
    shape = (1, 2, 40)
    noise, fresh, r = normal(*shape), source(*shape), 0.1
    y = SIGMAS[0] * noise / math.sqrt(1 + SIGMAS[0] ** 2)
    for sigma, following in itertools.pairwise(SIGMAS[:-1].tolist()):
        beta = 1 - (1 + following**2) / (1 + sigma**2)
        for _ in range(corrections):
            g, z = _score(y, sigma), fresh()
            eps = 2 * (1 - beta) * (r * z.norm() / g.norm()) ** 2
            y = y + eps * g + (2 * eps).sqrt() * z
        y = (2 - math.sqrt(1 - beta)) * y + beta * _score(y, sigma) + math.sqrt(beta) * fresh()
    langevin = Langevin(r, corrections, "vp")
    ours = sample_predictor_corrector(mixture, noise, SIGMAS[:-1], source(*shape), langevin)
    torch.testing.assert_close(ours, y * math.sqrt(1 + SIGMAS[-2] ** 2))


def test_without_corrections_the_ve_sampler_is_euler_maruyama_bit_for_bit():
    noise = normal(3, 2, 5)
    corrected = sample_predictor_corrector(mixture, noise, SIGMAS, source(3, 2, 5), Langevin(steps=0))
    assert torch.equal(corrected, sample_euler_maruyama(mixture, noise, SIGMAS, source(3, 2, 5)))


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_langevin_steps_settle_at_the_variance_of_their_step_size(sde):
    """For Gaussian data of variance S the step is 2 r^2 S^2 / V: V = (1 - step / S)^2 V + 2 step at V = S (1 + r^2)."""
    shape, sigma, r = (2, 1, 150, 150), 0.7, 0.3
    levels = torch.tensor([sigma, sigma * (1 - 1e-9)], dtype=torch.float64)
    x = sample_predictor_corrector(gaussian, normal(*shape), levels, source(*shape), Langevin(r, 60, sde))
    for case in x:
        assert case.mean().item() == pytest.approx(MEAN, abs=0.03)
        assert case.var().item() == pytest.approx((STD**2 + sigma**2) * (1 + r**2), rel=0.04)


@pytest.mark.parametrize(("sde", "snr"), [("ve", 0.05), ("vp", 0.05), ("vp", 0.01)])
def test_predictor_corrector_has_the_shares_means_and_variances_of_a_mixture(sde, snr):
    shape = (2, 1, 100, 100)
    levels = karras_sigmas(300, 0.002, 80.0)
    assert_mixture(sample_predictor_corrector(mixture, normal(*shape), levels, source(*shape), Langevin(snr, 1, sde)))


@pytest.mark.parametrize("mode", ["exact", "replacement"])
@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_known_entries_do_not_count_in_the_size_of_a_langevin_step(sde, mode):
    shape, values = (2, 3, 4, 4), normal(2, 3, 4, 4, seed=9)
    where = torch.zeros(1, 3, 1, 1, dtype=torch.bool)
    where[:, 2] = True

    def sample(answer: float) -> Tensor:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            assert ((sigma[:, 1] == 0) == (mode == "exact")).all()
            return torch.cat([mixture(x[:, :2], sigma), torch.full_like(x[:, 2:], answer)], 1)

        known = Known(where, values, 2, mode, source(*shape, seed=5))
        langevin = Langevin(0.1, 2, sde)
        return sample_predictor_corrector(denoise, normal(*shape), SIGMAS, source(*shape), langevin, known)

    assert torch.equal(sample(1e6), sample(0.0))


def test_settings_that_are_none_are_refused():
    arguments = gaussian, normal(1, 1, 4), SIGMAS, source(1, 1, 4)
    with pytest.raises(ConfigError, match=r"'sub-vp'.*'ve' or 'vp'"):
        sample_euler_maruyama(*arguments, "sub-vp")
    for langevin, named in ((Langevin(snr=0.0), "snr 0.0 .*above 0"), (Langevin(steps=-1), "-1 steps.*at least 0")):
        with pytest.raises(ConfigError, match=named):
            sample_predictor_corrector(*arguments, langevin)


@pytest.mark.parametrize("corrections", [0, 1])
def test_ve_parity_with_diffusers(corrections):
    diffusers = pytest.importorskip("diffusers")
    steps, shape = 20, (1, 2, 4, 4)
    scheduler = diffusers.ScoreSdeVeScheduler(steps, snr=0.16, sigma_min=LOW, sigma_max=HIGH)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    levels = torch.cat([scheduler.discrete_sigmas.double().flip(0), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(levels, levels_in_ratio(steps, LOW, HIGH), rtol=1e-6, atol=1e-6)

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        return (mixture(x, sigma.expand(1, 2)) - x) / sigma**2

    noise, generator = normal(*shape), torch.Generator().manual_seed(1)
    x = mean = levels[0] * noise
    for sigma, t in zip(levels, scheduler.timesteps, strict=False):
        for _ in range(corrections):
            x = scheduler.step_correct(score(x, sigma), x, generator=generator).prev_sample
        step = scheduler.step_pred(score(x, sigma), t, x, generator=generator)
        x, mean = step.prev_sample, step.prev_sample_mean
    ours_generator, turn = torch.Generator().manual_seed(1), itertools.count()

    def fresh() -> Tensor:
        # Their corrector draws float32 whatever the sample is.
        kind = torch.float32 if next(turn) % (1 + corrections) < corrections else torch.float64
        return torch.randn(shape, generator=ours_generator, dtype=kind)

    ours = sample_predictor_corrector(mixture, noise, levels, fresh, Langevin(0.16, corrections))
    # Their tables are float32.
    torch.testing.assert_close(ours, mean, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_vp_parity_with_diffusers_in_the_limit():
    """Their step is beta(t) dt, ours its integral: with the same noise the two draw together as the step shrinks."""
    deprecated = pytest.importorskip("diffusers.schedulers.deprecated.scheduling_sde_vp")
    shape, apart = (4, 1, 8), []
    for steps in (250, 500, 1000):
        scheduler = deprecated.ScoreSdeVpScheduler(steps, beta_min=0.1, beta_max=20.0, sampling_eps=1e-3)
        scheduler.set_timesteps(steps)
        t = scheduler.timesteps.double()
        levels = torch.expm1(0.1 * t + 19.9 * t**2 / 2).sqrt()
        noise, generator = normal(*shape), torch.Generator().manual_seed(1)
        y = noise * levels[0] / (1 + levels[0] ** 2).sqrt()
        for sigma, at in zip(levels[:-1], t[:-1], strict=True):
            # They take the score times minus its standard deviation.
            scaled = -_score(y, sigma.item()) * sigma / (1 + sigma**2).sqrt()
            y, _ = scheduler.step_pred(scaled, y, at, generator=generator)
        ours = sample_euler_maruyama(mixture, noise, levels, source(*shape), "vp")
        apart.append((ours - y * (1 + levels[-1] ** 2).sqrt()).square().mean().sqrt().item())
    assert all(1.5 < a / b < 3 for a, b in itertools.pairwise(apart)), apart
    assert apart[-1] < 0.02

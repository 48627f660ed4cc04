"""Known parts: kept exactly, noised to the right level, and leading to the conditional distribution."""

import math

import pytest
import torch
from closed_forms import (
    PROCESS,
    SAMPLERS,
    SIGMAS,
    STEPS,
    GaussianNetwork,
    ancestral,
    every_sampler,
    gaussian,
    mixture,
    normal,
    source,
)
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.sampling import karras_sigmas, sample_ancestral, sample_heun
from jdm.errors import ConfigError

torch.set_num_threads(1)

RHO = 0.8


@pytest.mark.parametrize("mode", ["exact", "replacement"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_everything_known_comes_back(name, mode):
    values = normal(2, 3, 4, 4, seed=9).float()
    known = Known(torch.ones(1, 1, 1, 1, dtype=torch.bool), values, 2, mode, source(2, 3, 4, 4))
    result = every_sampler(2, 3, 4, 4)[name](mixture, normal(2, 3, 4, 4).float(), SIGMAS, known=known)
    assert torch.equal(result, values)


@pytest.mark.parametrize("mode", ["exact", "replacement"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_known_changes_no_bit(name, mode):
    noise = normal(2, 3, 4, 4)
    nothing = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    known = Known(nothing, torch.full((2, 3, 4, 4), math.nan), 2, mode, source(2, 3, 4, 4))
    result = every_sampler(2, 3, 4, 4)[name](mixture, noise, SIGMAS, known=known)
    assert torch.equal(result, every_sampler(2, 3, 4, 4)[name](mixture, noise, SIGMAS))


def joint(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of a standard normal image entry and mask entry with correlation RHO; x (B, 2, 1)."""
    covariance = torch.tensor([[1, RHO], [RHO, 1]], dtype=x.dtype)
    total = covariance + torch.diag_embed(sigma.square())
    return covariance @ torch.linalg.solve(total, x)


@pytest.mark.parametrize("given", ["image", "mask"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_exact_known_group_gives_the_conditional_distribution(name, given):
    n, value, index = 10_000, 1.5, 0 if given == "image" else 1
    where = torch.zeros(1, 2, 1, dtype=torch.bool)
    where[:, index] = True
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma)
        assert (x[:, index] == value).all()
        return joint(x, sigma)

    known = Known(where, torch.full((1, 2, 1), value), image_channels=1)
    sample = every_sampler(n, 2, 1)[name]
    x = sample(denoise, normal(n, 2, 1, seed=2), karras_sigmas(STEPS[name], 0.002, 80.0), known=known)
    assert all((s[:, index] == 0).all() and (s[:, 1 - index] > 0).all() for s in seen)
    assert (x[:, index] == value).all()
    variance = 1 - RHO**2
    # Starting from N(0, 80^2) instead of N(mean, 80^2 + variance) costs a share of sqrt(variance) / 80.
    tolerance = 4 * math.sqrt(variance / n) + 0.01
    assert x[:, 1 - index].mean().item() == pytest.approx(RHO * value, abs=tolerance)
    assert x[:, 1 - index].var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n) + 0.01)


def test_exact_known_may_differ_between_cases():
    where = torch.zeros(3, 2, 4, dtype=torch.bool)
    where[0, 0] = where[1, 1] = True
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma == 0)
        return gaussian(x, sigma.clamp_min(1e-3))

    sample_heun(denoise, normal(3, 2, 4), SIGMAS, Known(where, torch.zeros(3, 2, 4), 1))
    expected = torch.tensor([[True, False], [False, True], [False, False]])
    assert all(torch.equal(zero, expected) for zero in seen)


@pytest.mark.parametrize("name", SAMPLERS)
def test_replacement_is_noised_to_the_level_of_the_new_step(name):
    """Thesis, Algorithm 2: never one level too noisy, and clean at the end."""
    shape = (2, 2, 64, 64)
    where = torch.zeros(1, 2, 1, 1, dtype=torch.bool)
    where[:, 1] = True
    values = torch.full((1, 2, 1, 1), 0.25)
    levels: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[0, 0].item()
        noise = (x[:, 1] - 0.25) / level
        assert noise.mean().item() == pytest.approx(0, abs=5 / 90)
        assert noise.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * noise.numel()))
        assert torch.equal(sigma, torch.full_like(sigma, level))
        levels.append(level)
        return gaussian(x, sigma)

    known = Known(where, values, 1, "replacement", source(*shape, seed=5))
    result = every_sampler(*shape)[name](denoise, normal(*shape), SIGMAS, known=known)
    assert (result[:, 1] == 0.25).all()
    assert levels[0] == pytest.approx(80.0)


def test_replacement_of_a_region_keeps_it_and_samples_the_rest():
    where = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    where[..., :4] = True
    values = normal(2, 2, 8, 8, seed=3)
    known = Known(where, values, 1, "replacement", source(2, 2, 8, 8))
    result = sample_heun(mixture, normal(2, 2, 8, 8), SIGMAS, known)
    assert torch.equal(result[..., :4], values[..., :4])
    torch.testing.assert_close(result[..., 4:], sample_heun(mixture, normal(2, 2, 8, 8), SIGMAS)[..., 4:])


def test_known_that_cannot_be_kept_is_refused():
    part = torch.zeros(1, 2, 4, dtype=torch.bool)
    part[0, 0, 0] = True
    with pytest.raises(ConfigError, match="part of a channel group"):
        sample_heun(gaussian, normal(1, 2, 4), SIGMAS, Known(part, torch.zeros(1, 2, 4), 1))
    with pytest.raises(ConfigError, match="noise source"):
        Known(part, torch.zeros(1, 2, 4), 1, "replacement")
    with pytest.raises(ConfigError, match="dtype"):
        Known(part.float(), torch.zeros(1, 2, 4), 1)


def test_replacement_in_ancestral_sampling_is_at_the_level_of_the_new_step():
    """Thesis, Algorithm 2, lines 6 to 8: a step to t - 1 leaves the mask at level t - 1, and clean at the end."""
    shape, process = (2, 2, 64, 64), PROCESS.respaced(12)
    where = torch.zeros(1, 2, 1, 1, dtype=torch.bool)
    where[:, 1] = True
    visited: list[int] = []

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = process.alpha_bar[t[0]]
        mask = x_t[:, 1]
        assert mask.mean().item() == pytest.approx(alpha_bar.sqrt().item() * 0.75, abs=5 / 90)
        assert mask.var().item() == pytest.approx(1 - alpha_bar.item(), rel=5 * math.sqrt(2 / mask.numel()))
        visited.append(int(t[0]))
        return torch.zeros_like(x_t), torch.full_like(x_t, -10.0)

    generator = torch.Generator().manual_seed(7)
    known = Known(
        where,
        torch.full((1, 2, 1, 1), 0.75).double(),
        1,
        "replacement",
        lambda: torch.randn(shape, generator=generator),
    )
    x = sample_ancestral(predict, process, normal(*shape), lambda: normal(*shape, seed=3), known)
    assert visited == list(range(11, -1, -1))
    assert (x[:, 1] == 0.75).all()


def test_known_everything_nothing_and_exact_in_ancestral_sampling():
    process, shape = PROCESS.respaced(10), (2, 3, 4, 4)
    values = normal(*shape, seed=9)
    everything = Known(
        torch.ones(1, 1, 1, 1, dtype=torch.bool), values, 2, "replacement", lambda: normal(*shape, seed=4)
    )
    nothing = Known(torch.zeros(1, 1, 1, 1, dtype=torch.bool), values, 2, "replacement", lambda: normal(*shape, seed=4))
    with torch.no_grad():
        assert torch.equal(ancestral(process, GaussianNetwork(), shape, everything), values)
        free = ancestral(process, GaussianNetwork(), shape)
        assert torch.equal(ancestral(process, GaussianNetwork(), shape, nothing), free)
        with pytest.raises(ConfigError, match="replacement"):
            ancestral(process, GaussianNetwork(), shape, Known(everything.where, values, 2))

"""Known parts: kept exactly, noised to the right level, and leading to the conditional distribution."""

import math

import pytest
import torch
from closed_forms import (
    PROCESS,
    RHO,
    SAMPLERS,
    SIGMAS,
    STD,
    STEPS,
    GaussianNetwork,
    ancestral,
    every_sampler,
    gaussian,
    joint,
    mixture,
    moments,
    normal,
    normal_pairs,
    source,
)
from torch import Tensor

from jdm.config.samplers import SamplerSettings, default_steps
from jdm.diffusion.conditioning import Known, Noise, fitting_known
from jdm.diffusion.named import named_sampler
from jdm.diffusion.repaint import Resampling, sample_repaint
from jdm.diffusion.sampling import karras_sigmas, sample_ancestral, sample_heun
from jdm.errors import ConfigError


def mask_known(dims: int = 1) -> Tensor:
    """`where` of a sample of one image and one mask channel: the mask."""
    return torch.tensor([False, True]).reshape(1, 2, *[1] * dims)


@pytest.mark.parametrize("mode", ["exact", "replacement"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_everything_known_comes_back_and_nothing_known_changes_no_bit(name, mode):
    shape = (2, 3, 4, 4)
    noise, values, sample = normal(*shape).float(), normal(*shape, seed=9).float(), every_sampler(*shape)[name]
    everything = Known(torch.ones(1, 1, 1, 1, dtype=torch.bool), values, 2, mode, source(*shape))
    assert torch.equal(sample(mixture, noise, SIGMAS, known=everything), values)
    nothing = Known(torch.zeros(shape, dtype=torch.bool), torch.full(shape, math.nan), 2, mode, source(*shape))
    assert torch.equal(sample(mixture, noise, SIGMAS, known=nothing), sample(mixture, noise, SIGMAS))


@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("name", STEPS)
def test_exact_known_group_gives_the_conditional_distribution(name, given):
    n, value = 10_000, 1.5
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma)
        assert (x[:, given] == value).all()
        return joint(x, sigma)

    where = mask_known() if given else ~mask_known()
    known = Known(where, torch.full((1, 2, 1), value), image_channels=1)
    sample = every_sampler(n, 2, 1)[name]
    x = sample(denoise, normal(n, 2, 1, seed=2), karras_sigmas(STEPS[name], 0.002, 80.0), known=known)
    assert all((s[:, given] == 0).all() and (s[:, 1 - given] > 0).all() for s in seen)
    assert (x[:, given] == value).all()
    variance = 1 - RHO**2
    # Starting from N(0, 80^2) instead of N(mean, 80^2 + variance) costs a share of sqrt(variance) / 80.
    tolerance = 4 * math.sqrt(variance / n) + 0.01
    assert x[:, 1 - given].mean().item() == pytest.approx(RHO * value, abs=tolerance)
    assert x[:, 1 - given].var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n) + 0.01)


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
    levels: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[0, 0].item()
        noise = (x[:, 1] - 0.25) / level
        assert noise.mean().item() == pytest.approx(0, abs=5 / 90)
        assert noise.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * noise.numel()))
        assert torch.equal(sigma, torch.full_like(sigma, level))
        levels.append(level)
        return gaussian(x, sigma)

    known = Known(mask_known(2), torch.full((1, 2, 1, 1), 0.25), 1, "replacement", source(*shape, seed=5))
    result = every_sampler(*shape)[name](denoise, normal(*shape), SIGMAS, known=known)
    assert (result[:, 1] == 0.25).all()
    assert levels[0] == pytest.approx(80.0)


def test_replacement_of_a_region_keeps_it_and_samples_the_rest():
    where, values = torch.arange(8) < 4, normal(2, 2, 8, 8, seed=3)
    known = Known(where.reshape(1, 1, 1, 8), values, 1, "replacement", source(2, 2, 8, 8))
    result, plain = (sample_heun(mixture, normal(2, 2, 8, 8), SIGMAS, given) for given in (known, None))
    torch.testing.assert_close(result, torch.where(where, values, plain))


def test_known_that_cannot_be_kept_is_refused():
    part = torch.zeros(1, 2, 4, dtype=torch.bool)
    part[0, 0, 0] = True
    with pytest.raises(ConfigError, match=r"'exact'.*'replacement'"):
        sample_heun(gaussian, normal(1, 2, 4), SIGMAS, Known(part, torch.zeros(1, 2, 4), 1))
    with pytest.raises(ConfigError, match=r"'replacement'.*fresh="):
        Known(part, torch.zeros(1, 2, 4), 1, "replacement")
    with pytest.raises(ConfigError, match=r"Known\.where.*float32.*bool"):
        Known(part.float(), torch.zeros(1, 2, 4), 1)


def test_channels_are_known_exactly_as_a_whole_group_and_by_replacement_otherwise():
    shape = (2, 3, 4, 4)
    values, fresh = normal(*shape, seed=9), source(*shape)
    for channels, levels, mode in (
        ([0, 1], 2, "exact"), ([2], 2, "exact"), ([0, 1, 2], 2, "exact"),
        ([0], 2, "replacement"), ([1, 2], 2, "replacement"), ([2], 1, "replacement"),
    ):  # fmt: skip
        where = torch.zeros(1, 3, 1, 1, dtype=torch.bool)
        where[:, channels] = True
        known = fitting_known(where, values, 2, fresh, levels=levels)
        assert known.mode == mode, channels
        result = sample_heun(mixture, normal(*shape), SIGMAS, known)
        others = [c for c in range(3) if c not in channels]
        assert torch.equal(result[:, channels], values[:, channels])
        assert not (result[:, others] == values[:, others]).any()


def test_replacement_in_ancestral_sampling_is_at_the_level_of_the_new_step():
    """Thesis, Algorithm 2, lines 6 to 8: a step to t - 1 leaves the mask at level t - 1, and clean at the end."""
    shape, process = (2, 2, 64, 64), PROCESS.respaced(12)
    visited: list[int] = []

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = process.alpha_bar[t[0]]
        mask = x_t[:, 1]
        assert mask.mean().item() == pytest.approx(alpha_bar.sqrt().item() * 0.75, abs=5 / 90)
        assert mask.var().item() == pytest.approx(1 - alpha_bar.item(), rel=5 * math.sqrt(2 / mask.numel()))
        visited.append(int(t[0]))
        return torch.zeros_like(x_t), torch.full_like(x_t, -10.0)

    values = torch.full((1, 2, 1, 1), 0.75).double()
    known = Known(mask_known(2), values, 1, "replacement", source(*shape, seed=7))
    x = sample_ancestral(predict, process, normal(*shape), source(*shape, seed=3), known)
    assert visited == list(range(11, -1, -1))
    assert (x[:, 1] == 0.75).all()


def test_known_everything_nothing_and_exact_in_ancestral_sampling():
    process, shape = PROCESS.respaced(10), (2, 3, 4, 4)
    values, everything = normal(*shape, seed=9), torch.ones(1, 1, 1, 1, dtype=torch.bool)

    def sampled(where: Tensor | None, mode: str = "replacement") -> Tensor:
        known = None if where is None else Known(where, values, 2, mode, source(*shape))
        with torch.no_grad():
            return ancestral(process, GaussianNetwork(), shape, known)

    assert torch.equal(sampled(everything), values)
    assert torch.equal(sampled(~everything), sampled(None))
    with pytest.raises(ConfigError, match=r"'exact'.*'replacement'"):
        sampled(everything, "exact")


def bias(name: str, resampling: Resampling, rho: float) -> tuple[float, float]:
    """Of an image entry given the mask entry, jointly Gaussian with standard deviations STD, at the default steps.

    Returns: share of the shift of its conditional mean that is recovered; variance over its conditional variance.
    """
    denoise, value = normal_pairs(STD**2, STD**2, rho * STD**2), torch.full((1, 2, 1), STD)
    process = PROCESS.respaced(default_steps("ancestral"))

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = torch.full((len(x_t), 2), process.sigma(int(t[0])), dtype=x_t.dtype)
        x = x_t * (1 + sigma[..., None] ** 2).sqrt()
        return (x - denoise(x, sigma)) / sigma[..., None], process.posterior_log_variance[t].reshape(-1, 1, 1)

    def sample(draw: Noise) -> Tensor:
        known = Known(mask_known(), value, 1, "replacement", draw)
        if name == "ancestral":
            return sample_ancestral(predict, process, draw(), draw, known)
        sampler, sigmas = named_sampler(name, SamplerSettings(), draw), karras_sigmas(default_steps(name), 0.002, 80.0)
        return sample_repaint(denoise, draw(), sigmas, known, draw, resampling, sampler)

    mean, covariance = moments(sample, 2)
    return mean[0].item() / (rho * STD), covariance[0, 0].item() / (STD**2 * (1 - rho**2))


@pytest.mark.parametrize(
    ("name", "repetitions", "rho", "shift", "variance"),
    [
        ("heun", 1, 0.8, 0.46, 1.9), ("heun-stochastic", 1, 0.8, 0.61, 1.7),  # docstring of Known
        ("ancestral", 1, 0.8, 0.62, 1.3), ("heun", 1, 0.3, 0.36, 1.2), ("heun", 1, 0.95, 0.59, 3.6),
        ("heun", 4, 0.8, 0.73, 1.5), ("heun-stochastic", 4, 0.8, 0.82, 1.3),  # docstring of sample_repaint
        ("heun", 10, 0.8, 0.79, 1.4), ("heun-stochastic", 10, 0.8, 0.90, 1.2),
    ],
)  # fmt: skip
def test_replacement_and_repaint_are_as_biased_as_their_docstrings_say(name, repetitions, rho, shift, variance):
    found = bias(name, Resampling(3, repetitions), rho)
    assert found[0] == pytest.approx(shift, abs=0.007) and found[1] == pytest.approx(variance, abs=0.06)

"""RePaint: where it jumps, what the sampler between the jumps is given, and that it lessens the bias of replacement."""

import itertools
import math

import pytest
import torch
from closed_forms import RHO, SAMPLERS, SIGMAS, every_sampler, joint, mixture, moments, normal, source
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jdm.config.samplers import SamplerSettings
from jdm.diffusion.conditioning import Known
from jdm.diffusion.named import named_sampler
from jdm.diffusion.repaint import Resampling, sample_repaint
from jdm.diffusion.run import Part
from jdm.diffusion.sampling import karras_sigmas, sample_ddim
from jdm.errors import ConfigError

SHAPE = (2, 3, 4, 4)


def repaint(known: Known, resampling: Resampling, name: str = "heun") -> Tensor:
    sample, fresh = every_sampler(*SHAPE)[name], source(*SHAPE, seed=21)
    return sample_repaint(mixture, normal(*SHAPE), SIGMAS, known, fresh, resampling, sample)


def known_where(where: Tensor) -> Known:
    return Known(where, normal(*SHAPE, seed=9), 2, "replacement", source(*SHAPE, seed=5))


EVERYTHING = torch.ones(1, 1, 1, 1, dtype=torch.bool)
LEFT = torch.arange(4) < 2


def test_the_jumps_are_the_papers():
    """Its published schedule counts steps left: jumps at 0, j, 2 j, .. below T - j, each r - 1 times."""
    assert Resampling(2, 3).stretches(5) == [(0, 2), (0, 2), (0, 4), (2, 4), (2, 5)]
    assert Resampling(1, 2).stretches(3) == [(0, 1), (0, 2), (1, 3)]
    assert Resampling(10, 10).stretches(250)[-1] == (239, 250)
    assert len(Resampling(10, 10).stretches(250)) == 24 * 9 + 1
    assert Resampling(30, 1).stretches(5) == [(0, 5)]


@given(st.integers(2, 40), st.integers(1, 12), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_every_jump_is_as_long_as_asked_and_every_level_is_reached(steps, length, repetitions):
    if length >= steps:
        with pytest.raises(ConfigError, match=rf"{length} of {steps} steps"):
            Resampling(length, repetitions).stretches(steps)
        return
    stretches = Resampling(length, repetitions).stretches(steps)
    assert stretches[0][0] == 0 and stretches[-1][1] == steps
    for (first, last), (back, _) in itertools.pairwise(stretches):
        assert first < last < steps and last - back == length
    taken = [step for first, last in stretches for step in range(first, last)]
    counts = [taken.count(step) for step in range(steps)]
    assert set(counts) <= {1, repetitions} and counts[-1] == 1
    assert len(stretches) == 1 + (repetitions - 1) * len(range(0, steps - length, length))


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_known_stays_and_without_known_entries_or_jumps_no_bit_changes(name):
    jumps = Resampling(4, 3)
    values, plain = normal(*SHAPE, seed=9), every_sampler(*SHAPE)[name]
    assert torch.equal(repaint(known_where(EVERYTHING), jumps, name), values)
    result = repaint(known_where(LEFT), jumps, name)
    assert torch.equal(result[..., LEFT], values[..., LEFT])
    assert result.isfinite().all() and not torch.equal(result[..., ~LEFT], values[..., ~LEFT])
    assert torch.equal(repaint(known_where(~EVERYTHING), jumps, name), plain(mixture, normal(*SHAPE), SIGMAS))
    once = repaint(known_where(LEFT), Resampling(4, 1), name)
    assert torch.equal(once, plain(mixture, normal(*SHAPE), SIGMAS, known=known_where(LEFT)))


def test_a_way_down_begins_at_the_level_of_its_jump_with_noise_of_that_level():
    shape, levels = (2, 2, 64, 64), []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[0, 0].item()
        noise = (x - 0.25) / level  # the data are 0.25 throughout, whose exact denoiser says so
        assert noise.mean().item() == pytest.approx(0, abs=6 / 120)
        assert noise.std().item() == pytest.approx(1, abs=6 / math.sqrt(2 * noise.numel()))
        levels.append(level)
        return torch.full_like(x, 0.25)

    sigmas, resampling, ancestral = karras_sigmas(6, 0.1, 40.0), Resampling(2, 2), source(*shape, seed=8)
    values = torch.full((1, 2, 1, 1), 0.25, dtype=torch.float64)
    known = Known(torch.tensor([False, True]).reshape(1, 2, 1, 1), values, 1, "replacement", source(*shape, seed=5))
    repainted = sample_repaint(
        denoise, normal(*shape) + 0.25 / 40, sigmas, known, source(*shape, seed=6), resampling,
        lambda d, n, s, k: sample_ddim(d, n, s, 1.0, ancestral, k),
    )  # fmt: skip
    assert levels == pytest.approx([sigmas[i].item() for way in resampling.stretches(6) for i in range(*way)])
    torch.testing.assert_close(repainted, torch.full(shape, 0.25, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("heun", {}), ("heun-stochastic", {"churn": 3.0}), ("ddim", {"eta": 0.5}), ("euler-maruyama", {}),
        ("predictor-corrector", {}),
    ],
)  # fmt: skip
def test_a_sampler_without_history_takes_the_same_steps_in_parts_as_at_once(name, given):
    """Settings that are divided among the steps are divided by those of the whole schedule."""
    at_once = named_sampler(name, SamplerSettings(**given), source(*SHAPE))(mixture, normal(*SHAPE), SIGMAS, None)
    sample, x = named_sampler(name, SamplerSettings(**given), source(*SHAPE)), SIGMAS[0] * normal(*SHAPE)
    for first, last in ((0, 3), (3, 9), (9, 10), (10, 18)):
        x = sample(mixture, x / SIGMAS[first], Part(SIGMAS[first : last + 1], 18), None)
    torch.testing.assert_close(x, at_once)


def test_churn_within_repaint_raises_each_level_by_its_share_of_the_whole_schedule():
    """gamma = s_churn / N with N = 18, not with the 3 steps between two jumps (Karras et al. 2022, Algorithm 2)."""
    seen = set()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.add(sigma[0, 0].item())
        return mixture(x, sigma)

    sample = named_sampler("heun-stochastic", SamplerSettings(churn=3.6), source(*SHAPE))
    fresh = source(*SHAPE, seed=21)
    sample_repaint(denoise, normal(*SHAPE), SIGMAS, known_where(LEFT), fresh, Resampling(3, 4), sample)
    levels = SIGMAS[:-1].tolist()
    assert sorted(seen) == pytest.approx(sorted([*levels, *(1.2 * level for level in levels if 0.05 <= level <= 50)]))


def test_the_bias_of_replacement_shrinks_with_the_repetitions():
    exact, where = RHO * 1.5, torch.tensor([False, True]).reshape(1, 2, 1)

    def mean(repetitions: int) -> float:
        def sample(draw):
            known = Known(where, torch.full((1, 2, 1), 1.5), 1, "replacement", draw)
            ancestral = named_sampler("ddim", SamplerSettings(eta=1.0), draw)
            jumps = Resampling(5, repetitions)
            return sample_repaint(joint, draw(), karras_sigmas(40, 0.002, 80.0), known, draw, jumps, ancestral)

        return moments(sample, 2)[0][0].item()

    biases = [exact - mean(repetitions) for repetitions in (1, 2, 4, 8, 16)]
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(biases))
    assert biases[-1] < biases[0] / 4


def test_resampling_that_makes_no_sense_is_refused():
    for numbers in ((0, 2), (2, 0)):
        with pytest.raises(ConfigError, match=rf"{numbers[0]} and {numbers[1]} repetitions.* at least 1"):
            Resampling(*numbers)
    with pytest.raises(ConfigError, match=r"'exact'.*'replacement'"):
        repaint(Known(EVERYTHING, torch.zeros(1), 2), Resampling(4, 3))
    with pytest.raises(ConfigError, match="18 of 18 steps"):
        repaint(known_where(LEFT), Resampling(18, 2))

"""RePaint: where it jumps, that it adds nothing where nothing is known, and that it lessens the bias of replacement."""

import itertools
import math

import pytest
import torch
from closed_forms import SAMPLERS, SIGMAS, every_sampler, mixture, normal, source
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conditioning import RHO, joint
from torch import Tensor

from jdm.diffusion.conditioning import Known, known_channels
from jdm.diffusion.repaint import Resampling, sample_repaint
from jdm.diffusion.sampling import karras_sigmas, sample_ddim, sample_heun
from jdm.errors import ConfigError

torch.set_num_threads(1)

SHAPE = (2, 3, 4, 4)


def repaint(denoise, noise, sigmas, known, resampling=None, name="heun"):
    sample = every_sampler(*noise.shape)[name]
    resampling = Resampling(4, 3) if resampling is None else resampling
    return sample_repaint(denoise, noise, sigmas, known, source(*noise.shape, seed=21), resampling, sample)


def part_known(values: Tensor) -> Known:
    where = torch.zeros(1, 1, *values.shape[2:], dtype=torch.bool)
    where[..., :2] = True
    return Known(where, values, 2, "replacement", source(*values.shape, seed=5))


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
        with pytest.raises(ConfigError, match="jump length"):
            Resampling(length, repetitions).stretches(steps)
        return
    ways = Resampling(length, repetitions).stretches(steps)
    assert ways[0][0] == 0 and ways[-1][1] == steps
    for (first, last), (back, _) in itertools.pairwise(ways):
        assert first < last < steps and last - back == length
    taken = [step for first, last in ways for step in range(first, last)]
    counts = [taken.count(step) for step in range(steps)]
    assert set(counts) <= {1, repetitions} and counts[-1] == 1
    assert len(ways) == 1 + (repetitions - 1) * len(range(0, steps - length, length))


@pytest.mark.parametrize("name", SAMPLERS)
def test_everything_known_comes_back_and_what_is_known_stays(name):
    values = normal(*SHAPE, seed=9)
    everything = Known(torch.ones(1, 1, 1, 1, dtype=torch.bool), values, 2, "replacement", source(*SHAPE))
    assert torch.equal(repaint(mixture, normal(*SHAPE), SIGMAS, everything, name=name), values)
    result = repaint(mixture, normal(*SHAPE), SIGMAS, part_known(values), name=name)
    assert torch.equal(result[..., :2], values[..., :2])
    assert result.isfinite().all() and not torch.equal(result[..., 2:], values[..., 2:])


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_known_or_no_jumps_change_no_bit(name):
    noise, plain = normal(*SHAPE), every_sampler(*SHAPE)[name]
    nothing = Known(torch.zeros(1, dtype=torch.bool), torch.zeros(1), 2, "replacement", source(*SHAPE))
    assert torch.equal(repaint(mixture, noise, SIGMAS, nothing, name=name), plain(mixture, noise, SIGMAS))
    values = normal(*SHAPE, seed=9)
    once = repaint(mixture, noise, SIGMAS, part_known(values), Resampling(4, 1), name)
    assert torch.equal(once, plain(mixture, noise, SIGMAS, known=part_known(values)))


def test_a_way_down_begins_at_the_level_of_its_jump_with_noise_of_that_level():
    shape, values = (2, 2, 64, 64), torch.full((1, 2, 1, 1), 0.25, dtype=torch.float64)
    where = torch.zeros(1, 2, 1, 1, dtype=torch.bool)
    where[:, 1] = True
    levels: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[0, 0].item()
        noise = (x - 0.25) / level  # the data are 0.25 throughout, whose exact denoiser says so
        assert noise.mean().item() == pytest.approx(0, abs=6 / 120)
        assert noise.std().item() == pytest.approx(1, abs=6 / math.sqrt(2 * noise.numel()))
        levels.append(level)
        return torch.full_like(x, 0.25)

    sigmas = karras_sigmas(6, 0.1, 40.0)
    known = Known(where, values, 1, "replacement", source(*shape, seed=5))
    resampling, sample = Resampling(2, 2), sample_ddim
    ancestral = source(*shape, seed=8)
    repainted = sample_repaint(
        denoise,
        normal(*shape) + 0.25 / 40,
        sigmas,
        known,
        source(*shape, seed=6),
        resampling,
        lambda d, n, s, k: sample(d, n, s, 1.0, ancestral, k),
    )
    ways = resampling.stretches(6)
    assert levels == pytest.approx([sigmas[i].item() for first, last in ways for i in range(first, last)])
    torch.testing.assert_close(repainted, torch.full(shape, 0.25, dtype=torch.float64))


def conditional_mean(resampling: Resampling | None, value: float = 1.5, steps: int = 40) -> float:
    """Mean of the image entry given the mask entry of `joint`, without sampling error.

    Everything is linear in the noises, so that the result without noise is the mean over them.
    """

    def zeros() -> Tensor:
        return torch.zeros(1, 2, 1, dtype=torch.float64)

    known = known_channels(torch.full((1, 2, 1), value), [1], 1, zeros, levels=2 if resampling is None else 1)
    sigmas = karras_sigmas(steps, 0.002, 80.0)

    def sample(denoise, noise, sigmas, known):
        return sample_ddim(denoise, noise, sigmas, 1.0, zeros, known)

    if resampling is None:
        return sample(joint, zeros(), sigmas, known)[0, 0].item()
    return sample_repaint(joint, zeros(), sigmas, known, zeros, resampling, sample)[0, 0].item()


def test_the_bias_of_replacement_shrinks_with_the_repetitions():
    exact = RHO * 1.5
    assert conditional_mean(None) == pytest.approx(exact, rel=2e-3)
    biases = [exact - conditional_mean(Resampling(5, repetitions)) for repetitions in (1, 2, 4, 8, 16)]
    assert biases[0] > 0.1 * exact  # replacement alone forgets part of what is known
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(biases))
    assert biases[-1] < biases[0] / 4


@pytest.mark.parametrize(("repetitions", "error"), [(1, None), (10, 0.07)])
def test_mean_and_variance_of_the_unknown_given_the_known(repetitions, error):
    """A joint Gaussian: mean RHO times the value, variance 1 - RHO^2."""
    n, value = 4_000, 1.5
    known = known_channels(torch.full((1, 2, 1), value), [1], 1, source(n, 2, 1, seed=3), levels=1)
    sigmas, ancestral = karras_sigmas(200, 0.002, 80.0), source(n, 2, 1, seed=4)
    x = sample_repaint(
        joint,
        normal(n, 2, 1, seed=2),
        sigmas,
        known,
        source(n, 2, 1, seed=7),
        Resampling(20, repetitions),
        lambda d, x, s, k: sample_ddim(d, x, s, 1.0, ancestral, k),
    )
    assert (x[:, 1] == value).all()
    mean, variance = x[:, 0].mean().item(), x[:, 0].var().item()
    exact = 1 - RHO**2
    if error is None:  # replacement: too far from the condition, and too wide
        assert mean < 0.9 * RHO * value and variance > 1.1 * exact
    else:
        assert mean == pytest.approx(RHO * value, rel=error)
        assert variance == pytest.approx(exact, rel=error + 4 * math.sqrt(2 / n))


def test_channels_known_exactly_where_they_are_a_whole_group_and_by_replacement_otherwise():
    values, fresh = normal(*SHAPE, seed=9), source(*SHAPE)
    for channels, levels, mode in (
        ([0, 1], 2, "exact"), ([2], 2, "exact"), ([0, 1, 2], 2, "exact"),
        ([0], 2, "replacement"), ([1, 2], 2, "replacement"), ([2], 1, "replacement"),
    ):  # fmt: skip
        known = known_channels(values, channels, 2, fresh, levels=levels)
        assert known.mode == mode, channels
        result = sample_heun(mixture, normal(*SHAPE), SIGMAS, known)
        others = [c for c in range(3) if c not in channels]
        assert torch.equal(result[:, channels], values[:, channels])
        assert not (result[:, others] == values[:, others]).any()
    with pytest.raises(ConfigError, match=r"known channels are \[3\]; expected some of 0 to 2"):
        known_channels(values, [0, 3], 2, fresh)


def test_resampling_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        Resampling(0, 2)
    with pytest.raises(ConfigError, match="at least 1"):
        Resampling(2, 0)
    exact = Known(torch.ones(1, dtype=torch.bool), torch.zeros(1), 2)
    with pytest.raises(ConfigError, match="exact"):
        repaint(mixture, normal(*SHAPE), SIGMAS, exact)
    with pytest.raises(ConfigError, match="jump length is 18 of 18 steps"):
        repaint(mixture, normal(*SHAPE), SIGMAS, part_known(normal(*SHAPE)), Resampling(18, 2))

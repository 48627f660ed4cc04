"""Levels against the definitions of their schedules, and rescaling to no signal at the end."""

import itertools
import math

import pytest
import torch
from closed_forms import DEVIATION, MEAN, SIGMAS, gaussian, normal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from jdm.diffusion.sampling import sample_ddim, sample_heun
from jdm.diffusion.schedules import cosine_sigmas, ve_sigmas, vp_sigmas, zero_snr_start, zero_terminal_snr
from jdm.diffusion.vp import VPProcess
from jdm.errors import ConfigError

torch.set_num_threads(1)

SCHEDULES = {"ve": ve_sigmas, "vp": vp_sigmas, "cosine": cosine_sigmas}


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(2, 60),
    low=st.floats(1e-4, 0.5),
    factor=st.floats(1.5, 1e5),
)
def test_levels_fall_from_one_end_to_the_other_and_then_to_zero(name, steps, low, factor):
    levels = SCHEDULES[name](steps, low, low * factor)
    assert levels.dtype == torch.float64
    assert levels.shape == (steps + 1,)
    assert levels[0].item() == pytest.approx(low * factor, rel=1e-6)
    assert levels[-2].item() == pytest.approx(low, rel=1e-6)
    assert levels[-1].item() == 0
    assert (levels.diff() < 0).all()


def test_ve_levels_are_geometric():
    ratios = [a / b for a, b in itertools.pairwise(ve_sigmas(30, 0.01, 50.0)[:-1].tolist())]
    assert ratios == pytest.approx([5000 ** (1 / 29)] * 29)


def test_vp_levels_are_the_perturbation_kernel_at_equal_times():
    """From the kernel as printed: mean factor and variance at t = 1 ... 1e-3, sigma their ratio."""
    t = torch.linspace(1, 1e-3, 40, dtype=torch.float64)
    factor = torch.exp(-(t**2) * 19.9 / 4 - t * 0.1 / 2)
    sigma = (1 - torch.exp(-(t**2) * 19.9 / 2 - t * 0.1)).sqrt() / factor
    assert sigma[[0, -1]].tolist() == pytest.approx([152.2, 0.0105], rel=1e-2)  # the range that the docstring names
    levels = vp_sigmas(40, sigma[-1].item(), sigma[0].item())
    torch.testing.assert_close(levels[:-1], sigma, rtol=1e-7, atol=0)


def test_vp_levels_are_the_limit_of_the_linear_schedule():
    process = VPProcess(1000, "linear")
    levels = vp_sigmas(1000, process.sigma(0), process.sigma(999)).flip(0)[1:]
    # beta is 1e-4 to 0.02 in 1000 steps: 0.1 to 20 in unit time.
    torch.testing.assert_close(levels, process.training_sigma, rtol=0.06, atol=0)
    torch.testing.assert_close(levels[200:], process.training_sigma[200:], rtol=0.03, atol=0)


def test_cosine_levels_are_eq_17_at_equal_times():
    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2

    times = [0.999 - i * (0.999 - 0.001) / 24 for i in range(25)]
    sigmas = [math.sqrt(1 / alpha_bar(t) - 1) for t in times]
    assert cosine_sigmas(25, sigmas[-1], sigmas[0])[:-1].tolist() == pytest.approx(sigmas, rel=1e-7)
    # The discrete process is the same at the ends of its steps, until beta reaches its bound.
    process = VPProcess(1000, "cosine")
    levels = cosine_sigmas(999, process.sigma(0), process.sigma(998)).flip(0)[1:]
    torch.testing.assert_close(levels, process.training_sigma[:-1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_samplers_converge_on_each_schedule(name):
    noise = normal(8, 1, 4)
    exact = MEAN + (80 * noise - MEAN) * math.sqrt((DEVIATION**2 + 0.01**2) / (DEVIATION**2 + 80**2))
    errors = [
        (sample_heun(gaussian, noise, SCHEDULES[name](n, 0.01, 80.0)[:-1]) - exact).abs().max().item()
        for n in (100, 200, 400)
    ]
    assert all(3.3 < a / b < 4.7 for a, b in itertools.pairwise(errors)), errors


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("arguments", [(1, 0.002, 80.0), (18, 0.0, 80.0), (18, 80.0, 0.002), (18, 0.002, math.inf)])
def test_what_is_no_schedule_is_refused(name, arguments):
    with pytest.raises(ConfigError, match="expected"):
        SCHEDULES[name](*arguments)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_zero_terminal_snr_keeps_the_first_step_and_ends_without_signal(schedule):
    alpha_bar = VPProcess(1000, schedule).alpha_bar
    rescaled = zero_terminal_snr(alpha_bar)
    assert rescaled[0].item() == pytest.approx(alpha_bar[0].item(), rel=1e-12)
    assert rescaled[-1].item() == 0
    assert (rescaled.diff() < 0).all()
    # Affine in sqrt(alpha_bar), which two points fix.
    root, before = rescaled.sqrt(), alpha_bar.sqrt()
    torch.testing.assert_close(root.diff() / before.diff(), (root[0] / (before[0] - before[-1])).expand(999))


def test_zero_terminal_snr_of_what_is_no_schedule_is_refused():
    for values in ([0.5], [0.5, 0.6], [1.1, 0.5], [0.5, 0.0]):
        with pytest.raises(ConfigError, match="alpha_bar"):
            zero_terminal_snr(torch.tensor(values))


def test_zero_terminal_snr_parity_with_diffusers():
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    process = VPProcess(1000, "linear")
    theirs = torch.cumprod(1 - scheduling.rescale_zero_terminal_snr(process.beta), 0)
    torch.testing.assert_close(zero_terminal_snr(process.alpha_bar), theirs, rtol=1e-9, atol=1e-15)


def test_a_start_without_signal_has_the_right_mean_where_the_usual_one_is_off():
    """Bright data, and a schedule that ends at sigma 14.6 as Stable Diffusion's (Lin et al., Table 1: SNR 0.004682)."""
    mean, sigma, noise = 3.0, math.sqrt(1 / 0.004682), normal(16, 1, 4)

    def bright(x: Tensor, level: Tensor) -> Tensor:
        variance = level[:, :1, None].square()
        return (DEVIATION**2 * x + variance * mean) / (DEVIATION**2 + variance)

    levels = ve_sigmas(400, 0.002, sigma)
    shrink = DEVIATION / math.sqrt(DEVIATION**2 + sigma**2)
    # Where there is no signal the estimate is the mean; x = 0 is then mean / spread too low at the usual start.
    start = zero_snr_start(torch.full_like(noise, mean), noise, sigma)
    found, usual = sample_heun(bright, start, levels), sample_heun(bright, noise, levels)
    torch.testing.assert_close(found, mean + sigma * noise * shrink, rtol=0, atol=1e-3)
    torch.testing.assert_close(usual, mean + (sigma * noise - mean) * shrink, rtol=0, atol=1e-3)
    assert (found - usual).mean().item() == pytest.approx(mean * shrink, rel=1e-2)


def test_the_start_without_signal_is_ddims_step_from_a_level_without_end():
    noise = normal(3, 2, 5)
    high = torch.cat([torch.tensor([1e9], dtype=torch.float64), SIGMAS])
    x0 = gaussian(1e9 * noise, torch.full((3, 2), 1e9, dtype=torch.float64))
    ours = sample_ddim(gaussian, zero_snr_start(x0, noise, SIGMAS[0].item()), SIGMAS)
    torch.testing.assert_close(ours, sample_ddim(gaussian, noise, high), rtol=1e-6, atol=1e-6)

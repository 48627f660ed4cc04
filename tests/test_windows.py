"""Overlapping windows: exact where they must be, and no seam where windows disagree."""

import math
import re

import pytest
import torch
from closed_forms import normal, source
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.sampling import karras_sigmas, sample_heun
from jdm.diffusion.windows import windowed, with_one_look
from jdm.errors import ConfigError


def _levels(batch: int) -> Tensor:
    return torch.full((batch, 2), 0.5)


def test_canvas_of_the_window_is_passed_through_bit_for_bit():
    x = normal(2, 3, 8, 12).float()
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    assert torch.equal(windowed(lambda x, sigma: convolution(x), (8, 12))(x, _levels(2)), convolution(x))


@pytest.mark.parametrize(
    ("canvas", "window"),
    [((37,), (16,)), ((16, 31), (16, 16)), ((41, 23), (16, 8)), ((9, 10, 11), (4, 8, 8)), ((17, 16), (16, 16))],
)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_pointwise_denoiser_is_unchanged(canvas, window, overlap):
    x = normal(2, 2, *canvas)
    result = windowed(lambda x, sigma: torch.tanh(x), window, overlap, batch=5)(x, _levels(2))
    torch.testing.assert_close(result, torch.tanh(x), rtol=0, atol=1e-14)


def _seam_strength(overlap: float) -> float:
    """Gradient across the sides of windows that disagree smoothly, relative to the gradient elsewhere."""
    side, window = 160, 32
    starts: list[set[int]] = []
    position = torch.arange(side, dtype=torch.float64)
    # Channel 1 carries each pixel's column, so that the denoiser can tell which window it is given.
    x = torch.stack([normal(side, side) * 0.1, position.expand(side, side)])[None]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        first = x[:, 1, 0, 0]
        starts.append(set(first.long().tolist()))
        disagreement = 0.5 * torch.sin(first * 1.7)[:, None, None]
        return torch.stack([x[:, 0] + disagreement, x[:, 1]], dim=1)

    result = windowed(denoise, (window, window), overlap)(x, _levels(1))[0, 0]
    gradient = result.diff(dim=1).square().mean(0).sqrt()  # entry c: between columns c and c + 1
    firsts = set().union(*starts)
    borders = sorted({c - 1 for c in firsts if c > 0} | {c + window - 1 for c in firsts if c + window < side})
    elsewhere = [c for c in range(side - 1) if c not in borders]
    return (gradient[borders].mean() / gradient[elsewhere].mean()).item()


def test_windows_that_disagree_leave_no_seam():
    assert _seam_strength(overlap=0.0) > 2  # the measure sees a seam where there is one
    assert 0.9 < _seam_strength(overlap=0.25) < 1.1
    assert 0.9 < _seam_strength(overlap=0.5) < 1.1


def test_cost_is_linear_in_the_canvas():
    pixels = 0

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal pixels
        pixels += x[:, 0].numel()
        return x

    costs = []
    for side in (64, 128, 256, 512):
        pixels = 0
        windowed(denoise, (32, 32))(torch.zeros(1, 1, side, side), _levels(1))
        costs.append(pixels / side**2)
    assert max(costs) < 2.3  # 1 / (1 - 0.25)^2 = 1.8 for a large canvas
    assert costs[-1] == pytest.approx(1 / 0.75**2, rel=0.1)


def test_each_window_gets_the_levels_of_its_case_whatever_the_batch():
    x, sigma = normal(3, 2, 20, 20), torch.tensor([[1.0, 0.0], [2.0, 0.5], [4.0, 4.0]]).double()
    for batch in (1, 4, 1000):
        result = windowed(lambda x, sigma: x * sigma[:, :, None, None], (8, 8), batch=batch)(x, sigma)
        torch.testing.assert_close(result, x * sigma[:, :, None, None])


@pytest.mark.parametrize("canvas", [(8, 40), (40,), (40, 40, 40)])
def test_canvas_that_does_not_hold_the_window_is_refused(canvas):
    with pytest.raises(ConfigError, match=re.escape(str(canvas)) + r".*\(16, 16\).*data\.canvas_size"):
        windowed(lambda x, sigma: x, (16, 16))(torch.zeros(1, 1, *canvas), _levels(1))


def test_an_overlap_of_a_whole_window_or_a_batch_of_none_is_refused():
    for overlap, batch in ((1.0, 16), (-0.1, 16), (0.25, 0)):
        with pytest.raises(ConfigError, match=rf"overlap {overlap}, batch {batch};.*\[0, 1\).*at least 1"):
            windowed(lambda x, sigma: x, (16, 16), overlap, batch)


BETWEEN, WITHIN, WINDOW = 0.25, 0.05, (16, 16)


def _one_mean(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of windows of one value each, N(0, BETWEEN^2)."""
    noise = sigma[:, 0].square() / x[0, 0].numel()
    share = BETWEEN**2 / (BETWEEN**2 + noise)
    return (x.mean((2, 3), keepdim=True) * share[:, None, None, None]).expand_as(x)


def _window_means(spread: float, cases: int = 200) -> Tensor:
    """Means of the 2 x 2 windows, side by side, of sampled canvases: (cases, 4)."""
    sigmas, denoise = karras_sigmas(40, 0.01, 80.0), windowed(_one_mean, WINDOW, overlap=0)
    noise, fresh = normal(cases, 2, 32, 32), source(cases, 2, 32, 32)
    start, levels = with_one_look(sample_heun, _one_mean, noise, fresh, sigmas, WINDOW, spread, known=None)
    return sample_heun(denoise, start, levels).unflatten(3, (2, 16)).unflatten(2, (2, 16)).mean((1, 3, 5)).flatten(1)


def test_windows_of_a_canvas_differ_as_they_do_in_real_images():
    alone, together = _window_means(spread=0.0), _window_means(spread=WITHIN)
    two_channels = math.sqrt(2)  # means over two independent channels
    assert alone.std(1).mean().item() * two_channels == pytest.approx(BETWEEN * 0.92, rel=0.1)  # 0.92: of 4 values
    assert together.std(1).mean().item() * two_channels == pytest.approx(WITHIN * 0.92, rel=0.1)
    assert together.mean(1).std().item() * two_channels == pytest.approx(BETWEEN, rel=0.15)


def test_a_canvas_of_one_window_and_a_schedule_below_the_level_are_unchanged():
    sigmas = karras_sigmas(8, 0.01, 80.0)
    for side, spread in ((16, WITHIN), (32, 100.0)):
        noise, fresh = normal(1, 2, side, side), source(1, 2, side, side)
        start, levels = with_one_look(sample_heun, _one_mean, noise, fresh, sigmas, WINDOW, spread, known=None)
        assert start is noise and levels is sigmas


def test_the_middle_is_sampled_with_what_is_known_of_it():
    seen = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x[:, 1], sigma))
        return _one_mean(x, sigma)

    mask = normal(1, 1, 32, 32)
    where = torch.tensor([False, True])[None, :, None, None]
    known = Known(where, torch.cat([mask, mask], dim=1), image_channels=1)
    noise, fresh = normal(1, 2, 32, 32), source(1, 2, 32, 32)
    with_one_look(sample_heun, denoise, noise, fresh, karras_sigmas(8, 0.01, 80.0), WINDOW, WITHIN, known)
    assert seen
    for given, sigma in seen:
        assert torch.equal(given, mask[:, 0, 8:24, 8:24]) and sigma[0, 1] == 0

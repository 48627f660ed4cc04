"""Cost of sampling: evaluations, network calls, seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch

from jdm.config.samplers import evaluations as sampler_evaluations
from jdm.config.settings import Config
from jdm.diffusion.noise import Denoise
from jdm.diffusion.repaint import Resampling
from jdm.diffusion.windows import window_starts
from jdm.draw.request import Sampling, Way, can_estimate_masks
from jdm.system.progress import duration

_LONG = 30 * 60


def evaluations(config: Config, sampling: Sampling, way: Way, resampling: Resampling | None = None) -> int:
    """Denoiser evaluations per sample, without redraws."""
    steps = way.steps
    if resampling is not None and resampling.repetitions > 1:
        steps = sum(last - first for first, last in resampling.stretches(steps))
    count = sampler_evaluations(way.sampler, steps)
    # With zero terminal SNR, the first step takes one more (`VPProcess.begun`).
    count += config.preset == "thesis" and config.diffusion.zero_terminal_snr and way.sampler != "ancestral"
    return count * (1 if sampling.guidance == 1 else 2) + can_estimate_masks(config)  # the mask's outlines


def network_calls(config: Config, sampling: Sampling, canvases: Iterable[tuple[int, tuple[int, ...]]]) -> int:
    """Network calls, each on up to `batch_size` windows, for one denoiser evaluation of batches of canvases.

    Args: canvases: number and sides of the canvases of each batch.
    """
    return sum(math.ceil(n * windows(config, sampling, size) / sampling.batch_size) for n, size in canvases)


def windows(config: Config, sampling: Sampling, size: tuple[int, ...]) -> int:
    """Windows that cover one canvas."""
    sides = zip(size, config.data.patch_size, strict=True)
    return math.prod(len(window_starts(side, window, sampling.overlap)) for side, window in sides)


def call_seconds(denoise: Denoise, config: Config, count: int, device: str) -> float:
    """Wall-clock seconds of one network call on `count` windows on this machine, after a warm-up call."""
    channels = config.image_channels + config.mask_channels + config.beside_channels
    x = torch.zeros(count, channels, *config.data.patch_size, device=device)
    sigma = torch.ones(count, 2, device=device)
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        with torch.no_grad():
            denoise(x, sigma)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        seconds = time.monotonic() - started
    return seconds


def estimate_line(seconds: float) -> str:
    """The time estimate in one line; a long one comes with advice on reducing it."""
    line = f"about {duration(seconds)} on this machine"
    if seconds > _LONG:
        line += "; less with fewer pairs, a smaller --canvas-size, or fewer --steps"
    return line

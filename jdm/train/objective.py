"""The training loss, and the same loss on fixed samples for monitoring."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from jdm.config.settings import Config
from jdm.data.pairs import Batches, PairDataset, condition_features, condition_length
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.loss import denoising_losses
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.noise import draw_sigmas
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.vp_loss import l_hybrid
from jdm.errors import TrainingError
from jdm.system.parallel import parts_of, side_by_side
from jdm.train.missing_masks import hidden

FIXED_BATCH, _FIXED_SEED = 16, 2**31
_MEASURED_SECONDS = 4.0
_MEASURED_PIXELS = 2**18  # pixels per batch on a CPU


def sample_losses(
    denoiser: Denoiser | VPDenoiser, x0: Tensor, condition: Tensor, config: Config, generator: torch.Generator
) -> Tensor:
    """Training loss per sample of `Batches`, (B,): weighted denoising error, or L_hybrid for the thesis's process."""
    levels, noise = _draw(denoiser, x0, config, generator)
    parts = side_by_side(lambda p: _losses(denoiser, x0[p], condition[p], levels[p], noise[p], config), parts_of(x0))
    return torch.cat(parts)


def loss_and_gradients(
    denoiser: Denoiser | VPDenoiser, x0: Tensor, condition: Tensor, config: Config, generator: torch.Generator
) -> Tensor:
    """Mean training loss of a batch; its gradient replaces the gradient stored in the parameters."""
    for parameter in denoiser.parameters():
        parameter.grad = None
    levels, noise = _draw(denoiser, x0, config, generator)
    # Distributed training expects one backward pass per step, and threads would share dropout's random generator.
    alone = dist.is_initialized() or config.network.dropout > 0
    parts = [slice(len(x0))] if alone else parts_of(x0)

    def mean_loss(part: slice) -> Tensor:
        return _losses(denoiser, x0[part], condition[part], levels[part], noise[part], config).sum() / len(x0)

    if len(parts) == 1:
        loss = mean_loss(parts[0])
        loss.backward()
        return loss.detach()

    parameters = list(denoiser.parameters())

    def with_gradients(part: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = mean_loss(part)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    shares = side_by_side(with_gradients, parts)
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in shares), strict=True):
        parameter.grad = functools.reduce(torch.add, gradients)
    return functools.reduce(torch.add, [loss for loss, _ in shares])


def _draw(
    denoiser: Denoiser | VPDenoiser, x0: Tensor, config: Config, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw levels, sigma (B, 2) or steps t (B,), and noise like x0."""
    noise = torch.randn(x0.shape, generator=generator, device=x0.device)
    if isinstance(denoiser, VPDenoiser):
        return torch.randint(denoiser.process.steps, (len(x0),), generator=generator, device=x0.device), noise
    return draw_sigmas(config.noise, len(x0), generator), noise


def _losses(
    denoiser: Denoiser | VPDenoiser, x0: Tensor, condition: Tensor, levels: Tensor, noise: Tensor, config: Config
) -> Tensor:
    if isinstance(denoiser, VPDenoiser):
        return l_hybrid(denoiser, x0, levels, noise, config.diffusion.vlb_weight, condition)
    channels = config.image_channels + config.mask_channels
    beside = x0[:, channels:]
    if denoiser.previous_at is not None:
        level = condition[:, denoiser.previous_at + 1].reshape(-1, *[1] * (x0.ndim - 1))
        beside = beside + level * noise[:, channels:]
    x0, levels, missing = hidden(x0[:, :channels], levels, denoiser.image_channels)
    losses = denoising_losses(denoiser, x0, levels, noise[:, :channels], condition, beside)
    # Image and mask have equal weight; otherwise many one-hot mask channels would dominate the loss.
    return (losses[:, 0] + losses[:, 1].where(~missing, 0.0)) / 2


class FixedLoss:
    """Denoising loss on fixed crops at fixed noise and levels, so that only the weights change it."""

    def __init__(self, pairs: PairDataset, config: Config, device: torch.device, batches: int = 4) -> None:
        drawn = Batches(pairs, FIXED_BATCH, seed=_FIXED_SEED, augmented=False)
        self._samples = [drawn[index] for index in range(batches)]
        self._config, self._device = config, device

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser | VPDenoiser) -> float:
        losses = [
            sample_losses(
                denoiser, x0.to(self._device), condition.to(self._device), self._config,
                step_generator(_FIXED_SEED, 0, index, self._device),
            )
            for index, (x0, condition) in enumerate(self._samples)
        ]  # fmt: skip
        return float(torch.cat(losses).mean())


def step_seed(seed: int, rank: int, step: int, stream: int = 0) -> int:
    """Seed of one step, which depends only on the arguments, so that a resumed run repeats it."""
    state = np.random.SeedSequence([seed, rank, step, stream]).generate_state(2, np.uint32)
    return int(state[0]) << 32 | int(state[1])


def step_generator(seed: int, rank: int, step: int, device: torch.device) -> torch.Generator:
    """Random generator of one step."""
    return torch.Generator(device).manual_seed(step_seed(seed, rank, step))


def measure_step_seconds(config: Config, device: torch.device, repeats: int = 3) -> float:
    """Seconds of one training step of a plan on this machine, by its clock: the fastest of `repeats` after a warm-up.

    Because a step with large samples may take minutes, these are measured with a smaller batch and fewer repeats. The
    time is then scaled by the number of samples, which holds if each sample keeps the machine busy.
    """
    denoiser = build_denoiser(config, condition_features(config.data.dims)).to(device)
    optimizer = torch.optim.AdamW(denoiser.parameters(), fused=True)
    pixels = math.prod(config.data.patch_size)
    count = config.train.batch_size if device.type == "cuda" else max(2, _MEASURED_PIXELS // pixels)
    count = min(config.train.batch_size, count)
    channels = config.image_channels + config.mask_channels + config.beside_channels
    x0 = torch.zeros(count, channels, *config.data.patch_size)
    x0, condition = x0.to(device), torch.zeros(len(x0), condition_length(config), device=device)
    times, clock = [], time.process_time if config.train.clock == "cpu" else time.monotonic
    with memory_errors(config.train.batch_size):
        for step in range(repeats + 1):
            started = clock()
            loss_and_gradients(denoiser, x0, condition, config, step_generator(0, 0, step, device))
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(clock() - started)
            if sum(times) > _MEASURED_SECONDS:
                break
    return min(times[1:] or times) * config.train.batch_size / count


@contextlib.contextmanager
def memory_errors(batch_size: int, flag: str = "--train.batch-size") -> Iterator[None]:
    """Turn an out-of-memory error of device or machine into a TrainingError that names the flag to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
        if not full:
            raise
        raise TrainingError(
            f"memory ran out at a batch size of {batch_size}: {text}; expected it to fit; "
            f"run again with {flag} {max(1, batch_size // 2)}"
        ) from None

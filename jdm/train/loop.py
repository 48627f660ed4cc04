"""Training, from a plan and a dataset to a checkpoint."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from jdm.config.files import to_dict, to_toml, updated_toml
from jdm.config.settings import Config, TrainConfig
from jdm.data.classes import FILE_NAME, classes_csv
from jdm.data.crops import coordinates, drawn_window
from jdm.data.pairs import Batches, PairDataset, condition_features
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.sampling import karras_sigmas, sample_heun
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.windows import with_beside
from jdm.system.parallel import on_all_cores
from jdm.system.processes import agreed, processes, rank, stop_signals
from jdm.system.progress import Bar
from jdm.train.checkpoint import (
    FINGERPRINT,
    PLAN,
    Checkpoint,
    load_checkpoint,
    write_run_text,
)
from jdm.train.log import RunLog
from jdm.train.missing_masks import ESTIMATES_FROM, with_estimates
from jdm.train.objective import (
    FixedLoss,
    loss_and_gradients,
    memory_errors,
    step_generator,
    step_seed,
)
from jdm.train.prepare import Prepared
from jdm.train.progress import GRID_PAIRS, GRID_STEPS, Ema, Progress
from jdm.train.unlabelled import RECORD

Trained = tuple[Denoiser | VPDenoiser, Ema, torch.optim.Optimizer]

_FLUSH_EVERY = 50
_DROPOUT = 1  # random stream of dropout; the stream of the noise is 0


def train(prepared: Prepared, *, resume: bool = False, started: float | None = None) -> Checkpoint:
    """Fit a joint diffusion model to a dataset.

    Writes fingerprint.json, plan.toml, classes.csv (for a model with classes), checkpoint.safetensors,
    checkpoint.json, resume.pt, log.csv and samples/ to the run's folder.

    Args:
        resume: continue from resume.pt, if it exists.
        started: `time.monotonic()` at which the budget starts; None: now.
    Returns: the checkpoint to sample from.
    Raises: TrainingError if the loss is not finite or memory runs out; CheckpointError if the state to resume from
        has another plan or dataset.
    """
    config, out_dir, ids = prepared.config, prepared.out_dir, (prepared.training_ids, prepared.held_out_ids)
    with processes() as device:
        torch.manual_seed(config.train.seed)
        datasets = [PairDataset(prepared.dataset, some, config, classes=prepared.classes) for some in ids if some]
        unlabelled = None
        if prepared.unlabelled is not None:
            images = prepared.unlabelled.images
            unlabelled = PairDataset(images, list(images.cases), config)
        denoiser = build_denoiser(config, condition_features(config.data.dims)).to(device)
        if prepared.imported is not None:
            denoiser.network.load_state_dict(dict(prepared.imported.weights))
        ema = Ema(denoiser, config.train.ema_decay)
        optimizer = torch.optim.AdamW(denoiser.parameters(), config.train.learning_rate, weight_decay=0.0, fused=True)
        progress = Progress(prepared, time.monotonic() if started is None else started)
        if resume:
            progress.restore(denoiser, ema, optimizer)
        measures = [FixedLoss(pairs, config, device, progress.costs.fixed_batches) for pairs in datasets]
        if first := rank() == 0:
            _describe(prepared, resume)
            if prepared.imported is not None:  # a run killed early must not go on from other weights
                progress.save_state(denoiser, ema, optimizer)
        if dist.is_initialized():
            denoiser.network = DistributedDataParallel(denoiser.network)
        with RunLog(out_dir, progress.step, first) as log, stop_signals() as stop:
            batches = Batches(datasets[0], config.train.batch_size, config.train.seed, rank(), unlabelled=unlabelled)
            _loop(batches, measures, (denoiser, ema, optimizer), progress, log, stop)
        if first and not progress.saved:
            progress.save_weights(ema, measured=len(measures) > 1)
        if dist.is_initialized():
            dist.barrier()
        return load_checkpoint(out_dir)


def _describe(prepared: Prepared, resume: bool) -> None:
    """Write fingerprint and plan to the run's folder; for a resumed run, only update the changed settings."""
    out_dir, config = prepared.out_dir, prepared.config
    out_dir.mkdir(parents=True, exist_ok=True)
    if prepared.unlabelled is not None:
        write_run_text(out_dir / RECORD, json.dumps(prepared.unlabelled.record, indent=1) + "\n")
    if prepared.classes:
        write_run_text(out_dir / FILE_NAME, classes_csv(prepared.classes))
    if resume and (out_dir / PLAN).is_file():
        write_run_text(out_dir / PLAN, updated_toml((out_dir / PLAN).read_text(encoding="utf-8"), config))
        return
    write_run_text(out_dir / FINGERPRINT, json.dumps(to_dict(config.facts), indent=1) + "\n")
    write_run_text(out_dir / PLAN, to_toml(config, prepared.plan.reasons))


def _loop(
    batches: Batches, measures: list[FixedLoss], trained: Trained, progress: Progress, log: RunLog, stop: list[int]
) -> None:
    """Train until the plan's steps, the budget or a signal ends it."""
    config, pairs = batches.pairs.config, batches.pairs
    denoiser, ema, optimizer = trained
    settings, first = config.train, rank() == 0
    device = next(denoiser.parameters()).device
    workers = min(4, os.cpu_count() or 1) if device.type == "cuda" else 0
    loader = DataLoader(
        batches, batch_size=None, sampler=range(progress.step, settings.steps), num_workers=workers,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    progress.share = agreed(progress.spent(), 0)
    if progress.step and progress.share > 1:  # resuming a finished run
        if first:
            print(progress.spent_line(), file=sys.stderr)
        return
    denoiser.train()
    with Bar(settings.steps, "steps", done=progress.step, active=first, limit=progress.seconds_left()) as bar:
        for batch in loader:
            progress.share = max(progress.share, agreed(progress.spent(), progress.step))
            log.row(_update(config, trained, batch, progress))
            progress.step += 1
            bar.update()
            ended = progress.step == settings.steps or bool(agreed(progress.out_of_time(), progress.step))
            signalled = int(agreed(stop[0] if stop else 0, progress.step))
            if ended or progress.step % settings.validate_every == 0:  # not at a signal: a resume must not show
                log.check()  # stops if a loss was not finite, before anything is saved
                with progress.timed("measure"), memory_errors(settings.batch_size):
                    progress.measure(ema, measures, log)
                bar.note(log.shown())
            grid = progress.costs.grid and (ended or progress.step % settings.sample_every == 0)
            if first and grid:  # before saving the state that marks it as done
                with progress.timed("grid"), memory_errors(settings.batch_size):
                    log.grid(progress.step, sample_grid(ema.denoiser, config), pairs)
            saving = ended or bool(signalled) or progress.save_is_due()
            if saving or progress.step % _FLUSH_EVERY == 0:
                log.flush()
            if first and saving:
                progress.save_state(denoiser, ema, optimizer)
            if signalled:
                raise SystemExit(128 + signalled)
            if ended:
                break


def _update(
    config: Config, trained: Trained, batch: tuple[torch.Tensor, torch.Tensor], progress: Progress
) -> dict[str, float | torch.Tensor]:
    """Update the weights and their average from a batch (x0, condition); returns the row for the log."""
    denoiser, ema, optimizer = trained
    settings, step = config.train, progress.step
    device = next(denoiser.parameters()).device
    generator = step_generator(settings.seed, rank(), step, device)
    rate = learning_rate(settings, step, progress.share)
    for group in optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(step_seed(settings.seed, rank(), step, _DROPOUT))
    with memory_errors(settings.batch_size):
        x0, condition = (part.to(device) for part in batch)
        late = max(step / settings.steps, progress.share) >= ESTIMATES_FROM
        if settings.missing_mask == "estimated" and late and isinstance(ema.denoiser, Denoiser):
            noise = torch.randn(x0.shape, generator=generator, device=device)
            x0 = with_estimates(ema.denoiser, x0, condition, noise)
        loss = loss_and_gradients(denoiser, x0, condition, config, generator)
        norm = nn.utils.clip_grad_norm_(denoiser.parameters(), settings.gradient_clip)
        optimizer.step()
        ema.update(step)
    return {"step": step + 1, "loss": loss, "gradient_norm": norm, "learning_rate": rate}


def learning_rate(settings: TrainConfig, step: int, spent: float = 0.0) -> float:
    """Learning rate at a step counted from zero: linear warm-up, then constant or linear decay to zero.

    Args: spent: share of the budget spent; decay follows whichever of steps and budget is nearer to its end.
    """
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = 1 - min(1.0, max(step / settings.steps, spent)) if settings.decay == "linear" else 1.0
    return settings.learning_rate * warm * left


def sample_grid(denoiser: Denoiser | VPDenoiser, config: Config) -> np.ndarray:
    """A few encoded samples with the current weights, (n, channels, *patch_size), always from the same noise."""
    shape = (GRID_PAIRS, config.image_channels + config.mask_channels, *config.data.patch_size)
    device = next(denoiser.parameters()).device
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    sigmas = karras_sigmas(GRID_STEPS, config.noise.sigma_min, config.noise.sigma_max)
    denoise = on_all_cores(denoiser)
    if config.data.position:
        rng = np.random.default_rng(0)
        places = [coordinates(*drawn_window(config.facts, config.data.patch_size, rng)) for _ in range(GRID_PAIRS)]
        denoise = with_beside(denoise, torch.from_numpy(np.stack(places)))
    return sample_heun(denoise, noise, sigmas).cpu().numpy()

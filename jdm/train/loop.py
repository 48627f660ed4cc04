"""Training, from a plan and a dataset to a checkpoint."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from jdm.config.settings import Config, TrainConfig, dumps, from_dict, to_dict
from jdm.data.classes import FILE_NAME, classes_csv
from jdm.data.pairs import Batches, PairDataset, condition_features
from jdm.data.raw_dataset import RawDataset
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.noise import Denoiser
from jdm.diffusion.sampling import karras_sigmas, sample_heun
from jdm.diffusion.vp import VPDenoiser
from jdm.errors import CheckpointError
from jdm.system.machine import describe_run, jdm_version
from jdm.system.parallel import on_all_cores
from jdm.system.processes import agreed, processes, rank, stop_signals
from jdm.train.checkpoint import (
    Checkpoint,
    differences,
    load_checkpoint,
    load_resume_state,
    save_checkpoint,
    save_resume_state,
    write_run_text,
)
from jdm.train.log import RunLog
from jdm.train.objective import FixedLoss, loss_and_gradients, memory_errors, step_generator, step_seed

_GRID_PAIRS, _GRID_STEPS = 12, 18
_FLUSH_EVERY = 50
_DROPOUT = 1  # the stream of dropout's randomness; that of the noise is 0


def train(
    config: Config, dataset: RawDataset, fold: int | str, ids: tuple[Sequence[str], Sequence[str]], out_dir: Path,
    resume: bool = False, started: float | None = None, classes: Mapping[str, str] | None = None,
) -> Checkpoint:  # fmt: skip
    """Fit a joint diffusion model to a dataset.

    Args:
        ids: training case ids, and held-out ones, which only measure the loss.
        out_dir: receives plan.toml, classes.csv of plans with classes, checkpoint.safetensors, checkpoint.json,
            resume.pt, log.csv, samples/.
        resume: go on from out_dir/resume.pt if it is there.
        started: `time.monotonic()` from which the budget counts; now when None.
        classes: class by case, of plans with classes; empty where a case has none.
    Returns: the checkpoint to sample from.
    Raises: TrainingError if the loss is not finite or memory runs out; CheckpointError if the state to resume is
        of another plan or dataset.
    """
    training_ids, held_out_ids = (list(group) for group in ids)
    with processes() as device:
        torch.manual_seed(config.train.seed)
        pairs = PairDataset(dataset, training_ids, config, classes=classes)
        measures = [FixedLoss(pairs, config, device)]
        if held_out_ids:
            measures.append(FixedLoss(PairDataset(dataset, held_out_ids, config, classes=classes), config, device))
        denoiser = build_denoiser(config, condition_features(config.data.dims)).to(device)
        ema = Ema(denoiser, config.train.ema_decay)
        optimizer = torch.optim.AdamW(denoiser.parameters(), config.train.learning_rate, weight_decay=0.0, fused=True)
        origin = {
            "jdm_version": jdm_version(),
            "dataset": dataset.name,
            "fold": str(fold),
            "training_ids": training_ids,
            "held_out_ids": held_out_ids,
            "labels": dict(dataset.labels),
            "channel_names": list(dataset.channel_names),
            "file_ending": dataset.file_ending,
            "processes": dist.get_world_size() if dist.is_initialized() else 1,
        }
        if classes:
            origin["classes"] = {case: classes[case] for case in (*training_ids, *held_out_ids)}
        progress = _Progress(out_dir, config, origin, time.monotonic() if started is None else started)
        if resume:
            progress.restore(denoiser, ema, optimizer)
        out_dir.mkdir(parents=True, exist_ok=True)
        first = rank() == 0
        if first and classes:
            write_run_text(out_dir / FILE_NAME, classes_csv(classes))
        if first:
            write_run_text(out_dir / "plan.toml", dumps(config))
        if dist.is_initialized():
            denoiser.network = DistributedDataParallel(denoiser.network)
        with RunLog(out_dir, progress.step, first) as log, stop_signals() as stop:
            _loop(config, pairs, measures, (denoiser, ema, optimizer), progress, log, stop)
        if first and not progress.saved:
            progress.save_weights(ema, measured=bool(held_out_ids))
        if dist.is_initialized():
            dist.barrier()
        return load_checkpoint(out_dir)


def _loop(
    config: Config, pairs: PairDataset, measures: list[FixedLoss],
    trained: tuple[Denoiser | VPDenoiser, Ema, torch.optim.Optimizer],
    progress: _Progress, log: RunLog, stop: list[int],
) -> None:  # fmt: skip
    """Steps until the plan's count, the budget or a signal ends them."""
    denoiser, ema, optimizer = trained
    settings, first = config.train, rank() == 0
    device = next(denoiser.parameters()).device
    batches = Batches(pairs, settings.batch_size, settings.seed, rank())
    workers = min(4, os.cpu_count() or 1) if device.type == "cuda" else 0
    loader = DataLoader(
        batches, batch_size=None, sampler=range(progress.step, settings.steps), num_workers=workers,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    progress.share = agreed(progress.spent(), 0)
    if progress.step and progress.share > 1:  # a finished run that is resumed
        if first:
            print(progress.spent_line(), file=sys.stderr)
        return
    denoiser.train()
    bar = tqdm(total=settings.steps, initial=progress.step, disable=None if first else True, unit="step")
    for x0, condition in loader:
        step = progress.step
        generator = step_generator(settings.seed, rank(), step, device)
        progress.share = max(progress.share, agreed(progress.spent(), step))
        rate = learning_rate(settings, step, progress.share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(step_seed(settings.seed, rank(), step, _DROPOUT))
        with memory_errors(settings.batch_size):
            loss = loss_and_gradients(denoiser, x0.to(device), condition.to(device), config, generator)
            norm = nn.utils.clip_grad_norm_(denoiser.parameters(), settings.gradient_clip)
            optimizer.step()
            ema.update(step)
        log.row({"step": step + 1, "loss": loss, "gradient_norm": norm, "learning_rate": rate})
        progress.step += 1
        bar.update()
        ended = progress.step == settings.steps or bool(agreed(progress.out_of_time(), progress.step))
        signalled = int(agreed(stop[0] if stop else 0, progress.step))
        if ended or progress.step % settings.validate_every == 0:  # not at a signal: resuming must not show
            log.check()  # stops here if a loss was not finite, before anything of it is saved
            with progress.timed("measure"), memory_errors(settings.batch_size):
                progress.measure(ema, measures, log)
            bar.set_postfix(log.shown())
        if first and (ended or progress.step % settings.sample_every == 0):  # before the state that tells it is done
            with progress.timed("grid"), memory_errors(settings.batch_size):
                log.grid(progress.step, sample_grid(ema.denoiser, config), pairs)
        saving = ended or bool(signalled) or progress.step % settings.checkpoint_every == 0
        if saving or progress.step % _FLUSH_EVERY == 0:
            log.flush()
        if first and saving:
            progress.save_state(denoiser, ema, optimizer)
        if signalled:
            bar.close()
            raise SystemExit(128 + signalled)
        if ended:
            break
    bar.close()


class Ema:
    """Exponential moving average of the parameters; buffers are left alone.

    The decay at step s is min(decay, (1 + s) / (10 + s)), so that early weights are forgotten quickly.
    """

    def __init__(self, denoiser: Denoiser | VPDenoiser, decay: float) -> None:
        self.denoiser = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self._pairs = list(zip(self.denoiser.parameters(), denoiser.parameters(), strict=True))
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the trained weights after step `step`, counted from zero."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for averaged, trained in self._pairs:
            averaged.lerp_(trained, 1 - decay)


class _Progress:
    """Where a run is: its step, its clock, and the best held-out loss so far."""

    def __init__(self, out_dir: Path, config: Config, origin: Mapping[str, Any], started: float) -> None:
        self.out_dir, self.config, self.origin = out_dir, config, origin
        self.step, self._earlier, self._started = 0, 0.0, started
        self.share = 0.0  # of the budget that all processes agree is spent
        self._end: dict[str, float] = {}
        self.smoothed, self.best = math.nan, math.inf
        self.saved = False
        about = describe_run()
        self._made_with = {"commit": about.commit, "hardware": about.hardware}  # not what a resumed run is held to

    @property
    def seconds(self) -> float:
        """Wall clock that this run has had, earlier sessions included."""
        return self._earlier + time.monotonic() - self._started

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note how long a part of the end of a run takes, so that the budget leaves room for it."""
        started = time.monotonic()
        yield
        self._end[part] = time.monotonic() - started

    def spent(self) -> float:
        """Share of the budget that is gone, with what the end of the run takes; 0 without a budget."""
        budget = self.config.train.budget_minutes
        return 0.0 if budget is None else (self.seconds + sum(self._end.values())) / (60 * budget)

    def out_of_time(self) -> bool:
        """Whether what remains of the budget is no more than the end of the run takes."""
        return self.spent() > 1

    def spent_line(self) -> str:
        """What a resumed run without time left tells."""
        had, budget = self.seconds / 60, self.config.train.budget_minutes
        return (
            f"jdm-train: note: the run has had {had:.1f} of its {budget:g} minutes; no step is added; give more "
            "--budget-minutes to go on"
        )

    def measure(self, ema: Ema, measures: list[FixedLoss], log: RunLog) -> None:
        """Log the loss of seen and held-out samples; keep the weights of the smoothed minimum."""
        seen, held_out = measures[0](ema.denoiser), measures[1](ema.denoiser) if len(measures) > 1 else math.nan
        judged = held_out if len(measures) > 1 else seen
        self.smoothed = judged if math.isnan(self.smoothed) else _smooth(self.smoothed, judged)
        log.measured({"seen_loss": seen, "held_out_loss": held_out, "smoothed": self.smoothed})
        if self.config.train.select == "best" and len(measures) > 1 and self.smoothed < self.best:
            self.best = self.smoothed
            self.saved = True
            if log.active:
                self.save_weights(ema, measured=True)

    def save_weights(self, ema: Ema, measured: bool) -> None:
        known = measured and not math.isnan(self.smoothed)  # a run stopped early is not measured yet
        chosen = {"step": self.step, "held_out_loss": self.smoothed if known else None}
        metadata = {**self.origin, **self._made_with, **chosen}
        save_checkpoint(self.out_dir, ema.denoiser.state_dict(), self.config, metadata)

    def save_state(self, denoiser: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> None:
        state = {
            "network": {name.replace("network.module.", "network."): v for name, v in denoiser.state_dict().items()},
            "ema": ema.denoiser.state_dict(),
            "optimizer": optimizer.state_dict(),
            "seconds": self.seconds,
            "reached": {name: getattr(self, name) for name in ("step", "smoothed", "best", "saved")},
            "origin": {**self.origin, "config": to_dict(self.config)},
        }
        save_resume_state(self.out_dir, state)

    def restore(self, denoiser: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> None:
        state = load_resume_state(self.out_dir)
        if state is None:
            return
        ignored = tuple(f"config.train.{name}:" for name in ("steps", "budget_minutes"))  # a run may be extended
        earlier = to_dict(from_dict(Config, state["origin"]["config"]))  # one of an older jdm lacks newer settings
        found = {**state["origin"], "config": earlier}
        lines = differences(found, {**self.origin, "config": to_dict(self.config)})
        changed = [line for line in lines if not line.startswith(ignored)]
        if changed:
            raise CheckpointError(
                f"{self.out_dir} holds a run of another plan or dataset: {'; '.join(changed)}; "
                "resume with the same settings, or start anew with --overwrite"
            )
        denoiser.load_state_dict(state["network"])
        ema.denoiser.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        self._earlier = state["seconds"]
        for name, value in state["reached"].items():
            setattr(self, name, value)


def _smooth(before: float, now: float) -> float:
    """Half old, half new: one lucky measurement does not pick the weights."""
    return 0.5 * before + 0.5 * now


def learning_rate(settings: TrainConfig, step: int, spent: float = 0.0) -> float:
    """Rate at a step counted from zero: linear warm-up, then constant or linear to zero.

    Args: spent: share of the budget that is gone; whichever of steps and budget is nearer to its end counts.
    """
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = 1 - min(1.0, max(step / settings.steps, spent)) if settings.decay == "linear" else 1.0
    return settings.learning_rate * warm * left


def sample_grid(denoiser: Denoiser | VPDenoiser, config: Config) -> np.ndarray:
    """A few encoded samples of the current weights, (n, channels, *patch_size), always from the same noise."""
    shape = (_GRID_PAIRS, config.image_channels + config.mask_channels, *config.data.patch_size)
    device = next(denoiser.parameters()).device
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    sigmas = karras_sigmas(_GRID_STEPS, config.noise.sigma_min, config.noise.sigma_max)
    return sample_heun(on_all_cores(denoiser), noise, sigmas).cpu().numpy()

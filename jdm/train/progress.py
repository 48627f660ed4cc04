"""State of a training run: clock, averaged weights, best loss, and saving."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import torch
import torch.distributed as dist
from torch import nn

from jdm.config.files import differences, to_dict
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.vp import VPDenoiser
from jdm.errors import CheckpointError
from jdm.plan.rules import Plan
from jdm.system.machine import describe_run
from jdm.system.processes import rank
from jdm.train.checkpoint import PLAN, load_resume_state, save_checkpoint, save_resume_state
from jdm.train.log import RunLog
from jdm.train.objective import FIXED_BATCH, FixedLoss
from jdm.train.prepare import Prepared

GRID_PAIRS, GRID_STEPS = 12, 18
"""Sampling steps of the sample grids."""


@dataclass(frozen=True)
class Costs:
    """What a run with a budget can afford besides training steps, and the seconds needed to finish."""

    fixed_batches: int = 4
    """Batches of the held-out loss."""
    grid: bool = True
    """Whether sample grids are drawn."""
    end: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan) -> Costs:
        """From the measured time per step; denoising a sample takes about a third of the time of training on it."""
        train = plan.config.train
        if train.budget_minutes is None or plan.seconds is None:
            return cls()
        budget, denoised = 60 * train.budget_minutes, plan.seconds / train.batch_size / 3
        batch, grid = 2 * FIXED_BATCH * denoised, GRID_PAIRS * 2 * GRID_STEPS * denoised
        batches = max(1, min(4, int(0.01 * budget / batch)))
        affordable = grid < 0.05 * budget
        return cls(batches, affordable, {"measure": batches * batch, **({"grid": grid} if affordable else {})})


class Ema:
    """Exponential moving average of the parameters; buffers are not averaged.

    The decay at step s is min(decay, (1 + s) / (10 + s)), so that early weights are forgotten quickly.
    """

    def __init__(self, denoiser: Denoiser | VPDenoiser, decay: float) -> None:
        self.denoiser = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self._pairs = list(zip(self.denoiser.parameters(), denoiser.parameters(), strict=True))
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update with the trained weights after step `step`, counted from zero."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for averaged, trained in self._pairs:
            averaged.lerp_(trained, 1 - decay)


class Progress:
    """Progress of a run: step, clock, and the best held-out loss so far."""

    def __init__(self, prepared: Prepared, started: float) -> None:
        self.out_dir, self.config, self.costs = prepared.out_dir, prepared.config, Costs.of(prepared.plan)
        self.origin = {
            "dataset": prepared.dataset.name,
            "fold": prepared.fold,
            "training_ids": prepared.training_ids,
            "held_out_ids": prepared.held_out_ids,
            "train_fraction": prepared.train_fraction,
            "processes": dist.get_world_size() if dist.is_initialized() else 1,
        }
        if prepared.unlabelled is not None:
            self.origin["unlabelled"] = prepared.unlabelled.origin
        on_cpu = self.config.train.clock == "cpu"
        self._clock = time.process_time if on_cpu else time.monotonic
        self.step, self._earlier, self._started = 0, 0.0, self._clock() if on_cpu else started
        self.share = 0.0  # of the budget that all processes agree is spent
        self._end = dict(self.costs.end)
        self._saved_at = time.monotonic()
        self.smoothed, self.best = math.nan, math.inf
        self.saved = False
        about = describe_run()
        # State that may differ between a resumed run and its start.
        self._made_with = {"jdm_version": about.version, "commit": about.commit, "hardware": about.hardware}

    @property
    def seconds(self) -> float:
        """Seconds of this run by its clock, including earlier sessions."""
        return self._earlier + self._clock() - self._started

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Time a part of the final work, so that the budget leaves room for it."""
        started = self._clock()
        yield
        self._end[part] = self._clock() - started

    def spent(self) -> float:
        """Share of the budget spent, including the time reserved for the end; 0 without a budget."""
        budget = self.config.train.budget_minutes
        return 0.0 if budget is None else (self.seconds + sum(self._end.values())) / (60 * budget)

    def out_of_time(self) -> bool:
        """Whether the remaining budget is only enough to finish the run."""
        return self.spent() > 1

    def seconds_left(self) -> float | None:
        """Seconds until the budget is spent; None without a budget."""
        budget = self.config.train.budget_minutes
        return None if budget is None else 60 * budget - self.seconds

    def spent_line(self) -> str:
        """Message of a resumed run with no time left."""
        had, budget = self.seconds / 60, self.config.train.budget_minutes
        return (
            f"jdm-train: note: the run has used {had:.1f} of its {budget:g} minutes; no step is added; increase "
            "--budget-minutes to continue"
        )

    def measure(self, ema: Ema, measures: list[FixedLoss], log: RunLog) -> None:
        """Log the loss on training and held-out samples; keep the weights at the smoothed minimum."""
        seen, held_out = measures[0](ema.denoiser), measures[1](ema.denoiser) if len(measures) > 1 else math.nan
        judged = held_out if len(measures) > 1 else seen
        self.smoothed = judged if math.isnan(self.smoothed) else _smooth(self.smoothed, judged)
        log.measured({"seen_loss": seen, "held_out_loss": held_out, "smoothed": self.smoothed})
        if self.config.train.select == "best" and len(measures) > 1 and self.smoothed < self.best:
            self.best = self.smoothed
            self.saved = True
            if log.active:
                self.save_weights(ema, measured=True)

    def save_is_due(self) -> bool:
        """Whether it is time for another checkpoint."""
        return time.monotonic() - self._saved_at >= 60 * self.config.train.checkpoint_minutes

    def save_weights(self, ema: Ema, measured: bool) -> None:
        known = measured and not math.isnan(self.smoothed)  # a run stopped early has not been measured yet
        chosen = {
            "step": self.step,
            "held_out_loss": self.smoothed if known else None,
            "minutes": round(self.seconds / 60, 2),
        }
        metadata = {**self.origin, **self._made_with, **chosen}
        save_checkpoint(self.out_dir, ema.denoiser.state_dict(), self.config, metadata)

    def save_state(self, denoiser: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> None:
        state = {
            "network": {name.replace("network.module.", "network."): v for name, v in denoiser.state_dict().items()},
            "ema": ema.denoiser.state_dict(),
            "optimizer": optimizer.state_dict(),
            "seconds": self.seconds,
            "costs": {**asdict(self.costs), "end": self._end},
            "reached": {name: getattr(self, name) for name in ("step", "smoothed", "best", "saved")},
            "origin": {**self.origin, "config": to_dict(self.config)},
        }
        save_resume_state(self.out_dir, state)
        self._saved_at = time.monotonic()

    def restore(self, denoiser: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> None:
        state = load_resume_state(self.out_dir)
        if state is None:
            if (self.out_dir / PLAN).is_file():  # else prepare has said that there is no run
                self._say("the run was stopped before its first resume state; training starts again at step 0")
            return
        ignored = tuple(f"config.train.{name}:" for name in ("steps", "budget_minutes"))  # a run may be extended
        lines = differences(state["origin"], {**self.origin, "config": to_dict(self.config)})
        changed = [line for line in lines if not line.startswith(ignored)]
        if changed:
            raise CheckpointError(
                f"{self.out_dir} holds a run of another plan or dataset: {'; '.join(changed)}; "
                "resume with the same settings, or start again with --overwrite"
            )
        denoiser.load_state_dict(state["network"])
        ema.denoiser.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        self._earlier, self.costs = state["seconds"], Costs(**state["costs"])
        self._end = dict(self.costs.end)
        for name, value in state["reached"].items():
            setattr(self, name, value)
        self._say(f"resuming at step {self.step}, after {self.seconds / 60:.1f} minutes")

    def _say(self, text: str) -> None:
        if rank() == 0:
            print(f"jdm-train: note: {text}", file=sys.stderr, flush=True)


def _smooth(before: float, now: float) -> float:
    """Mean of the old and new value, so that one lucky measurement does not select the weights."""
    return 0.5 * before + 0.5 * now

"""The arms of a comparison: what each is trained on, for how many updates; and one training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jdm.classify.images import Images, augmented
from jdm.classify.request import Arm, ClassifyOptions


@dataclass(frozen=True)
class Phase:
    """A stretch of training: updates, whether batches hold real or synthetic images or half of each."""

    updates: int
    real: float
    """Share of real images in a batch."""
    augment: bool = False
    pooled: bool = False
    """Synthetic images count as real ones."""


def phases(arm: Arm, updates: int) -> list[Phase]:
    """What an arm is trained on. Arms with synthetic images see as many updates of each kind as arm real in all."""
    return {
        "real": [Phase(updates, 1.0)],
        "augmented": [Phase(updates, 1.0, augment=True)],
        "real-long": [Phase(2 * updates, 1.0)],
        "synthetic": [Phase(updates, 0.0)],
        "synthetic-then-real": [Phase(updates, 0.0), Phase(updates, 1.0)],
        "mixed": [Phase(2 * updates, 0.5)],
        "pooled": [Phase(2 * updates, 1.0, pooled=True)],
    }[arm]


def train(
    model: nn.Module, arm: Arm, real: Images, synthetic: Images, options: ClassifyOptions, seed: int,
    step: Callable[[], object],
) -> list[float]:  # fmt: skip
    """Train a network in place. Returns: the mean loss of every twentieth of the updates.

    AdamW; in each phase the learning rate rises for a twentieth of the updates, then falls to zero as a cosine. Class
    by class the draws depend on the seed only.
    Args: real, synthetic: standardised. step: called after every update.
    """
    generator = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    for phase in phases(arm, options.iterations):
        first = real.joined(synthetic) if phase.pooled else real
        optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01)
        for update in range(phase.updates):
            done = update / phase.updates
            rate = min(1.0, 20 * (done + 1 / phase.updates)) * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
            x, y = _batch(phase, first, synthetic, options, generator)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step()
    every = max(1, len(losses) // 20)
    return [sum(losses[n : n + every]) / len(losses[n : n + every]) for n in range(0, len(losses), every)]


@torch.no_grad()
def probabilities(model: nn.Module, images: Images, batch_size: int = 256) -> Tensor:
    """(n, classes)."""
    model.eval()
    return torch.cat([model(part).softmax(1) for part in images.x.split(batch_size)])


def _batch(
    phase: Phase, real: Images, synthetic: Images, options: ClassifyOptions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    of_real = round(phase.real * options.batch_size)
    parts = []
    for images, count in ((real, of_real), (synthetic, options.batch_size - of_real)):
        if count:
            chosen = _draw(images.y, count, options.classes_balanced, generator)
            parts.append((images.x[chosen], images.y[chosen]))
    x, y = (torch.cat(part) for part in zip(*parts, strict=True))
    return (augmented(x, generator) if phase.augment else x), y


def _draw(y: Tensor, count: int, balanced: bool, generator: torch.Generator) -> Tensor:
    if not balanced:
        return torch.randint(0, len(y), (count,), generator=generator)
    weights = 1 / torch.bincount(y).clamp(min=1)[y].double()
    return torch.multinomial(weights, count, replacement=True, generator=generator)

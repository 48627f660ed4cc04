"""How much an export is: number of pairs, calls of the network, minutes."""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from jdm.config.samplers import evaluations
from jdm.config.settings import Config
from jdm.data.pairs import PairDataset
from jdm.diffusion.noise import Denoise
from jdm.diffusion.windows import window_starts
from jdm.errors import ConfigError
from jdm.export.request import ExportRequest

_LONG_MINUTES = 30


def slices_of(pairs: PairDataset) -> int:
    """Slices of a typical training volume; 1 for images.

    Exported volumes have as many, of one size: nnU-Net normalises each case by its own intensities, and those of a
    single slice are not those of a volume.
    """
    return int(np.median(list(Counter(item.case_id for item in pairs.items).values())))


def case_sizes(config: Config, pairs: PairDataset, canvas_size: Sequence[int]) -> tuple[dict[str, int], int]:
    """Size of each training case and of an exported pair: 1 where images are trained whole, in pixels where patches."""
    if config.data.whole:
        return {item.case_id: 1 for item in pairs.items}, 1
    sizes: Counter[str] = Counter()
    for index, item in enumerate(pairs.items):
        sizes[item.case_id] += math.prod(pairs.item_shape(index))
    return dict(sizes), math.prod(canvas_size) * slices_of(pairs)


def synthetic_count(ratio: float, config: Config, pairs: PairDataset, canvas_size: Sequence[int]) -> int:
    """Number of pairs that make `ratio` times the training set.

    Counted in cases where images are trained whole, in pixels where patches are.
    Raises: ConfigError if that is none.
    """
    sizes, pair_size = case_sizes(config, pairs, canvas_size)
    count = round(ratio * sum(sizes.values()) / pair_size)
    if count < 1:
        raise ConfigError(f"ratio {ratio} makes {count} pairs; expected at least one; ask for a larger ratio")
    return count


def real_amounts(
    config: Config, pairs: PairDataset, canvas_size: Sequence[int], classes: Mapping[str, str]
) -> dict[str, int]:
    """How many exported pairs the training cases of each class of the plan amount to.

    Args: classes: class by case.
    """
    sizes, pair_size = case_sizes(config, pairs, canvas_size)
    totals = dict.fromkeys(config.network.class_names, 0)
    for case, size in sizes.items():
        if classes.get(case) in totals:
            totals[classes[case]] += size
    return {name: round(total / pair_size) for name, total in totals.items()}


def balanced(real: Mapping[str, int], count: int) -> dict[str, int]:
    """Pairs to add to each class, `count` in all, such that the largest and the smallest class differ least.

    Each goes to the class with the fewest so far, the first of equals.
    """
    added = dict.fromkeys(real, 0)
    fewest = [(number, place, name) for place, (name, number) in enumerate(real.items())]
    heapq.heapify(fewest)
    for _ in range(count):
        number, place, name = fewest[0]
        heapq.heapreplace(fewest, (number + 1, place, name))
        added[name] += 1
    return added


def batches_of(request: ExportRequest) -> list[range]:
    """Case indices of each batch: `batch_size` images, or the volumes whose slices fit, at least one; of one class."""
    cases, batches, start = max(1, request.batch_size // request.slices), [], 0
    for count in [count for _, count in request.classes] or [request.count]:
        end = start + count
        batches += [range(first, min(first + cases, end)) for first in range(start, end, cases)]
        start = end
    return batches


def network_calls(config: Config, request: ExportRequest, batches: Iterable[range]) -> int:
    """Calls of the network, each on up to `batch_size` windows, that sampling these batches takes without redraws."""
    calls = evaluations(request.sampler, request.steps)
    # One more leads away from noise without signal (`VPProcess.begun`).
    calls += config.preset == "thesis" and config.diffusion.zero_terminal_snr and request.sampler != "ancestral"
    calls *= 1 if request.guidance == 1 else 2
    calls += request.masks == "estimated"
    windows = _windows(config, request)
    return calls * sum(math.ceil(len(batch) * request.slices * windows / request.batch_size) for batch in batches)


def export_seconds(
    denoise: Denoise, config: Config, request: ExportRequest, batches: Iterable[range], device: str
) -> float:
    """Estimated wall-clock seconds of sampling some batches on this machine, from a timed call of the network."""
    return network_calls(config, request, batches) * _call_seconds(denoise, config, request, device)


def _call_seconds(denoise: Denoise, config: Config, request: ExportRequest, device: str) -> float:
    """Wall-clock seconds of one call of the network on a full batch of windows, after one to warm up."""
    count = min(request.batch_size, request.count * request.slices * _windows(config, request))
    channels = config.image_channels + config.mask_channels
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


def duration(seconds: float) -> str:
    """The estimate in one line; a long one says what lowers it."""
    minutes = max(1, round(seconds / 60))
    line = f"about {minutes} minute{'s' * (minutes > 1)} on this machine"
    if minutes > _LONG_MINUTES:
        line += "; less with a smaller --canvas-size, --sampler dpmpp-2m, or a lower --ratio"
    return line


def _windows(config: Config, request: ExportRequest) -> int:
    """Windows that cover one pair."""
    sides = zip(request.canvas_size, config.data.patch_size, strict=True)
    return math.prod(len(window_starts(side, window, request.overlap)) for side, window in sides)

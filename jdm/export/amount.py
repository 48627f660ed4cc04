"""How much an export is: number of pairs, of which class, in which batches."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdm.config.facts import Fingerprint
from jdm.config.settings import Config
from jdm.draw.guidance import check_class_names
from jdm.draw.request import Way
from jdm.errors import ConfigError
from jdm.export.request import ExportRequest, check_request, export_way, masks_of
from jdm.train.checkpoint import Checkpoint

_PLACES = ("dataset", "fold", "shard", "anyway", "overwrite", "dry_run", "guide", "ratio", "balance", "class_label")
"""Of a request what does not fix the bytes of an export, or is in the order by another name."""


@dataclass(frozen=True)
class Order:
    """A request with nothing left open; written beside the growing dataset, so that a resumed export cannot mix two."""

    request: ExportRequest
    name: str
    """Of the new dataset, without its id."""
    count: int
    canvas_size: tuple[int, ...]
    way: Way
    slices: int
    """Slices of an exported volume; 1 for images. As many as a typical training volume has: nnU-Net normalises each
    case by its own intensities, and those of a single slice are not those of a volume."""
    classes: tuple[tuple[str, int], ...]
    """Class and number of its pairs, which follow each other; empty: sampled without a class."""
    given_masks: str
    """See `masks_of`."""
    given_masks_sha256: str = ""
    """Of the contents of that folder, so that two sets of masks are not mixed."""
    guide_sha256: str = ""
    """Of the weaker checkpoint that guides; empty: none."""

    def to_dict(self) -> dict[str, Any]:
        """All that fixes the bytes of the export, as plain values."""
        asked = {key: value for key, value in dataclasses.asdict(self.request).items() if key not in _PLACES}
        settled = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("request", "way")}
        return {**asked, **settled, **self.way.to_dict()}

    def class_of(self, index: int) -> str:
        """The class that a case by index is sampled with; empty: none."""
        for name, count in self.classes:
            if index < count:
                return name
            index -= count
        return ""

    def batches(self) -> list[range]:
        """Case indices of each batch, all of one class: `batch_size` images, or the volumes whose slices fit, at least
        one."""
        cases, batches, start = max(1, self.request.batch_size // self.slices), [], 0
        for count in [count for _, count in self.classes] or [self.count]:
            end = start + count
            batches += [range(first, min(first + cases, end)) for first in range(start, end, cases)]
            start = end
        return batches


def order_of(checkpoint: Checkpoint, request: ExportRequest) -> Order:
    """Settle what a request leaves open. Raises: ConfigError if it cannot be sampled."""
    config = checkpoint.config
    canvas = tuple(request.canvas_size or config.data.canvas_size)
    way = export_way(config, request, canvas)
    check_request(config, request, canvas, way)
    count = request.count if request.ratio is None else synthetic_count(config, request.ratio, canvas)
    assert count is not None  # one of the two is given
    return Order(
        request,
        request.name or str(checkpoint.metadata["dataset"]).split("_", 1)[1] + "_syn",
        count,
        canvas,
        way,
        config.facts.slices,
        _classes(checkpoint, request, count, canvas),
        masks_of(request),
    )


def synthetic_count(config: Config, ratio: float, canvas_size: tuple[int, ...]) -> int:
    """Number of pairs that make `ratio` times the training set.

    Counted in cases where images are trained whole, in pixels where patches are.
    Raises: ConfigError if that is none.
    """
    amount = config.facts.cases if config.data.whole else _pixels(config.facts) / pair_pixels(config.facts, canvas_size)
    count = round(ratio * amount)
    if count < 1:
        raise ConfigError(f"--ratio is {ratio}, which makes {count} pairs; expected at least one; enlarge it")
    return count


def _pixels(facts: Fingerprint) -> float:
    """Pixels of all training cases."""
    return sum(math.prod(size) * slices * cases for size, slices, cases in facts.sizes)


def pair_pixels(facts: Fingerprint, canvas_size: tuple[int, ...]) -> float:
    """Mean pixels of an exported pair, which is as large as a real one, or the canvas if that is smaller."""
    areas = [
        math.prod(min(side, most) for side, most in zip(size, canvas_size, strict=True)) * cases
        for size, _, cases in facts.sizes
    ]
    return facts.slices * sum(areas) / facts.cases


def _classes(
    checkpoint: Checkpoint, request: ExportRequest, count: int, canvas: tuple[int, ...]
) -> tuple[tuple[str, int], ...]:
    """Class and number of its pairs, as the user asks for."""
    config = checkpoint.config
    if request.class_label is not None:
        check_class_names(checkpoint, [request.class_label])
        return ((request.class_label, count),)
    if not request.balance:
        return ()
    check_class_names(checkpoint, config.facts.class_names or ["any"])
    whole, one = config.data.whole, pair_pixels(config.facts, canvas)
    real = {
        name: cases if whole else round(pixels / one)
        for name, (cases, pixels) in zip(config.facts.class_names, config.facts.class_sizes, strict=True)
    }
    return tuple((name, number) for name, number in balanced(real, count).items() if number)


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

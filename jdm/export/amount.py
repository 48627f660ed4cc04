"""The amount of an export: number of pairs by class, and their batches."""

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
"""Fields of a request that do not affect the exported bytes, or have another name in the order."""

SPARE = 5
"""Candidates that may be drawn, with a gate, for each pair that must pass it."""


@dataclass(frozen=True)
class Order:
    """A request with all defaults resolved; saved with the growing dataset, so that resuming cannot mix two exports."""

    request: ExportRequest
    name: str
    """Name of the new dataset, without its id."""
    count: int
    canvas_size: tuple[int, ...]
    way: Way
    slices: int
    """Slices of an exported volume; 1 for images. Equals the number in a typical training volume, because nnU-Net
    normalises each case by its own intensities, and a single slice has other intensities than a volume."""
    classes: tuple[tuple[str, int], ...]
    """(class, number of pairs), in the order of the case indices; empty: sampled without a class."""
    given_masks: str
    """See `masks_of`."""
    given_masks_sha256: str = ""
    """Hash of that folder's contents, so that two sets of masks are not mixed."""
    slice_by_slice: bool = False
    """Whether each slice of a volume is sampled given the one before."""
    guide_sha256: str = ""
    """Hash of the guiding checkpoint; empty: none."""
    judge_sha256: str = ""
    """Hash of the networks that judge the pairs; empty: none."""

    def to_dict(self) -> dict[str, Any]:
        """Everything that determines the exported bytes, as plain values."""
        asked = {key: value for key, value in dataclasses.asdict(self.request).items() if key not in _PLACES}
        settled = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("request", "way")}
        return {**asked, **settled, **self.way.to_dict()}

    @property
    def chooses(self) -> bool:
        """Whether more pairs are drawn than kept."""
        return self.request.gate is not None or self.request.select is not None

    @property
    def judged(self) -> bool:
        """Whether that needs networks that judge the pairs."""
        return self.request.gate is not None or self.request.select in ("hard", "easy", "diverse")

    def parts(self) -> tuple[tuple[str, int], ...]:
        """(class, number of pairs); without classes, one part."""
        return self.classes or (("", self.count),)

    def passing(self, count: int) -> int:
        """Pairs that must pass the gate for `count` to be kept."""
        return count if self.request.select is None else math.ceil(count / self.request.keep - 1e-9)

    def candidates(self, count: int) -> int:
        """Most candidates for `count` kept pairs."""
        return self.passing(count) * (1 if self.request.gate is None else SPARE)

    def class_of(self, index: int) -> str:
        """The class with which a case is sampled, by index; empty: none."""
        for name, count in self.classes:
            if index < self.candidates(count):
                return name
            index -= self.candidates(count)
        return ""

    def batches_of_parts(self) -> list[list[range]]:
        """Case indices of each batch of each part: `batch_size` images, or volumes sampled slice by slice; else as many
        volumes as fit by their slices, at least one."""
        together = 1 if self.slice_by_slice else self.slices
        cases, found, start = max(1, self.request.batch_size // together), [], 0
        for _, count in self.parts():
            end = start + self.candidates(count)
            found.append([range(first, min(first + cases, end)) for first in range(start, end, cases)])
            start = end
        return found

    def batches(self) -> list[range]:
        """The batches of all parts."""
        return [batch for part in self.batches_of_parts() for batch in part]

    def expected_batches(self) -> list[range]:
        """The batches that are made if every pair passes the gate."""
        parts = zip(self.parts(), self.batches_of_parts(), strict=True)
        return [b for (_, count), part in parts for b in part if b[0] - part[0][0] < self.passing(count)]


def order_of(checkpoint: Checkpoint, request: ExportRequest) -> Order:
    """Resolve the defaults of a request. Raises: ConfigError if it cannot be sampled."""
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
        slice_by_slice=config.data.previous_slice,
    )


def synthetic_count(config: Config, ratio: float, canvas_size: tuple[int, ...]) -> int:
    """Number of pairs that amount to `ratio` times the training set. Raises: ConfigError if that is zero."""
    count = round(ratio * real_amount(config, canvas_size))
    if count < 1:
        raise ConfigError(f"--ratio is {ratio}, which makes {count} pairs; expected at least one; enlarge it")
    return count


def real_amount(config: Config, canvas_size: tuple[int, ...]) -> float:
    """Pairs that amount to the training set, counted in cases for whole images, in pixels for patches."""
    return config.facts.cases if config.data.whole else _pixels(config.facts) / pair_pixels(config.facts, canvas_size)


def _pixels(facts: Fingerprint) -> float:
    """Pixels of all training cases."""
    return sum(math.prod(size) * slices * cases for size, slices, cases in facts.sizes)


def pair_pixels(facts: Fingerprint, canvas_size: tuple[int, ...]) -> float:
    """Mean number of pixels of an exported pair, which has the size of a real case, at most the canvas."""
    areas = [
        math.prod(min(side, most) for side, most in zip(size, canvas_size, strict=True)) * cases
        for size, _, cases in facts.sizes
    ]
    return facts.slices * sum(areas) / facts.cases


def _classes(
    checkpoint: Checkpoint, request: ExportRequest, count: int, canvas: tuple[int, ...]
) -> tuple[tuple[str, int], ...]:
    """(class, number of pairs) as requested."""
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
    """Pairs to add to each class, `count` in total, that balance the classes as far as possible.

    Each pair goes to the smallest class so far (ties: the first).
    """
    added = dict.fromkeys(real, 0)
    fewest = [(number, place, name) for place, (name, number) in enumerate(real.items())]
    heapq.heapify(fewest)
    for _ in range(count):
        number, place, name = fewest[0]
        heapq.heapreplace(fewest, (number + 1, place, name))
        added[name] += 1
    return added

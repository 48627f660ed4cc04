"""What the parts of conditionals.py share: the checkpoint with its cases, the segmenter, distances."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conditional_sheets import Tile
from segmenter import Segmenter

from jdm.config.settings import Config
from jdm.data.raw_dataset import Pair, RawDataset, read_case
from jdm.draw.canvas import CaseCanvas
from jdm.draw.drawer import Drawer
from jdm.errors import DataError
from jdm.evaluation.metrics import count
from jdm.evaluation.scores import mean_defined, overlap
from jdm.evaluation.statistics import Interval
from jdm.sample.request import SampleRequest
from jdm.sample.starts import Planes, Start, prepare
from jdm.train.checkpoint import Checkpoint

SHOWN = 4
"""Cases of a sheet, and samples of a case in it."""
PICTURE_SPACING = 999.0
"""nnU-Net takes a picture for the one slice, this thick, of a volume."""


@dataclass(frozen=True)
class Scene:
    """One checkpoint, and what it is shown and measured on."""

    checkpoint: Checkpoint
    dataset: RawDataset
    segmenter: Segmenter | None
    """None for the parts that do not ask it."""
    predictions: Path
    """Folder of the segmenter's predictions of the test cases."""
    out: Path
    request: SampleRequest
    """Sampler, steps, samples, seed and batch size of every part."""
    test_ids: tuple[str, ...]
    edit_ids: tuple[str, ...]
    """Cases that jdm-sample edits: held out in training first, then those trained on."""
    planes: int
    """Slices of a volume that are sampled; 0: all."""
    levels: tuple[float, ...]
    compare_planes: int
    device: str

    @property
    def config(self) -> Config:
        return self.checkpoint.config

    def asked(self, mode: str, **changes: Any) -> SampleRequest:
        return dataclasses.replace(self.request, mode=mode, **changes)

    def drawer(self, request: SampleRequest) -> Drawer:
        return Drawer(self.checkpoint, request, self.device)

    @functools.cached_property
    def tests(self) -> list[CaseCanvas]:
        """The test cases with their references, in the plan's spacing and on the codec's intensities."""
        return [CaseCanvas(read_case(self.dataset, case, test=True), self.config) for case in self.test_ids]

    def conditions(self, request: SampleRequest, planes: int) -> list[Start]:
        """The conditions that jdm-sample makes of the folder of test images or masks, with `planes` slices of each."""
        starts = prepare(self.checkpoint, self.dataset, request)[: len(self.test_ids)]
        if [start.case.pair.case_id for start in starts] != list(self.test_ids):
            raise DataError(
                f"{request.folder} does not begin with {self.test_ids[0]}; expected the test cases; restore"
            )
        return [thinned(s, chosen_planes(t.label, planes)) for s, t in zip(starts, self.tests, strict=True)]

    def segmented(self, images: np.ndarray) -> np.ndarray:
        """The segmenter's labels (planes, *spatial) of images (planes, channels, *spatial), normalised together."""
        data = self.config.data
        axis = data.slice_axis or 0
        spacing = list(data.spacing)
        spacing.insert(axis, PICTURE_SPACING if data.slice_axis is None else data.slice_spacing)
        assert self.segmenter is not None
        label, _ = self.segmenter(np.moveaxis(images, 0, 1 + axis).astype(np.float32), tuple(spacing))
        return np.moveaxis(label, axis, 0)

    def dice(self, label: np.ndarray, reference: np.ndarray) -> float:
        """Mean over the classes that occur in either."""
        values = range(1, self.dataset.classes)
        return mean_defined(overlap(*count(label == v, reference == v)[:3])[0] for v in values)

    def distance(self, image: np.ndarray, other: np.ndarray, channels: slice = slice(None)) -> float:
        """Root mean square difference of images (channels, *spatial) in encoded intensity, whose range is [-1, 1]."""
        return float(np.sqrt(np.mean((2 * (self.shown(image) - self.shown(other))[channels]) ** 2)))

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Intensities (channels, *spatial) of the codec's range as 0 to 1."""
        column = (slice(None), *[None] * (image.ndim - 1))
        low, high = (np.array(bound)[column] for bound in (self.config.codec.low, self.config.codec.high))
        return (image.astype(float) - low) / (high - low)

    def tile(self, image: np.ndarray, label: np.ndarray | None = None, region: np.ndarray | None = None) -> Tile:
        """A slice (channels, *spatial): colours of three channels, else the first in grey."""
        values = self.shown(image).clip(0, 1)
        return Tile(np.moveaxis(values, 0, -1) if len(values) == 3 else values[0], label, region)


def chosen_planes(label: np.ndarray, number: int) -> list[int]:
    """`number` slices spread evenly over those of label (planes, *spatial) that hold foreground; 0: all slices."""
    if number == 0:
        return list(range(len(label)))
    holding = np.flatnonzero(label.reshape(len(label), -1).any(axis=1))
    if len(holding) == 0:
        holding = np.arange(len(label))
    return sorted({int(holding[int((k + 0.5) * len(holding) / number)]) for k in range(number)})


def thinned(start: Start, numbers: Sequence[int]) -> Start:
    """A condition of fewer slices."""
    return dataclasses.replace(start, planes=[plane for plane in start.planes if plane.number in numbers])


def stacked(planes: Planes, part: int) -> np.ndarray:
    """The images (part 0) or labels (part 1) of drawn slices in order, along a new first axis."""
    return np.stack([planes[number][part] for number in sorted(planes)])


def numbers_of(start: Start) -> list[int]:
    return sorted(plane.number for plane in start.planes)


def shown_plane(start: Start, case: int) -> int:
    """The slice that is shown of a condition: of one case the first that is sampled, of the next the second."""
    numbers = numbers_of(start)
    return numbers[case % len(numbers)]


def on_planned_grid(label: np.ndarray, like: Pair, config: Config) -> np.ndarray:
    """A label of a case's own grid by slice, (planes, *spatial)."""
    return CaseCanvas(Pair(like.case_id, like.image, label, like.spacing), config).label


def interval(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}

"""Shared by the parts of conditionals.py: the run with its cases, the segmenter, distances."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import numpy as np
import tyro
from conditional_sheets import Tile
from segmenter import as_volume
from shared import interval

from jdm.config.settings import Config
from jdm.data.raw_dataset import Pair, RawDataset, read_case
from jdm.diffusion.repaint import Resampling
from jdm.draw.canvas import CaseCanvas
from jdm.draw.drawer import Drawer
from jdm.draw.run import Run
from jdm.errors import DataError
from jdm.evaluation.metrics import count
from jdm.evaluation.scores import mean_defined, overlap
from jdm.evaluation.statistics import mean_interval, paired_difference
from jdm.sample.modes import prepare
from jdm.sample.request import ImagesRequest, InpaintRequest, SampleRequest, SegmentRequest, VaryRequest, way_for
from jdm.sample.starts import Planes, Start, draw_planes
from jdm.system.processes import device_name
from nnunet_integration.segmenter import Segmenter

SHOWN = 4
"""Cases per sheet, and samples per case."""
SAMPLE_NAMES = [f"sample {k + 1}" for k in range(SHOWN)]
PartName = Literal["masks", "images", "inpaint", "vary", "interpolate", "channels", "classes", "compare"]
Drawn = list[list[Planes]]
"""By condition and sample."""
Request = TypeVar("Request", bound=SampleRequest)


@dataclass(frozen=True)
class Options:
    """Show and measure every way of conditional sampling on one checkpoint."""

    dataset: Annotated[str, tyro.conf.Positional]
    """Id or name."""
    fold: Annotated[str, tyro.conf.Positional]
    """Fold of the checkpoint."""
    experiment: str = "experiment_fold_all"
    """Finished experiment beside the checkpoint's folder, or a path: its arm real segments."""
    out: Path = Path("results/conditionals")
    parts: tuple[PartName, ...] = get_args(PartName)
    """Parts to run. Skipped if impossible: channels for images with one channel, classes for models without classes."""
    cases: int = 24
    """Test cases whose masks and images are conditions."""
    edits: int = 8
    """Training cases that are inpainted, varied and interpolated."""
    planes: int = 4
    """Slices per volume, evenly over its foreground; 0: all. The comparison of ways uses one."""
    samples: int = 4
    levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    """Noise levels of the variations."""
    steps: int | None = None
    """Sampling steps; by default, like the sampler, those of jdm-sample."""
    batch_size: int = 32
    seed: int = 0
    """Seed of sampling."""
    arm_seed: int = 0
    """Seed of the segmenter's training."""


@dataclass(frozen=True)
class Scene:
    """One run with the cases and the segmenter used to evaluate it."""

    run: Run
    dataset: RawDataset
    options: Options
    segmenter: Segmenter | None
    """None for parts that do not use it."""
    predictions: Path
    """Folder of the segmenter's predictions of the test cases."""
    resampling: Resampling = field(
        default_factory=lambda: Resampling(InpaintRequest.jump_length, InpaintRequest.repetitions)
    )

    @property
    def config(self) -> Config:
        return self.run.config

    @property
    def test_ids(self) -> tuple[str, ...]:
        return self.dataset.test_cases[: self.options.cases]

    @property
    def edit_ids(self) -> tuple[str, ...]:
        """Cases edited by jdm-sample: first held-out ones, then training cases."""
        metadata = self.run.checkpoint.metadata
        return (*metadata["held_out_ids"], *metadata["training_ids"])[: self.options.edits]

    def asked(self, kind: type[Request], **given: Any) -> Request:
        """A request of jdm-sample."""
        common = {key: getattr(self.options, key) for key in ("samples", "steps", "seed", "batch_size")}
        return kind(str(self.run.folder), **{**common, **given})

    def drawer(self, request: SampleRequest, resampling: Resampling | None = None) -> Drawer:
        way = way_for(self.config, request)
        return Drawer(self.run.checkpoint, request, way, device_name(), resampling=resampling or self.resampling)

    def drawn(self, request: SampleRequest, starts: Sequence[Start]) -> Drawn:
        drawer = self.drawer(request)
        vary = functools.partial(drawer.variations, level=getattr(request, "level", 0.0))
        return draw_planes(drawer, starts, request, vary if isinstance(request, VaryRequest) else drawer.samples)

    @functools.cached_property
    def tests(self) -> list[CaseCanvas]:
        """The test cases with their references, in the plan's spacing and on the codec's intensities."""
        return [CaseCanvas(read_case(self.dataset, case, test=True), self.config) for case in self.test_ids]

    def conditions(self, masks: bool, planes: int) -> tuple[SampleRequest, list[Start]]:
        """jdm-sample's request for the test cases' masks or images, and its conditions, with `planes` slices of each.

        Raises: DataError if the folder does not begin with the test cases.
        """
        first = self.test_ids[0]
        if masks:
            folder = self.dataset.label_file(first, test=True).parent
            request = self.asked(ImagesRequest, masks=folder)
        else:
            folder = self.dataset.image_files(first, test=True)[0].parent
            request = self.asked(SegmentRequest, images=folder)
        starts = prepare(self.run, request)[: len(self.test_ids)]
        if [start.case.pair.case_id for start in starts] != list(self.test_ids):
            raise DataError(f"{folder} does not begin with {first}; expected the test cases; restore them")
        return request, [thinned(s, chosen_planes(t.label, planes)) for s, t in zip(starts, self.tests, strict=True)]

    def segmented(self, images: np.ndarray) -> np.ndarray:
        """The segmenter's labels (planes, *spatial) of images (planes, channels, *spatial), normalised together."""
        assert self.segmenter is not None
        label, _ = self.segmenter(*as_volume(images.astype(np.float32), self.config))
        return np.moveaxis(label, self.config.data.slice_axis or 0, 0)

    def dice(self, label: np.ndarray, reference: np.ndarray) -> float:
        """Mean Dice over the classes that occur in either label."""
        values = range(1, self.dataset.classes)
        return mean_defined(overlap(*count(label == v, reference == v)[:3])[0] for v in values)

    def distance(self, image: np.ndarray, other: np.ndarray, channels: slice = slice(None)) -> float:
        """Root mean square difference of images (channels, *spatial) in encoded intensity, whose range is [-1, 1]."""
        return float(np.sqrt(np.mean((2 * (self.shown(image) - self.shown(other))[channels]) ** 2)))

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Intensities (channels, *spatial) rescaled from the codec's range to 0 to 1."""
        column = (slice(None), *[None] * (image.ndim - 1))
        low, high = (np.array(bound)[column] for bound in (self.config.facts.low, self.config.facts.high))
        return (image.astype(float) - low) / (high - low)

    def tile(self, image: np.ndarray, label: np.ndarray | None = None, region: np.ndarray | None = None) -> Tile:
        """A slice (channels, *spatial) for display: three channels as colours, else the first in grey."""
        values = self.shown(image).clip(0, 1)
        return Tile(np.moveaxis(values, 0, -1) if len(values) == 3 else values[0], label, region)

    def slice_of(self, pair: Pair, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and label of one slice of a case in the plan's spacing and on the codec's intensities."""
        canvas = CaseCanvas(pair, self.config)
        return canvas.image[number], canvas.label[number]


def chosen_planes(label: np.ndarray, number: int) -> list[int]:
    """`number` slices spread evenly over the foreground slices of label (planes, *spatial); 0: all slices."""
    if number == 0:
        return list(range(len(label)))
    holding = np.flatnonzero(label.reshape(len(label), -1).any(axis=1))
    if len(holding) == 0:
        holding = np.arange(len(label))
    return sorted({int(holding[int((k + 0.5) * len(holding) / number)]) for k in range(number)})


def thinned(start: Start, numbers: Sequence[int]) -> Start:
    """A condition restricted to some slices."""
    return dataclasses.replace(start, planes=[plane for plane in start.planes if plane.number in numbers])


def stacked(planes: Planes, part: int) -> np.ndarray:
    """The images (part 0) or labels (part 1) of drawn slices in order, along a new first axis."""
    return np.stack([planes[number][part] for number in sorted(planes)])


def numbers_of(start: Start) -> list[int]:
    return sorted(plane.number for plane in start.planes)


def shown_plane(start: Start, case: int) -> int:
    """The slice of a condition to show: the first sampled slice of the first case, the second of the next, ..."""
    numbers = numbers_of(start)
    return numbers[case % len(numbers)]


def on_planned_grid(label: np.ndarray, like: Pair, config: Config) -> np.ndarray:
    """A label on a case's own grid, by slice: (planes, *spatial)."""
    return CaseCanvas(dataclasses.replace(like, label=label), config).label


def mean(scores: Any) -> dict[str, float]:
    """Mean of scores, (cases,) or (samples, cases), with its interval over cases."""
    return interval(mean_interval(np.array(scores)))


def difference(scores: Any, others: Any) -> dict[str, float]:
    """Mean difference of scores of the same cases with its interval."""
    return interval(paired_difference(np.array(scores), np.array(others)))

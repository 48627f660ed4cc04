"""Converts conditions to the network's input, and their samples to pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jdm.data.raw_dataset import Pair, read_case
from jdm.draw.canvas import Canvas, CaseCanvas, decoded
from jdm.draw.drawer import Drawer, Job
from jdm.draw.run import Run
from jdm.draw.seeds import case_seed
from jdm.sample.request import SampleRequest

_DEFAULT_CASES = 4
Planes = dict[int, tuple[np.ndarray, np.ndarray]]
"""Image and label by plane, decoded, without padding."""


@dataclass(frozen=True)
class Plane:
    """One plane to sample: an image, or a slice of a volume."""

    number: int
    canvas: Canvas
    where: np.ndarray
    """bool, broadcastable to the canvas's x: known entries."""


@dataclass(frozen=True)
class Start:
    """A condition: a case, the planes to sample, and a function that turns their samples into a pair."""

    case: CaseCanvas
    planes: list[Plane]
    finish: Callable[[Planes], Pair]
    focus: np.ndarray | None = None
    """(*spatial) of the case: the sampled region; None: everywhere."""


def channel_start(case: CaseCanvas, known: Sequence[int], *, own_units: bool = True) -> Start:
    """All planes of a case with some model channels known.

    Args: own_units: see `CaseCanvas.native_image`.
    """
    codec, pair = case.codec, case.pair
    where = np.zeros(codec.image_channels + codec.mask_channels, dtype=bool)
    where[list(known)] = True
    kept_image, kept_mask = where[: codec.image_channels], bool(where[codec.image_channels :].all())
    column = where.reshape(-1, *[1] * (case.label.ndim - 1))

    def finish(planes: Planes) -> Pair:
        stacked = [np.stack([planes[k][part] for k in range(len(case.label))]) for part in (0, 1)]
        image = case.native_image(stacked[0], own_units)
        image[kept_image] = pair.image[kept_image]
        label = pair.label if kept_mask else case.native_label(stacked[1])
        return Pair(pair.case_id, image, label, pair.spacing, pair.geometry)

    return Start(case, [Plane(k, case.canvas(k), column) for k in range(len(case.label))], finish)


def real_cases(run: Run, cases: Sequence[str], what: str) -> list[CaseCanvas]:
    """Cases of the real dataset, by default the first held-out ones.

    Args: what: the command that needs them, for the error.
    Raises: ConfigError if the dataset is not on this machine; DataError for cases that are not in it.
    """
    dataset, metadata = run.real_for(what), run.checkpoint.metadata
    chosen = cases or (metadata["held_out_ids"] or metadata["training_ids"])[:_DEFAULT_CASES]
    return [CaseCanvas(read_case(dataset, case), run.config) for case in chosen]


def job(plane: Plane, request: SampleRequest, start: int, sample: int) -> Job:
    """The job of a plane; its seed depends only on the indices of its start, plane and sample."""
    seed = case_seed(request.seed, start, (sample << 32) + plane.number)
    return Job(plane.canvas.x, plane.where, seed, request.class_label or "", beside=plane.canvas.coordinates)


Draw = Callable[[list[Job]], list[np.ndarray]]


def draw_planes(drawer: Drawer, starts: Sequence[Start], request: SampleRequest, draw: Draw) -> list[list[Planes]]:
    """The decoded samples of each start by plane, in the plan's spacing.

    A plane's samples do not depend on the other planes, so some planes of a volume may be left out.

    Args: draw: such as `Drawer.samples`.
    """
    asked = [(s, k, plane) for s, start in enumerate(starts) for k in range(request.samples) for plane in start.planes]
    made = draw([job(plane, request, s, k) for s, k, plane in asked])
    planes: dict[tuple[int, int], Planes] = {}
    for (s, k, plane), x in zip(asked, made, strict=True):
        planes.setdefault((s, k), {})[plane.number] = decoded(drawer.config, plane.canvas, x)
    return [[planes[s, k] for k in range(request.samples)] for s in range(len(starts))]


def draw_pairs(drawer: Drawer, starts: Sequence[Start], request: SampleRequest, draw: Draw) -> list[list[Pair]]:
    """The samples of each start, as pairs on the grid of its case."""
    drawn = draw_planes(drawer, starts, request, draw)
    return [[start.finish(planes) for planes in samples] for start, samples in zip(starts, drawn, strict=True)]

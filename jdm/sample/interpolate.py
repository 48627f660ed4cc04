"""Interpolation between two pairs, or between two noise samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jdm.data.crops import coordinates, drawn_window
from jdm.data.raw_dataset import Pair
from jdm.diffusion.editing import slerp
from jdm.draw.canvas import Canvas, decoded, planned_pair
from jdm.draw.drawer import Drawer
from jdm.draw.run import Run
from jdm.draw.seeds import case_seed
from jdm.errors import DataError
from jdm.sample.request import InterpolateRequest
from jdm.sample.starts import Start, channel_start, real_cases


def prepare(run: Run, request: InterpolateRequest) -> list[Start]:
    """Read the two cases, if any are given. Raises: DataError for unknown cases or cases of different sizes."""
    if not request.between:
        return []
    starts = [channel_start(case, ()) for case in real_cases(run, request.between, "jdm-sample interpolate")]
    shapes = [start.planes[0].canvas.x.shape[1:] for start in starts]
    if len(set(shapes)) > 1:
        raise DataError(
            f"cases {' and '.join(request.between)} have sizes {' and '.join(map(str, shapes))} as sampled; expected "
            "equal sizes; choose other cases"
        )
    return starts


def interpolation(drawer: Drawer, starts: Sequence[Start], request: InterpolateRequest) -> list[Pair]:
    """Pairs sampled from noise interpolated between that of two cases, or two noise samples; of volumes, one slice."""
    config, name = drawer.config, request.class_label or ""
    if starts:
        planes = [np.count_nonzero(s.case.label.reshape(len(s.case.label), -1), axis=1).argmax() for s in starts]
        canvases = [start.planes[int(plane)].canvas for start, plane in zip(starts, planes, strict=True)]
        places = [c.coordinates for c in canvases if c.coordinates is not None]
        ends = drawer.inverted(np.stack([c.x for c in canvases]), name, np.stack(places) if places else None)
        canvas = canvases[0]
    else:
        shape = (config.image_channels + config.mask_channels, *config.data.canvas_size)
        ends = drawer.noise([case_seed(request.seed, end, 0) for end in (0, 1)], shape, name)
        place = None
        if config.data.position:
            rng = np.random.default_rng(case_seed(request.seed, 0, 0))
            place = coordinates(*drawn_window(config.facts, shape[1:], rng))
        canvas = Canvas(np.zeros(shape, np.float32), tuple(slice(side) for side in shape[1:]), place)
    way = [slerp(ends[:1], ends[1:], k / (request.points - 1)) for k in range(request.points)]
    beside = None if canvas.coordinates is None else canvas.coordinates[None]
    samples = drawer.from_noise(torch.cat(way), name, beside)
    return [planned_pair(f"interpolated_{k:02d}", *decoded(config, canvas, x), config) for k, x in enumerate(samples)]

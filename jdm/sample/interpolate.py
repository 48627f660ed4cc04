"""What lies between two pairs, or two draws of noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jdm.data.raw_dataset import Pair
from jdm.diffusion.editing import slerp
from jdm.draw.canvas import Canvas, decoded, planned_pair
from jdm.draw.drawer import Drawer
from jdm.export.pairs import case_seed
from jdm.sample.request import SampleRequest
from jdm.sample.starts import Start


def interpolation(drawer: Drawer, starts: Sequence[Start], request: SampleRequest) -> list[Pair]:
    """Pairs on the way from one noise to another, those of two cases or two draws; of volumes one slice each.

    Args: starts: the two cases, of one size; none for two draws.
    """
    config = drawer.config
    if starts:
        planes = [np.count_nonzero(s.case.label.reshape(len(s.case.label), -1), axis=1).argmax() for s in starts]
        canvases = [start.planes[int(plane)].canvas for start, plane in zip(starts, planes, strict=True)]
        ends = drawer.inverted(np.stack([canvas.x for canvas in canvases]))
        canvas = canvases[0]
    else:
        shape = (config.image_channels + config.mask_channels, *config.data.canvas_size)
        ends = drawer.noise([case_seed(request.seed, end, 0) for end in (0, 1)], shape)
        canvas = Canvas(np.zeros(shape, np.float32), tuple(slice(side) for side in shape[1:]))
    way = [slerp(ends[:1], ends[1:], k / (request.points - 1)) for k in range(request.points)]
    samples = drawer.from_noise(torch.cat(way))
    return [planned_pair(f"interpolated_{k:02d}", *decoded(config, canvas, x), config) for k, x in enumerate(samples)]

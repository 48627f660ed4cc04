"""Inpainting: resample a region of a real case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jdm.data.case_io import label_dtype
from jdm.data.raw_dataset import Pair
from jdm.draw.canvas import CaseCanvas, around, in_type, seam
from jdm.draw.given import box_inside, label_value, painted, region_of
from jdm.draw.run import Run
from jdm.errors import DataError
from jdm.sample.request import InpaintRequest
from jdm.sample.starts import Plane, Planes, Start, real_cases


def prepare(run: Run, request: InpaintRequest) -> list[Start]:
    """Read the case. Raises: ConfigError or DataError if it or the region cannot be used."""
    (case,) = real_cases(run, [request.case], "jdm-sample inpaint")
    labels = {label: value for value, label in enumerate(run.config.facts.labels)}
    value = None if request.lesion is None else label_value(labels, request.lesion, "lesion")
    if request.inside is not None:
        organ, rng = label_value(labels, request.inside, "inside"), np.random.default_rng(request.seed)
        request = replace(request, box=box_inside(case.pair.label, organ, rng), inside=None)
    return [inpainting(case, request, value)]


def inpainting(case: CaseCanvas, request: InpaintRequest, lesion: int | None) -> Start:
    """Everything is known except the region; with a lesion, the mask is known too, with the lesion painted into it."""
    pair, codec, config = case.pair, case.codec, case.config
    region = region_of(pair, request.box, request.region)
    wanted = pair.label.astype(label_dtype(config.facts.classes))
    if lesion is not None:
        wanted[painted(region, request.box, background=lesion == 0)] = lesion
    # The region and the wanted label are resampled to the planned grid like labels of the case.
    regions = CaseCanvas(Pair(pair.case_id, pair.image, region.astype(np.uint8), pair.spacing), config).label > 0
    labels = CaseCanvas(Pair(pair.case_id, pair.image, wanted, pair.spacing), config).label
    if not regions.any():
        raise DataError(
            f"case {pair.case_id}: the region is less than a pixel in the plan's spacing; expected a larger one; "
            "enlarge it"
        )
    crop = around(np.any(regions, axis=0), config.data.patch_size)
    planes = []
    for number in np.flatnonzero(regions.any(axis=tuple(range(1, regions.ndim)))).tolist():
        canvas = case.canvas(number, labels[number], crop)
        where = np.ones(canvas.x.shape, dtype=bool)
        sampled = slice(0, codec.image_channels) if lesion is not None else slice(None)
        # The padding mirrors the image, so the mirrored region must be unknown too, or it would reveal the original.
        margins = [(s.start, side - s.stop) for s, side in zip(canvas.inside, where.shape[1:], strict=True)]
        where[sampled] = ~np.pad(regions[number][crop], margins, mode="symmetric")
        planes.append(Plane(number, canvas, where))
    weight = seam(region, request.feather, config.data.slice_axis)

    def finish(sampled: Planes) -> Pair:
        images, masks = case.image.copy(), labels.copy()
        for number, (image, label) in sampled.items():
            images[number][(slice(None), *crop)] = image
            masks[number][crop] = label
        mixed = weight * case.native_image(images).astype(np.float64) + (1 - weight) * pair.image
        image = np.where(region, in_type(mixed, pair.image.dtype), pair.image)
        label = np.where(region & (weight >= 0.5), case.native_label(masks), pair.label)
        return Pair(pair.case_id, image, label, pair.spacing, pair.geometry)

    return Start(case, planes, finish, region)

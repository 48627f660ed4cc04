"""The conditions of a request, read and checked, before any network is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdm.config.samplers import check_wholly_known
from jdm.data.raw_dataset import Pair, RawDataset, read_case
from jdm.draw.canvas import Canvas, CaseCanvas, around, in_type, seam
from jdm.draw.given import given_images, given_masks, lesion_value, painted, region_of
from jdm.errors import DataError
from jdm.export.pairs import check_origin
from jdm.sample.request import SampleRequest, check_request, known_numbers
from jdm.train.checkpoint import Checkpoint

_DEFAULT_CASES = 4
Planes = dict[int, tuple[np.ndarray, np.ndarray]]
"""Image and label by plane, decoded, without padding."""


@dataclass(frozen=True)
class Plane:
    """A plane to sample."""

    number: int
    canvas: Canvas
    where: np.ndarray
    """bool, broadcastable to the canvas's x: what is known."""


@dataclass(frozen=True)
class Start:
    """A condition: a case, its planes to sample, and how a sample of them becomes a pair."""

    case: CaseCanvas
    planes: list[Plane]
    finish: Callable[[Planes], Pair]
    focus: np.ndarray | None = None
    """(*spatial) of the case: where to look for what was sampled; None: everywhere."""


def prepare(checkpoint: Checkpoint, dataset: RawDataset, request: SampleRequest) -> list[Start]:
    """Read and check the conditions of a request; "interpolate" between draws of noise has none.

    Raises: ConfigError or DataError, in one line, if it cannot be sampled.
    """
    check_origin(checkpoint, dataset)
    check_request(checkpoint.config, request)
    dtype = checkpoint.config.codec.image_dtype
    if request.mode == "given-images":
        pairs = given_images(dataset, Path(request.folder), dtype)
    elif request.mode == "given-masks":
        pairs = given_masks(dataset, Path(request.folder), dtype)
    elif request.mode == "interpolate":
        pairs = [read_case(dataset, case) for case in request.cases]
    else:
        metadata = checkpoint.metadata
        cases = request.cases or tuple((metadata["held_out_ids"] or metadata["training_ids"])[:_DEFAULT_CASES])
        pairs = [read_case(dataset, case) for case in cases]
    starts = [_start(CaseCanvas(pair, checkpoint.config), dataset, request) for pair in pairs]
    if request.mode == "interpolate":
        shapes = [start.planes[0].canvas.x.shape[1:] for start in starts]
        if len(set(shapes)) > 1:
            raise DataError(
                f"cases {' and '.join(request.cases)} have sizes {' and '.join(map(str, shapes))} as sampled; expected "
                "them equal; choose others"
            )
    return starts


def _start(case: CaseCanvas, dataset: RawDataset, request: SampleRequest) -> Start:
    """What is known of a case, and what becomes of its samples."""
    codec, pair = case.codec, case.pair
    known = np.zeros(codec.image_channels + codec.mask_channels, dtype=bool)
    if request.mode == "inpaint":
        return _inpainting(case, dataset, request)
    if request.mode == "given-images":
        known[: codec.image_channels] = True
    elif request.mode == "given-masks":
        known[codec.image_channels :] = True
    elif request.mode == "known-channels":
        numbers = known_numbers(request.channels, dataset.channel_names, codec.image_channels, codec.mask_channels)
        known[numbers] = True
        image_known = known[: codec.image_channels]
        check_wholly_known(request.sampler, bool(image_known.any() == image_known.all()))
    where = known.reshape(-1, *[1] * (case.label.ndim - 1))
    kept_image, kept_mask = known[: codec.image_channels], bool(known[codec.image_channels :].all())

    def finish(planes: Planes) -> Pair:
        stacked = [np.stack([planes[k][part] for k in range(len(case.label))]) for part in (0, 1)]
        image = case.native_image(stacked[0], own_units=request.mode != "given-masks")
        image[kept_image] = pair.image[kept_image]
        label = pair.label if kept_mask else case.native_label(stacked[1])
        return Pair(pair.case_id, image, label, pair.spacing, pair.geometry)

    return Start(case, [Plane(k, case.canvas(k), where) for k in range(len(case.label))], finish)


def _inpainting(case: CaseCanvas, dataset: RawDataset, request: SampleRequest) -> Start:
    """All known but a region; with a lesion given, the whole mask too, the lesion painted into it."""
    pair, codec, config = case.pair, case.codec, case.config
    region = region_of(pair, request.box, Path(request.region) if request.region else None)
    wanted = pair.label.copy()
    if request.lesion:
        value = lesion_value(dataset, request.lesion)
        wanted[painted(region, request.box, background=value == 0)] = value
    # The region and the wanted label go to the planned grid as labels of the case do.
    regions = CaseCanvas(Pair(pair.case_id, pair.image, region.astype(np.uint8), pair.spacing), config).label > 0
    labels = CaseCanvas(Pair(pair.case_id, pair.image, wanted, pair.spacing), config).label
    if not regions.any():
        raise DataError(
            f"case {pair.case_id}: the region vanishes in the plan's spacing; expected a larger one; enlarge it"
        )
    crop = around(np.any(regions, axis=0), config.data.patch_size)
    planes = []
    for number in np.flatnonzero(regions.any(axis=tuple(range(1, regions.ndim)))).tolist():
        canvas = case.canvas(number, labels[number], crop)
        where = np.ones(canvas.x.shape, dtype=bool)
        sampled = slice(0, codec.image_channels) if request.lesion else slice(None)
        # The padding mirrors what is inside, the region too: known there, it would show what is to be replaced.
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

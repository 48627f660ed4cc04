"""Samples with something given: images, masks, channels, all but a region, or a pair to vary or interpolate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jdm.data.raw_dataset import Pair, RawDataset
from jdm.draw.canvas import decoded
from jdm.draw.drawer import Drawer, job
from jdm.draw.guidance import check_guidance
from jdm.sample.interpolate import interpolation
from jdm.sample.output import Row, output_folder, write_pairs, write_record, write_segmentation, write_sheet
from jdm.sample.request import SampleRequest, estimates
from jdm.sample.segment import Segmentation, estimated, shares_of
from jdm.sample.starts import Planes, Start, prepare
from jdm.system.machine import jdm_version
from jdm.train.checkpoint import Checkpoint
from jdm.train.objective import memory_errors

_SHOWN = 4


def sample(
    checkpoint: Checkpoint, dataset: RawDataset, request: SampleRequest, out: Path, *,
    device: str = "cpu", overwrite: bool = False, weaker: Checkpoint | None = None,
) -> int:  # fmt: skip
    """Sample what is asked for into the folder `out`, which appears when it is whole.

    Returns: number of samples; of given images, that of the segmented cases.

    Args: weaker: a checkpoint of the same plan that guides, see `jdm.diffusion.guidance`.
    Raises: ExistsError if `out` is in the way; else as `prepare`; TrainingError if the device is too small.
    """
    starts = prepare(checkpoint, dataset, request)
    if request.mode == "given-images":
        request = replace(request, masks="estimated" if estimates(checkpoint.config, request) else "sampled")
    check_guidance(checkpoint, [request.class_label] if request.class_label else [], request.guidance, weaker)
    with output_folder(out, overwrite) as folder, memory_errors(request.batch_size, flag="--batch-size"):
        drawer = Drawer(checkpoint, request, device, weaker)
        if request.mode == "interpolate":
            pairs = interpolation(drawer, starts, request)
            write_pairs(folder, dataset, pairs)
            rows, count = [Row(pairs)], len(pairs)
        elif request.mode == "given-images":
            rows, count = _segmentations(folder, dataset, starts, _segmented(drawer, starts, request)), len(starts)
        else:
            drawn = _draw(drawer, starts, request)
            rows, count = _pairs(folder, dataset, starts, drawn), sum(map(len, drawn))
        write_sheet(folder, rows)
        write_record(folder, provenance(checkpoint, request, weaker))
    return count


def _draw(drawer: Drawer, starts: Sequence[Start], request: SampleRequest) -> list[list[Pair]]:
    """The samples of each start."""
    drawn = draw_planes(drawer, starts, request)
    return [[start.finish(planes) for planes in samples] for start, samples in zip(starts, drawn, strict=True)]


def draw_planes(
    drawer: Drawer, starts: Sequence[Start], request: SampleRequest, *, exact: bool = True
) -> list[list[Planes]]:
    """The samples of each start by plane, decoded, in the plan's spacing.

    A plane's samples do not depend on which others are drawn, so of a volume some may be left out.

    Args: exact: see `Drawer.conditional`.
    """
    asked = [(s, k, plane) for s, start in enumerate(starts) for k in range(request.samples) for plane in start.planes]
    jobs = [job(plane, request, s, k) for s, k, plane in asked]
    made = drawer.variations(jobs, request.level) if request.mode == "vary" else drawer.conditional(jobs, exact)
    planes: dict[tuple[int, int], Planes] = {}
    for (s, k, plane), x in zip(asked, made, strict=True):
        planes.setdefault((s, k), {})[plane.number] = decoded(drawer.config, plane.canvas, x)
    return [[planes[s, k] for k in range(request.samples)] for s in range(len(starts))]


def _pairs(folder: Path, dataset: RawDataset, starts: Sequence[Start], drawn: list[list[Pair]]) -> list[Row]:
    """Write the samples as pairs of a dataset; the rows of the sheet."""
    named = [
        [Pair(f"{p.case_id}_s{k}", p.image, p.label, p.spacing, p.geometry) for k, p in enumerate(pairs)]
        for pairs in drawn
    ]
    write_pairs(folder, dataset, [pair for pairs in named for pair in pairs])
    return [Row([start.case.pair, *pairs[:_SHOWN]], start.focus) for start, pairs in zip(starts, named, strict=True)]


def _segmented(drawer: Drawer, starts: Sequence[Start], request: SampleRequest) -> Iterable[Segmentation]:
    """What the model says of given images, one case at a time."""
    if request.masks == "estimated":
        return estimated(drawer, starts, request)
    drawn, classes = _draw(drawer, starts, request), drawer.config.codec.classes
    return (Segmentation(shares_of([pair.label for pair in pairs], classes), pairs) for pairs in drawn)


def _segmentations(
    folder: Path, dataset: RawDataset, starts: Sequence[Start], found: Iterable[Segmentation]
) -> list[Row]:
    """Write the most probable labels and how uncertain they are; the rows of the sheet."""
    rows = []
    for start, segmentation in zip(starts, found, strict=True):
        pair = start.case.pair
        label, uncertainty = segmentation.most_probable()
        segmented = Pair(pair.case_id, pair.image, label, pair.spacing, pair.geometry)
        write_segmentation(folder, dataset, segmented, uncertainty)
        map_pair = Pair(pair.case_id, uncertainty[None], segmented.label, pair.spacing)
        rows.append(Row([segmented, map_pair, *segmentation.samples[:_SHOWN]]))
    return rows


def provenance(checkpoint: Checkpoint, request: SampleRequest, weaker: Checkpoint | None) -> dict[str, Any]:
    """What a record says of where samples come from."""
    generator = {key: checkpoint.metadata[key] for key in ("dataset", "fold", "training_ids", "held_out_ids", "step")}
    return {
        "jdm_version": jdm_version(),
        "generator": {**generator, "checkpoint_sha256": checkpoint.sha256},
        "guide_sha256": None if weaker is None else weaker.sha256,
        **asdict(request),
    }

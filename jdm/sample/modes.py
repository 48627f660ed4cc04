"""Runs the modes of jdm-sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jdm.config.settings import Config
from jdm.data.raw_dataset import Pair
from jdm.diffusion.repaint import Resampling
from jdm.draw.cost import call_seconds, estimate_line, evaluations, network_calls
from jdm.draw.drawer import Drawer
from jdm.draw.guidance import check_guidance
from jdm.draw.run import Run, open_run, origin
from jdm.sample import channels, classify, images, inpaint, interpolate, segment, vary
from jdm.sample.likelihood import measure_bits
from jdm.sample.output import (
    Row,
    check_target,
    output_folder,
    write_pairs,
    write_probabilities,
    write_record,
    write_segmentation,
    write_sheet,
)
from jdm.sample.request import (
    ChannelsRequest,
    ClassifyRequest,
    ImagesRequest,
    InpaintRequest,
    InterpolateRequest,
    LikelihoodRequest,
    SampleRequest,
    SegmentRequest,
    VaryRequest,
    check_request,
    described,
    estimates,
    mode_of,
    way_for,
)
from jdm.sample.starts import Start, draw_pairs
from jdm.system.parallel import on_all_cores
from jdm.train.checkpoint import Checkpoint, load_checkpoint
from jdm.train.objective import memory_errors

_SHOWN = 4
_MADE = {SegmentRequest: "segmented cases", ClassifyRequest: "classified images"}


@dataclass(frozen=True)
class Sampled:
    """Result of `sample`."""

    folder: Path
    count: int
    """Number of samples, segmented cases or measured crops."""
    summary: str
    """One line to print."""


def sample(request: SampleRequest, device: str = "cpu") -> Sampled:
    """Run a request and write its folder, which appears only when complete.

    Raises: ExistsError if the folder exists; ConfigError or DataError if the request cannot be sampled; TrainingError
        if the device runs out of memory.
    """
    run, out, weaker = _checked(request)
    if isinstance(request, LikelihoodRequest):
        count, summary = measure_bits(run, request, out, device)
        return Sampled(out, count, summary)
    starts = prepare(run, request)
    with output_folder(out, request.overwrite) as folder, memory_errors(request.batch_size, flag="--batch-size"):
        drawer = _drawer(run, request, device, weaker)
        rows, count = _written(folder, run, drawer, starts, request)
        write_sheet(folder, rows)
        write_record(folder, {**origin(run.checkpoint, weaker), **described(run.config, request)})
    made = _MADE.get(type(request), "samples")
    return Sampled(out, count, f"{count} {made} in {out}; {out / 'sheet.png'} shows the first")


def plan_line(request: SampleRequest, device: str = "cpu") -> str:
    """What would be sampled and the estimated time, in one line; writes nothing. Raises: as `sample`."""
    run, out, weaker = _checked(request)
    mode = mode_of(request)
    if isinstance(request, LikelihoodRequest):
        return f"{mode}: {request.samples} crops per case, {request.probes} probes; into {out}"
    starts = prepare(run, request)
    shapes = [plane.canvas.x.shape[1:] for start in starts for plane in start.planes] * request.samples
    if isinstance(request, InterpolateRequest):
        shapes = [(shapes or [run.config.data.canvas_size])[0]] * request.points
    way = way_for(run.config, request)
    how = f"with {way.sampler}, {way.steps} steps"
    if estimates(run.config, request):
        how = "with estimated masks"
    elif isinstance(request, ClassifyRequest):
        how = f"at {request.levels} noise levels"
    seconds = _seconds(run, request, _drawer(run, request, device, weaker), shapes, device)
    return f"{mode}: {len(shapes)} samples of {len(starts)} cases {how}; {estimate_line(seconds)}; into {out}"


def prepare(run: Run, request: SampleRequest) -> list[Start]:
    """Read and check the conditions of a request. Raises: ConfigError or DataError if they cannot be used."""
    match request:
        case SegmentRequest():
            return segment.prepare(run, request)
        case ImagesRequest():
            return images.prepare(run, request)
        case InpaintRequest():
            return inpaint.prepare(run, request)
        case ChannelsRequest():
            return channels.prepare(run, request)
        case VaryRequest():
            return vary.prepare(run, request)
        case InterpolateRequest():
            return interpolate.prepare(run, request)
        case ClassifyRequest():
            return classify.prepare(run, request)
    raise TypeError(f"no mode has the request {type(request).__name__}")


def _checked(request: SampleRequest) -> tuple[Run, Path, Checkpoint | None]:
    """The run, the output folder, and the guiding model. Raises: as `sample`."""
    run = open_run(request.dataset, request.fold)
    check_request(run.config, request, way_for(run.config, request))
    out = request.out or run.folder / "sampled" / mode_of(request)
    check_target(out, request.overwrite)
    weaker = None if request.guide is None else load_checkpoint(request.guide)
    classes = [request.class_label] if request.class_label else []
    check_guidance(run.checkpoint, classes, request.guidance, weaker)
    return run, out, weaker


def _drawer(run: Run, request: SampleRequest, device: str, weaker: Checkpoint | None) -> Drawer:
    way = way_for(run.config, request)
    return Drawer(run.checkpoint, request, way, device, weaker=weaker, resampling=_resampling(run.config, request))


def _resampling(config: Config, request: SampleRequest) -> Resampling | None:
    """RePaint settings if known entries are kept by replacement, else None."""
    if isinstance(request, InpaintRequest | ChannelsRequest):
        return Resampling(request.jump_length, request.repetitions)
    if config.preset == "thesis" and isinstance(request, SegmentRequest | ImagesRequest):
        return Resampling(InpaintRequest.jump_length, InpaintRequest.repetitions)
    return None


def _written(
    folder: Path, run: Run, drawer: Drawer, starts: Sequence[Start], request: SampleRequest
) -> tuple[list[Row], int]:
    """Sample and write files. Returns: the rows of the sheet, and the number of samples."""
    match request:
        case SegmentRequest():
            return _segmentations(folder, run, drawer, starts, request), len(starts)
        case ClassifyRequest():
            found = classify.errors(drawer, starts, request)
            classify.write_classes(folder, starts, found, run.config.facts.class_names)
            return [Row([start.case.pair]) for start in starts], len(starts)
        case InterpolateRequest():
            pairs = interpolate.interpolation(drawer, starts, request)
            write_pairs(folder, run.kind, pairs)
            return [Row(pairs)], len(pairs)
        case VaryRequest():
            drawn = draw_pairs(drawer, starts, request, lambda jobs: drawer.variations(jobs, request.level))
        case _:
            drawn = draw_pairs(drawer, starts, request, drawer.samples)
    named = [
        [Pair(f"{p.case_id}_s{k}", p.image, p.label, p.spacing, p.geometry) for k, p in enumerate(pairs)]
        for pairs in drawn
    ]
    write_pairs(folder, run.kind, [pair for pairs in named for pair in pairs])
    rows = [Row([start.case.pair, *pairs[:_SHOWN]], start.focus) for start, pairs in zip(starts, named, strict=True)]
    return rows, sum(map(len, drawn))


def _segmentations(
    folder: Path, run: Run, drawer: Drawer, starts: Sequence[Start], request: SegmentRequest
) -> list[Row]:
    """Write the most probable labels and their uncertainty. Returns: the rows of the sheet."""
    rows = []
    for start, found in zip(starts, segment.segmentations(drawer, starts, request), strict=True):
        pair = start.case.pair
        label, uncertainty = found.most_probable()
        segmented = Pair(pair.case_id, pair.image, label, pair.spacing, pair.geometry)
        write_segmentation(folder, run.kind, segmented, uncertainty)
        if request.save_probabilities:
            write_probabilities(folder, pair.case_id, found.shares)
        map_pair = Pair(pair.case_id, uncertainty[None], segmented.label, pair.spacing)
        rows.append(Row([segmented, map_pair, *found.samples[:_SHOWN]]))
    return rows


def _seconds(run: Run, request: SampleRequest, drawer: Drawer, shapes: Sequence[tuple[int, ...]], device: str) -> float:
    """Estimated wall-clock seconds to sample canvases of these shapes on this machine, from a timed call."""
    config, way = run.config, way_for(run.config, request)
    if isinstance(request, ClassifyRequest):
        each = request.levels * len(config.facts.class_names)
    elif estimates(config, request):
        each = 1
    else:
        inverting = 2 * way.steps if isinstance(request, InterpolateRequest) else 0
        each = evaluations(config, request, way, _resampling(config, request)) + inverting
    canvases = [(shapes.count(shape), shape) for shape in dict.fromkeys(shapes)]
    calls = network_calls(config, request, canvases)
    return each * calls * call_seconds(on_all_cores(drawer.denoiser), config, request.batch_size, device)

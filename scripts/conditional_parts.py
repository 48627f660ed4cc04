"""The parts of conditionals.py on whole conditions: masks to images, images to masks, and the ways to honour both."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditional_scene import SHOWN, Scene, interval, numbers_of, on_planned_grid, shown_plane, stacked
from conditional_sheets import Line, Tile, write_sheet

from jdm.data.image_io import read_raster
from jdm.diffusion.vp import VPDenoiser
from jdm.draw.drawer import Drawer
from jdm.evaluation.scores import mean_defined
from jdm.evaluation.statistics import mean_interval, paired_difference
from jdm.sample.modes import draw_planes
from jdm.sample.request import SampleRequest, estimates
from jdm.sample.segment import Segmentation, estimated_shares, shares_of
from jdm.sample.starts import Planes, Start

SAMPLE_NAMES = [f"sample {k + 1}" for k in range(SHOWN)]
Drawn = list[list[Planes]]
"""By condition and sample."""


def masks_to_images(scene: Scene) -> dict[str, Any]:
    """Images of the test cases' masks: does a segmenter of real images find the given masks in them?"""
    request = scene.asked("given-masks", folder=str(_folder(scene, labels=True)))
    starts = scene.conditions(request, scene.planes)
    drawn = draw_planes(scene.drawer(request), starts, request)
    changed = 0
    lines = []
    for case, (test, start, samples) in enumerate(zip(scene.tests, starts, drawn, strict=True)):
        given = test.label[numbers_of(start)]
        changed += sum(int(np.count_nonzero(stacked(planes, 1) != given)) for planes in samples)
        shown = shown_plane(start, case)
        real = scene.tile(test.image[shown], test.label[shown])
        tiles = [scene.tile(planes[shown][0], test.label[shown]) for planes in samples[:SHOWN]]
        lines.append(Line(test.pair.case_id, [real, *tiles]))
    write_sheet(
        scene.out / "masks_to_images.png",
        "mask to image: the given mask on the real image and on samples of images for it",
        ["real", *SAMPLE_NAMES],
        lines[:SHOWN],
    )
    return {**_mask_agreement(scene, starts, drawn), "mask_pixels_changed": changed}


def images_to_masks(scene: Scene) -> dict[str, Any]:
    """Masks of the test cases' images beside nnU-Net's own predictions, against references.

    "jdm" is what jdm-sample gives by default: estimated masks, or those of the samples where there are none.
    """
    request = scene.asked("given-images", folder=str(_folder(scene, labels=False)))
    starts = scene.conditions(request, scene.planes)
    drawn = draw_planes(scene.drawer(request), starts, request)
    segmentations = _by_default(scene, starts, request, drawn)
    host, jdm, right, wrong, lines = [], [], [], [], []
    for case, (test, start, samples) in enumerate(zip(scene.tests, starts, drawn, strict=True)):
        numbers = numbers_of(start)
        file = scene.predictions / f"{test.pair.case_id}{scene.dataset.file_ending}"
        predicted = on_planned_grid(read_raster(file, label=True).array[0], test.pair, scene.config)
        reference = test.label[numbers]
        host.append(scene.dice(predicted[numbers], reference))
        label, uncertainty = segmentations[case].most_probable()
        jdm.append(scene.dice(label, reference))
        right.append(float(uncertainty[label == reference].mean()))
        wrong.append(float(uncertainty[label != reference].mean()) if (label != reference).any() else np.nan)
        shown = shown_plane(start, case)
        image, at = test.image[shown], numbers.index(shown)
        tiles = [scene.tile(image, mask) for mask in (test.label[shown], predicted[shown], label[at])]
        tiles.append(Tile(uncertainty[at], map=True))
        lines.append(Line(test.pair.case_id, [*tiles, *(scene.tile(image, p[shown][1]) for p in samples[:SHOWN])]))
    write_sheet(
        scene.out / "images_to_masks.png",
        "image to mask: reference, nnU-Net, the most probable labels, the entropy of their probabilities, and samples",
        ["reference", "nnU-Net", "jdm", "entropy, 0 to 1", *SAMPLE_NAMES],
        lines[:SHOWN],
        plain=False,
    )
    found = _reference_agreement(scene, starts, drawn)
    return {
        **{name: interval(mean_interval(np.array(values))) for name, values in found.items()},
        "jdm": interval(mean_interval(np.array(jdm))),
        "nnunet": interval(mean_interval(np.array(host))),
        "jdm_minus_nnunet": interval(paired_difference(np.array(jdm), np.array(host))),
        "estimated": estimates(scene.config, request),
        "entropy_where_right": mean_defined(right),
        "entropy_where_wrong": mean_defined(wrong),
    }


def comparison(scene: Scene) -> dict[str, Any]:
    """Exact conditioning, replacement and RePaint on the same network: agreement and cost, both ways."""
    ways = {"exact": (True, 1), "replacement": (False, 1), "RePaint": (False, scene.request.repetitions)}
    if isinstance(scene.checkpoint.denoiser(), VPDenoiser):
        del ways["exact"]  # its network has one level for image and mask
    rows, lines = [], []
    for mode in ("given-masks", "given-images"):
        base = scene.asked(mode, folder=str(_folder(scene, labels=mode == "given-masks")))
        starts = scene.conditions(base, scene.compare_planes)
        for name, (exact, repetitions) in ways.items():
            request = scene.asked(mode, folder=base.folder, repetitions=repetitions)
            drawn, cost = _timed(scene.drawer(request), starts, request, exact)
            if mode == "given-masks":
                agreement = _mask_agreement(scene, starts, drawn)
                scores = {"dice": agreement["samples"], "ceiling": agreement["ceiling"]}
                lines.append((name, drawn))
            else:
                found = _reference_agreement(scene, starts, drawn)
                scores = {"dice": interval(mean_interval(np.array(found["majority"])))}
                scores["single_sample"] = interval(mean_interval(np.array(found["single_sample"])))
            rows.append({"condition": mode, "way": name, **scores, **cost})
    _comparison_sheet(scene, lines)
    return {"planes": scene.compare_planes, "rows": rows}


def _comparison_sheet(scene: Scene, ways: list[tuple[str, Drawn]]) -> None:
    """Images of the first cases' masks, a row for each way."""
    shown = []
    for case, test in enumerate(scene.tests[:2]):
        for name, drawn in ways:
            number = sorted(drawn[case][0])[0]
            real = scene.tile(test.image[number], test.label[number])
            tiles = [scene.tile(planes[number][0], test.label[number]) for planes in drawn[case][:SHOWN]]
            shown.append(Line(f"{test.pair.case_id}\n{name}", [real, *tiles]))
    write_sheet(
        scene.out / "comparison.png",
        "mask to image, the mask honoured in three ways by the same network",
        ["real", *SAMPLE_NAMES],
        shown,
    )


def _timed(drawer: Drawer, starts: list[Start], request: SampleRequest, exact: bool) -> tuple[Drawn, dict[str, float]]:
    """The samples, and what a slice of one took: samples put through the network, and seconds of CPU time."""
    passed: list[int] = []

    def counting(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        passed.append(len(arguments[0]))

    hook = drawer.denoiser.register_forward_pre_hook(counting)
    begin, cpu = time.perf_counter(), time.process_time()
    drawn = draw_planes(drawer, starts, request, exact=exact)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    hook.remove()
    slices = request.samples * sum(len(start.planes) for start in starts)
    return drawn, {"evaluations": sum(passed) / slices, "cpu_seconds": cpu / slices, "seconds": wall / slices}


def _mask_agreement(scene: Scene, starts: list[Start], drawn: Drawn) -> dict[str, Any]:
    """Dice of the segmenter on sampled images, and on the real ones, against the given masks."""
    on_samples = np.empty((scene.request.samples, len(starts)))
    on_real = np.empty(len(starts))
    for s, (test, start) in enumerate(zip(scene.tests, starts, strict=True)):
        numbers = numbers_of(start)
        given = test.label[numbers]
        on_real[s] = scene.dice(scene.segmented(test.image[numbers]), given)
        for k, planes in enumerate(drawn[s]):
            on_samples[k, s] = scene.dice(scene.segmented(stacked(planes, 0)), given)
    return {
        "samples": interval(mean_interval(on_samples)),
        "ceiling": interval(mean_interval(on_real)),
        "samples_minus_ceiling": interval(paired_difference(on_samples, on_real)),
    }


def _reference_agreement(scene: Scene, starts: list[Start], drawn: Drawn) -> dict[str, list[float]]:
    """Dice by case of the samples' majority, and the mean of single samples', against the references."""
    most, single = [], []
    for test, start, samples in zip(scene.tests, starts, drawn, strict=True):
        reference = test.label[numbers_of(start)]
        labels = [stacked(planes, 1) for planes in samples]
        label, _ = Segmentation(shares_of(labels, scene.dataset.classes)).most_probable()
        most.append(scene.dice(label, reference))
        single.append(float(np.mean([scene.dice(label, reference) for label in labels])))
    return {"majority": most, "single_sample": single}


def _by_default(scene: Scene, starts: list[Start], request: SampleRequest, drawn: Drawn) -> list[Segmentation]:
    """What jdm-sample makes of the images by default, in the plan's spacing."""
    if not estimates(scene.config, request):
        labels = [[stacked(planes, 1) for planes in samples] for samples in drawn]
        return [Segmentation(shares_of(some, scene.dataset.classes)) for some in labels]
    shares = estimated_shares(scene.drawer(request), starts, request)
    return [Segmentation(np.stack([planes[k] for k in sorted(planes)], axis=1)) for planes in shares]


def _folder(scene: Scene, labels: bool) -> Path:
    """Where the test cases' labels or images lie."""
    first = scene.test_ids[0]
    file = scene.dataset.label_file(first, True) if labels else scene.dataset.image_files(first, True)[0]
    return file.parent

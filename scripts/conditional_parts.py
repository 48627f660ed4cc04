"""Parts of conditionals.py with whole conditions: masks to images, images to masks, and a comparison of methods."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
from conditional_scene import (
    SAMPLE_NAMES,
    SHOWN,
    Drawn,
    Scene,
    difference,
    mean,
    numbers_of,
    on_planned_grid,
    shown_plane,
    stacked,
)
from conditional_sheets import Line, Tile, write_sheet
from shared import counted

from jdm.data.image_io import read_raster
from jdm.diffusion.repaint import Resampling
from jdm.draw.drawer import Drawer
from jdm.evaluation.scores import mean_defined
from jdm.sample.request import SampleRequest, estimates
from jdm.sample.segment import Segmentation, estimated_shares, shares_of
from jdm.sample.starts import Planes, Start, draw_planes

COMPARED_PLANES = 1
"""Slices per volume in the comparison of conditioning methods."""


def masks_to_images(scene: Scene) -> dict[str, Any]:
    """Sample images for the test cases' masks; measure whether a segmenter of real images finds these masks."""
    request, starts = scene.conditions(True, scene.options.planes)
    drawn = scene.drawn(request, starts)
    changed = 0
    lines = []
    for case, (test, start, samples) in enumerate(zip(scene.tests, starts, drawn, strict=True)):
        given = test.label[numbers_of(start)]
        changed += sum(int(np.count_nonzero(stacked(planes, 1) != given)) for planes in samples)
        shown = shown_plane(start, case)
        images = [test.image[shown], *(planes[shown][0] for planes in samples[:SHOWN])]
        lines.append(Line(test.pair.case_id, [scene.tile(image, test.label[shown]) for image in images]))
    title = "mask to image: the given mask on the real image and on samples of images for it"
    write_sheet(scene.options.out / "masks_to_images.png", title, ["real", *SAMPLE_NAMES], lines[:SHOWN])
    return {**_mask_agreement(scene, starts, drawn), "mask_pixels_changed": changed}


def images_to_masks(scene: Scene) -> dict[str, Any]:
    """Segment the test cases' images; compare with references, and with nnU-Net's predictions.

    "jdm" is jdm-sample's default: estimated masks, or masks of the samples if they cannot be estimated.
    """
    request, starts = scene.conditions(False, scene.options.planes)
    drawn = scene.drawn(request, starts)
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
        scene.options.out / "images_to_masks.png",
        "image to mask: reference, nnU-Net, the most probable labels, the entropy of their probabilities, and samples",
        ["reference", "nnU-Net", "jdm", "entropy, 0 to 1", *SAMPLE_NAMES],
        lines[:SHOWN],
        plain=False,
    )
    return {
        **_reference_agreement(scene, starts, drawn),
        "jdm": mean(jdm),
        "nnunet": mean(host),
        "jdm_minus_nnunet": difference(jdm, host),
        "estimated": estimates(scene.config, request),
        "entropy_where_right": mean_defined(right),
        "entropy_where_wrong": mean_defined(wrong),
    }


def comparison(scene: Scene) -> dict[str, Any]:
    """Exact conditioning, replacement and RePaint on the same network: agreement and cost, both ways."""
    once = Resampling(1, 1)
    ways = {"exact": (True, once), "replacement": (False, once), "RePaint": (False, scene.resampling)}
    if scene.config.preset == "thesis":
        del ways["exact"]  # this network has one level for image and mask
    rows, sheet = [], []
    for condition, masks in (("given-masks", True), ("given-images", False)):
        request, starts = scene.conditions(masks, COMPARED_PLANES)
        for name, (exact, resampling) in ways.items():
            drawn, cost = _timed(scene.drawer(request, resampling), starts, request, exact)
            if masks:
                agreement = _mask_agreement(scene, starts, drawn)
                scores = {"dice": agreement["samples"], "ceiling": agreement["ceiling"]}
                sheet.append((name, drawn))
            else:
                agreement = _reference_agreement(scene, starts, drawn)
                scores = {"dice": agreement["majority"], "single_sample": agreement["single_sample"]}
            rows.append({"condition": condition, "way": name, **scores, **cost})
    _comparison_sheet(scene, sheet)
    return {"planes": COMPARED_PLANES, "rows": rows}


def _comparison_sheet(scene: Scene, ways: list[tuple[str, Drawn]]) -> None:
    """Images for the first cases' masks, one row per method."""
    lines = []
    for case, test in enumerate(scene.tests[:2]):
        for name, drawn in ways:
            number = min(drawn[case][0])
            images = [test.image[number], *(planes[number][0] for planes in drawn[case][:SHOWN])]
            tiles = [scene.tile(image, test.label[number]) for image in images]
            lines.append(Line(f"{test.pair.case_id}\n{name}", tiles))
    title = "mask to image, conditioned in three ways with the same network"
    write_sheet(scene.options.out / "comparison.png", title, ["real", *SAMPLE_NAMES], lines)


def _timed(drawer: Drawer, starts: list[Start], request: SampleRequest, exact: bool) -> tuple[Drawn, dict[str, float]]:
    """The samples, and the cost per slice of a sample: network evaluations and seconds of CPU time."""
    calls = counted(drawer.denoiser)
    begin, cpu = time.perf_counter(), time.process_time()
    drawn = draw_planes(drawer, starts, request, functools.partial(drawer.samples, exact=exact))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    slices = request.samples * sum(len(start.planes) for start in starts)
    return drawn, {"evaluations": sum(calls) / slices, "cpu_seconds": cpu / slices, "seconds": wall / slices}


def _mask_agreement(scene: Scene, starts: list[Start], drawn: Drawn) -> dict[str, Any]:
    """Dice of the segmenter on sampled images, and on the real ones, against the given masks."""
    on_samples = np.empty((scene.options.samples, len(starts)))
    on_real = np.empty(len(starts))
    for s, (test, start) in enumerate(zip(scene.tests, starts, strict=True)):
        numbers = numbers_of(start)
        given = test.label[numbers]
        on_real[s] = scene.dice(scene.segmented(test.image[numbers]), given)
        for k, planes in enumerate(drawn[s]):
            on_samples[k, s] = scene.dice(scene.segmented(stacked(planes, 0)), given)
    return {
        "samples": mean(on_samples),
        "ceiling": mean(on_real),
        "samples_minus_ceiling": difference(on_samples, on_real),
    }


def _reference_agreement(scene: Scene, starts: list[Start], drawn: Drawn) -> dict[str, Any]:
    """Dice by case against the references: of the samples' majority, and mean of single samples."""
    most, single = [], []
    for test, start, samples in zip(scene.tests, starts, drawn, strict=True):
        reference = test.label[numbers_of(start)]
        label, _ = _majority(scene, samples).most_probable()
        most.append(scene.dice(label, reference))
        single.append(float(np.mean([scene.dice(stacked(planes, 1), reference) for planes in samples])))
    return {"majority": mean(most), "single_sample": mean(single)}


def _majority(scene: Scene, samples: list[Planes]) -> Segmentation:
    return Segmentation(shares_of([stacked(planes, 1) for planes in samples], scene.dataset.classes))


def _by_default(scene: Scene, starts: list[Start], request: SampleRequest, drawn: Drawn) -> list[Segmentation]:
    """What jdm-sample makes of the images by default, in the plan's spacing."""
    if not estimates(scene.config, request):
        return [_majority(scene, samples) for samples in drawn]
    shares = estimated_shares(scene.drawer(request), starts, request)
    return [Segmentation(np.stack([planes[k] for k in sorted(planes)], axis=1)) for planes in shares]

"""The parts of conditionals.py that start from real pairs: inpainting, variations, interpolation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conditional_scene import SAMPLE_NAMES, SHOWN, Scene, chosen_planes, mean, on_planned_grid, thinned
from conditional_sheets import Line, write_sheet

from jdm.data.raw_dataset import Pair, read_case, read_dataset
from jdm.draw.canvas import CaseCanvas
from jdm.draw.given import region_of
from jdm.evaluation.scores import mean_defined
from jdm.sample.interpolate import interpolation
from jdm.sample.modes import prepare, sample
from jdm.sample.request import InpaintRequest, InterpolateRequest, VaryRequest, way_for
from jdm.system.processes import device_name

_MARGIN = 2
"""Margin in pixels around the foreground that is also inpainted."""
Slice = tuple[np.ndarray, np.ndarray]
"""Image (channels, *spatial) and label (*spatial) in the plan's spacing, on the codec's intensities."""


def inpainting(scene: Scene) -> dict[str, Any]:
    """Inpaint the foreground's box of one slice, and inpaint it with an empty mask, with jdm-sample's files."""
    measured: dict[str, list[dict[str, float]]] = {"real": [], "anew": [], "removed": []}
    outside = {"image": 0, "label": 0}
    lines = []
    for case in scene.edit_ids:
        pair = read_case(scene.dataset, case)
        box, number = box_of(pair, scene.config.data.slice_axis)
        region = region_of(pair, box, None)
        before = scene.slice_of(pair, number)
        inside = on_planned_grid(region.astype(np.uint8), pair, scene.config)[number] > 0
        measured["real"].append(_inside(scene, before, before, inside))
        for name, lesion in (("anew", None), ("removed", "background")):
            made = _inpainted(scene, case, box, lesion)
            for after in made:
                outside["image"] += int(np.count_nonzero((after.image != pair.image)[:, ~region]))
                outside["label"] += int(np.count_nonzero((after.label != pair.label)[~region]))
            slices = [scene.slice_of(after, number) for after in made]
            measured[name] += [_inside(scene, after, before, inside) for after in slices]
            tiles = [scene.tile(*shown, inside) for shown in (before, *slices[:SHOWN])]
            lines.append(Line(f"{case}\n{name}", tiles))
    title = "inpainting of the dotted box: image and mask resampled, and the image with an empty mask"
    write_sheet(scene.options.out / "inpainting.png", title, ["real", *SAMPLE_NAMES], lines[:SHOWN])
    means = {
        f"{name}_{key}": mean_defined(values[key] for values in found)
        for name, found in measured.items()
        for key in found[0]
    }
    return {"cases": len(scene.edit_ids), "pixels_changed_outside": outside, **means}


def variations(scene: Scene) -> dict[str, Any]:
    """Variations at several noise levels: distance from the original, and agreement of image and mask."""
    levels = scene.options.levels
    requests = [scene.asked(VaryRequest, cases=scene.edit_ids, level=level) for level in levels]
    starts = prepare(scene.run, requests[0])
    numbers = [chosen_planes(start.case.label, 1)[0] for start in starts]
    starts = [thinned(start, [number]) for start, number in zip(starts, numbers, strict=True)]
    originals = [(start.case.image[n], start.case.label[n]) for start, n in zip(starts, numbers, strict=True)]
    distances, masks, agreements = np.empty((3, len(levels), scene.options.samples, len(starts)))
    lines = [[scene.tile(*original)] for original in originals[:SHOWN]]
    for v, request in enumerate(requests):
        for s, samples in enumerate(scene.drawn(request, starts)):
            for k, planes in enumerate(samples):
                image, label = planes[numbers[s]]
                distances[v, k, s] = scene.distance(image, originals[s][0])
                masks[v, k, s] = scene.dice(label, originals[s][1])
                agreements[v, k, s] = scene.dice(scene.segmented(image[None])[0], label)
            if s < SHOWN:
                lines[s].append(scene.tile(*samples[0][numbers[s]]))
    write_sheet(
        scene.options.out / "variations.png",
        "variations: a real pair noised to a level and denoised, one sample of each level",
        ["real", *[f"level {level:g}" for level in levels]],
        [Line(case, tiles) for case, tiles in zip(scene.edit_ids, lines, strict=False)],
    )
    rising = (np.diff(distances, axis=0) > 0).all(axis=0)
    way = way_for(scene.config, requests[0])
    return {
        "sampler": way.sampler,
        "steps": way.steps,
        "cases": len(starts),
        "rows": [
            {
                "level": level,
                "distance": mean(distances[v]),
                "mask_dice_to_original": mean(masks[v]),
                "segmenter_dice": mean(agreements[v]),
            }
            for v, level in enumerate(levels)
        ],
        "segmenter_dice_real": mean([scene.dice(scene.segmented(i[None])[0], label) for i, label in originals]),
        "monotone": int(rising.sum()),
        "of": rising.size,
        "monotone_mean": bool((np.diff(distances.mean(axis=(1, 2))) > 0).all()),
    }


def interpolations(scene: Scene) -> dict[str, Any]:
    """Interpolations between two real pairs and between two noise samples: distance from both ends."""
    couples, seed = _couples(scene), scene.options.seed
    strips = {
        "pairs": [_strip(scene, couple, seed) for couple in couples],
        "noise": [_strip(scene, (), seed + k) for k in range(max(2, len(couples)))],
    }
    ends = [[_fullest(scene, case) for case in couple] for couple in couples]
    lines = [
        Line(" to\n".join(couple), [scene.tile(*shown) for shown in (first, *strip, last)])
        for couple, (first, last), strip in zip(couples[:2], ends, strips["pairs"], strict=False)
    ]
    white = scene.tile(np.full_like(strips["noise"][0][0][0], scene.config.facts.high[0]))
    lines += [
        Line(f"two noises, {k + 1}", [white, *(scene.tile(*shown) for shown in strip)])
        for k, strip in enumerate(strips["noise"][:2])
    ]
    points = len(strips["noise"][0])
    write_sheet(
        scene.options.out / "interpolation.png",
        "interpolation between two inverted pairs, real ones at both ends, and between two noises",
        ["real", *[f"{k / (points - 1):.2f}" for k in range(points)], "real"],
        lines,
    )
    way = way_for(scene.config, scene.asked(InterpolateRequest))
    back = [scene.distance(strip[0][0], first[0]) for strip, (first, _) in zip(strips["pairs"], ends, strict=True)]
    across = [scene.distance(strip[0][0], strip[-1][0]) for strip in strips["pairs"]]
    return {
        "back_from_inversion": float(np.mean(back)) if back else None,
        "between_the_real_ends": float(np.mean(across)) if across else None,
        "sampler": way.sampler,
        "steps": way.steps,
        **{name: _along(scene, some) for name, some in strips.items() if some},
    }


def _along(scene: Scene, strips: Sequence[Sequence[Slice]]) -> dict[str, Any]:
    """Mean distance from the first end at every point, and the number of strips in which it always increases."""
    table = np.array([[scene.distance(image, strip[0][0]) for image, _ in strip] for strip in strips])
    return {
        "strips": len(strips),
        "distance": table.mean(axis=0).tolist(),
        "monotone": int((np.diff(table, axis=1) > 0).all(axis=1).sum()),
        "monotone_mean": bool((np.diff(table.mean(axis=0)) > 0).all()),
    }


def _strip(scene: Scene, couple: tuple[str, ...], seed: int) -> list[Slice]:
    """The points between two cases, or between two noise samples of a seed."""
    request = scene.asked(InterpolateRequest, between=couple, seed=seed)
    pairs = interpolation(scene.drawer(request), prepare(scene.run, request), request)
    axis = scene.config.data.slice_axis
    if axis is None:
        return [(pair.image, pair.label) for pair in pairs]
    return [(pair.image.take(0, axis + 1), pair.label.take(0, axis)) for pair in pairs]


def _couples(scene: Scene) -> list[tuple[str, str]]:
    """Consecutive pairs of cases that have the same size as sampled."""
    waiting: dict[tuple[int, ...], str] = {}
    couples = []
    for case in scene.edit_ids:
        shape = CaseCanvas(read_case(scene.dataset, case), scene.config).canvas(0).x.shape
        if shape in waiting:
            couples.append((waiting.pop(shape), case))
        else:
            waiting[shape] = case
    return couples


def _fullest(scene: Scene, case: str) -> Slice:
    """The slice of a case used for interpolation: the one with most foreground."""
    canvas = CaseCanvas(read_case(scene.dataset, case), scene.config)
    number = int(np.count_nonzero(canvas.label.reshape(len(canvas.label), -1), axis=1).argmax())
    return canvas.image[number], canvas.label[number]


def _inpainted(scene: Scene, case: str, box: tuple[int, ...], lesion: str | None) -> list[Pair]:
    """Output of jdm-sample inpaint, read back."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "Dataset999_Inpainted"
        sample(scene.asked(InpaintRequest, case=case, box=box, lesion=lesion, out=out), device_name())
        made = read_dataset(out)
        return [read_case(made, name) for name in made.cases]


def box_of(pair: Pair, slice_axis: int | None) -> tuple[tuple[int, ...], int]:
    """The foreground's box with a margin, in the slice with most foreground, and that slice's number."""
    label, margin, number = pair.label > 0, np.full(pair.label.ndim, _MARGIN), 0
    if slice_axis is not None:
        number = int(np.moveaxis(label, slice_axis, 0).sum(axis=(1, 2)).argmax())
        margin[slice_axis] = 0
        label = label & (np.indices(label.shape)[slice_axis] == number)
    marked = np.argwhere(label)
    first = np.maximum(marked.min(axis=0) - margin, 0)
    behind = np.minimum(marked.max(axis=0) + 1 + margin, label.shape)
    return (*first.tolist(), *behind.tolist()), number


def _inside(scene: Scene, after: Slice, before: Slice, region: np.ndarray) -> dict[str, float]:
    """For one slice: steps across the box's border, foreground found in it by the segmenter, change inside it."""
    image, label = after
    return {
        "border_step": border_step(scene.shown(image), region),
        "foreground_found": float((scene.segmented(image[None])[0] > 0)[region].mean()),
        "foreground_given": float((label > 0)[region].mean()),
        "distance_inside": scene.distance(image[:, region], before[0][:, region]),
    }


def border_step(image: np.ndarray, region: np.ndarray) -> float:
    """Mean absolute difference of neighbours across the region's border, in units of the codec's range.

    NaN for a region that is the whole image.
    """
    steps = []
    for axis in range(region.ndim):
        crossing = np.diff(region.astype(np.int8), axis=axis) != 0
        steps.append(np.abs(np.diff(image, axis=1 + axis))[:, crossing].ravel())
    return mean_defined(np.concatenate(steps))

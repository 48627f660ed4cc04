"""The parts of conditionals.py that start from real pairs: inpainting, variations, interpolation."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conditional_scene import SHOWN, Scene, chosen_planes, interval, thinned
from conditional_sheets import Line, write_sheet

from jdm.config.samplers import default_steps, is_deterministic
from jdm.data.raw_dataset import Pair, read_case, read_dataset
from jdm.draw.canvas import CaseCanvas
from jdm.draw.given import region_of
from jdm.evaluation.statistics import mean_interval
from jdm.sample.interpolate import interpolation
from jdm.sample.modes import draw_planes, sample
from jdm.sample.request import SampleRequest
from jdm.sample.starts import prepare

_MARGIN = 2
"""Pixels around the foreground that are inpainted with it."""


def inpainting(scene: Scene) -> dict[str, Any]:
    """The foreground's box of one slice sampled anew, and with an empty mask; files as jdm-sample writes them."""
    found: dict[str, list[float]] = {}
    outside = {"image": 0, "label": 0}
    lines = []
    for case in scene.edit_ids:
        pair = read_case(scene.dataset, case)
        box, number = _box(pair, scene.config.data.slice_axis)
        region = region_of(pair, box, None)
        before, inside = _slice(scene, pair, number), _slice(scene, _like(pair, region), number).label
        _collect(found, "real", scene, before, before, inside)
        for name, lesion in (("anew", ""), ("removed", "background")):
            made = _inpainted(scene, case, box, lesion)
            for after in made:
                outside["image"] += int(np.count_nonzero((after.image != pair.image)[:, ~region]))
                outside["label"] += int(np.count_nonzero((after.label != pair.label)[~region]))
                _collect(found, name, scene, _slice(scene, after, number), before, inside)
            tiles = [scene.tile(p.image, p.label, inside) for p in (_slice(scene, p, number) for p in made[:SHOWN])]
            lines.append(Line(f"{case}\n{name}", [scene.tile(before.image, before.label, inside), *tiles]))
    write_sheet(
        scene.out / "inpainting.png",
        "inpainting of the dotted box: image and mask anew, and the image with the mask emptied",
        ["real", *[f"sample {k + 1}" for k in range(SHOWN)]],
        lines[:SHOWN],
    )
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {"cases": len(scene.edit_ids), "pixels_changed_outside": outside, **means}


def variations(scene: Scene) -> dict[str, Any]:
    """Pairs noised to several levels and denoised: how far they go, and whether image and mask still agree."""
    base = scene.asked("vary", cases=scene.edit_ids, level=scene.levels[0])
    starts = prepare(scene.checkpoint, scene.dataset, base)
    numbers = [chosen_planes(start.case.label, 1)[0] for start in starts]
    starts = [thinned(start, [number]) for start, number in zip(starts, numbers, strict=True)]
    originals = [(start.case.image[n], start.case.label[n]) for start, n in zip(starts, numbers, strict=True)]
    shape = (len(scene.levels), scene.request.samples, len(starts))
    distances, masks, agreements = np.empty(shape), np.empty(shape), np.empty(shape)
    lines = [[scene.tile(*original)] for original in originals[:SHOWN]]
    for v, level in enumerate(scene.levels):
        request = _quiet(scene, "vary", cases=scene.edit_ids, level=level)
        for s, samples in enumerate(draw_planes(scene.drawer(request), starts, request)):
            for k, planes in enumerate(samples):
                image, label = planes[numbers[s]]
                distances[v, k, s] = scene.distance(image, originals[s][0])
                masks[v, k, s] = scene.dice(label, originals[s][1])
                agreements[v, k, s] = scene.dice(scene.segmented(image[None])[0], label)
            if s < SHOWN:
                lines[s].append(scene.tile(*samples[0][numbers[s]]))
    write_sheet(
        scene.out / "variations.png",
        "variations: a real pair noised to a level and denoised, one sample of each level",
        ["real", *[f"level {level:g}" for level in scene.levels]],
        [Line(case, tiles) for case, tiles in zip(scene.edit_ids, lines, strict=False)],
    )
    ceiling = [scene.dice(scene.segmented(image[None])[0], label) for image, label in originals]
    rows = [
        {
            "level": level,
            "distance": interval(mean_interval(distances[v])),
            "mask_dice_to_original": interval(mean_interval(masks[v])),
            "segmenter_dice": interval(mean_interval(agreements[v])),
        }
        for v, level in enumerate(scene.levels)
    ]
    rising = (np.diff(distances, axis=0) > 0).all(axis=0)
    request = _quiet(scene, "vary")
    return {
        "sampler": request.sampler,
        "steps": request.steps,
        "cases": len(starts),
        "rows": rows,
        "segmenter_dice_real": interval(mean_interval(np.array(ceiling))),
        "monotone": int(rising.sum()),
        "of": rising.size,
        "monotone_mean": bool((np.diff(distances.mean(axis=(1, 2))) > 0).all()),
    }


def interpolations(scene: Scene) -> dict[str, Any]:
    """Strips between two real pairs and between two draws of noise: distance from both ends along them."""
    couples = _couples(scene)
    strips = {"pairs": [_strip(scene, couple, scene.request.seed) for couple in couples]}
    strips["noise"] = [_strip(scene, (), scene.request.seed + k) for k in range(max(2, len(couples)))]
    ends = [_ends(scene, couple) for couple in couples]
    lines = []
    for couple, (first, last), strip in zip(couples[:2], ends, strips["pairs"], strict=False):
        tiles = [scene.tile(p.image, p.label) for p in (first, *strip, last)]
        lines.append(Line(" to\n".join(couple), tiles))
    empty = scene.tile(np.full_like(strips["noise"][0][0].image, scene.config.codec.high[0]))
    lines += [
        Line(f"two noises, {k + 1}", [empty, *(scene.tile(p.image, p.label) for p in strip)])
        for k, strip in enumerate(strips["noise"][:2])
    ]
    shares = [k / (scene.request.points - 1) for k in range(scene.request.points)]
    write_sheet(
        scene.out / "interpolation.png",
        "interpolation between two inverted pairs, real ones at both ends, and between two noises",
        ["real", *[f"{share:.2f}" for share in shares], "real"],
        lines,
    )
    found: dict[str, Any] = {
        "back_from_inversion": [
            scene.distance(strip[0].image, first.image) for strip, (first, _) in zip(strips["pairs"], ends, strict=True)
        ],
        "between_the_real_ends": [scene.distance(strip[0].image, strip[-1].image) for strip in strips["pairs"]],
    }
    found = {name: float(np.mean(values)) if values else None for name, values in found.items()}
    request = _quiet(scene, "interpolate")
    found |= {"sampler": request.sampler, "steps": request.steps}
    return {**found, **{name: _along(scene, some) for name, some in strips.items() if some}}


def _along(scene: Scene, strips: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    """Mean distance from the first end at every point of the strips, and how many strips keep going away from it."""
    table = np.array([[scene.distance(pair.image, strip[0].image) for pair in strip] for strip in strips])
    return {
        "strips": len(strips),
        "distance": table.mean(axis=0).tolist(),
        "monotone": int((np.diff(table, axis=1) > 0).all(axis=1).sum()),
        "monotone_mean": bool((np.diff(table.mean(axis=0)) > 0).all()),
    }


def _strip(scene: Scene, couple: tuple[str, ...], seed: int) -> list[Pair]:
    """The points between two cases, or two noises of a seed, as slices."""
    request = _quiet(scene, "interpolate", cases=couple, seed=seed)
    starts = prepare(scene.checkpoint, scene.dataset, request)
    axis = scene.config.data.slice_axis
    pairs = interpolation(scene.drawer(request), starts, request)
    if axis is None:
        return pairs
    return [Pair(p.case_id, p.image.take(0, axis + 1), p.label.take(0, axis), scene.config.data.spacing) for p in pairs]


def _quiet(scene: Scene, mode: str, **changes: Any) -> SampleRequest:
    """A request by heun where the scene's sampler renews noise, as jdm-sample has it by default."""
    request = scene.asked(mode, **changes)
    if is_deterministic(request.sampler, request.sampling):
        return request
    return dataclasses.replace(request, sampler="heun", steps=default_steps("heun"))


def _couples(scene: Scene) -> list[tuple[str, str]]:
    """Two and two of the cases in turn that have one size as sampled."""
    waiting: dict[tuple[int, ...], str] = {}
    couples = []
    for case in scene.edit_ids:
        shape = CaseCanvas(read_case(scene.dataset, case), scene.config).canvas(0).x.shape
        if shape in waiting:
            couples.append((waiting.pop(shape), case))
        else:
            waiting[shape] = case
    return couples


def _ends(scene: Scene, couple: Sequence[str]) -> list[Pair]:
    """The slices of two cases that a strip leads between: those with most foreground."""
    ends = []
    for case in couple:
        canvas = CaseCanvas(read_case(scene.dataset, case), scene.config)
        number = int(np.count_nonzero(canvas.label.reshape(len(canvas.label), -1), axis=1).argmax())
        ends.append(Pair(case, canvas.image[number], canvas.label[number], scene.config.data.spacing))
    return ends


def _inpainted(scene: Scene, case: str, box: tuple[int, ...], lesion: str) -> list[Pair]:
    """What jdm-sample --inpaint writes, read back."""
    request = scene.asked("inpaint", cases=(case,), box=box, lesion=lesion)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "Dataset999_Inpainted"
        sample(scene.checkpoint, scene.dataset, request, out, device=scene.device)
        made = read_dataset(out)
        return [read_case(made, name) for name in made.cases]


def _box(pair: Pair, slice_axis: int | None) -> tuple[tuple[int, ...], int]:
    """The box of the foreground, a little larger, in the slice that holds most of it, and that slice's number."""
    label = pair.label > 0
    number, place = 0, label
    if slice_axis is not None:
        others = tuple(k for k in range(label.ndim) if k != slice_axis)
        number = int(label.sum(axis=others).argmax())
        place = np.zeros_like(label)
        at = tuple(number if k == slice_axis else slice(None) for k in range(label.ndim))
        place[at] = label[at]
    first, behind = [], []
    for axis, side in enumerate(label.shape):
        marked = np.flatnonzero(place.any(axis=tuple(k for k in range(label.ndim) if k != axis)))
        margin = 0 if axis == slice_axis else _MARGIN
        first.append(max(0, int(marked[0]) - margin))
        behind.append(min(side, int(marked[-1]) + 1 + margin))
    return (*first, *behind), number


def _like(pair: Pair, region: np.ndarray) -> Pair:
    return Pair(pair.case_id, pair.image, region.astype(np.uint8), pair.spacing, pair.geometry)


def _slice(scene: Scene, pair: Pair, number: int) -> Pair:
    """One slice of a case in the plan's spacing and on the codec's intensities."""
    canvas = CaseCanvas(pair, scene.config)
    return Pair(pair.case_id, canvas.image[number], canvas.label[number], scene.config.data.spacing)


def _collect(
    found: dict[str, list[float]], name: str, scene: Scene, after: Pair, before: Pair, inside: np.ndarray
) -> None:
    """Of one slice: steps across the box's border, foreground that the segmenter finds in it, change inside it."""
    region = inside > 0
    values = {
        "border_step": _border_step(scene.shown(after.image), region),
        "foreground_found": float((scene.segmented(after.image[None])[0] > 0)[region].mean()),
        "foreground_given": float((after.label > 0)[region].mean()),
        "distance_inside": scene.distance(after.image[:, region], before.image[:, region]),
    }
    for key, value in values.items():
        found.setdefault(f"{name}_{key}", []).append(value)


def _border_step(image: np.ndarray, region: np.ndarray) -> float:
    """Mean absolute difference of neighbours of which one lies in the region, in units of the codec's range."""
    steps = []
    for axis in range(region.ndim):
        crossing = np.diff(region.astype(np.int8), axis=axis) != 0
        steps.append(np.abs(np.diff(image, axis=1 + axis))[:, crossing].ravel())
    return float(np.concatenate(steps).mean())

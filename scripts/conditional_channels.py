"""The part of conditionals.py on channels: one image channel known, the others and the mask sampled."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from conditional_scene import SHOWN, Scene, chosen_planes, interval
from conditional_sheets import Line, Tile, write_sheet

from jdm.evaluation.statistics import mean_interval, paired_difference
from jdm.sample import draw_planes
from jdm.sample_canvas import decoded
from jdm.sample_starts import Plane, Start, prepare


def channels(scene: Scene) -> dict[str, Any]:
    """The first channel of a part of each case: do the others that are sampled fit it, and the mask?"""
    request = scene.asked("known-channels", cases=scene.edit_ids, channels=("0",))
    starts = [_part(scene, start) for start in prepare(scene.checkpoint, scene.dataset, request)]
    drawn = draw_planes(scene.drawer(request), starts, request)
    reals = [decoded(scene.config, start.planes[0].canvas, start.planes[0].canvas.x) for start in starts]
    shape = (request.samples, len(starts))
    own, other, masks = np.empty(shape), np.full(shape, np.nan), np.empty(shape)
    changed, lines = 0, []
    for s, (start, samples, (real, label)) in enumerate(zip(starts, drawn, reals, strict=True)):
        made = [planes[start.planes[0].number] for planes in samples]
        others = [image for k, (image, _) in enumerate(reals) if k != s and image.shape == real.shape]
        for k, (image, mask) in enumerate(made):
            changed += int(np.count_nonzero(image[0] != real[0]))
            own[k, s] = scene.distance(image, real, slice(1, None))
            if others:
                other[k, s] = np.mean([scene.distance(image, some, slice(1, None)) for some in others])
            masks[k, s] = scene.dice(mask, label)
        known = Tile(scene.shown(real)[0].clip(0, 1))
        tiles = [known, scene.tile(real, label), *(scene.tile(*pair) for pair in made[:SHOWN])]
        lines.append(Line(start.case.pair.case_id, tiles))
    name = scene.dataset.channel_names[0]
    write_sheet(
        scene.out / "channels.png",
        f"channel {name} known, the others and the mask sampled",
        [f"{name}, known", "real", *[f"sample {k + 1}" for k in range(SHOWN)]],
        lines[:SHOWN],
    )
    return {
        "cases": len(starts),
        "known": name,
        "known_pixels_changed": changed,
        "distance_own": interval(mean_interval(own)),
        "distance_other": interval(mean_interval(other)),
        "other_minus_own": interval(paired_difference(other, own)),
        "mask_dice": interval(mean_interval(masks)),
    }


def _part(scene: Scene, start: Start) -> Start:
    """One plane of a condition, and of that the middle, of at most twice the training patch."""
    number = chosen_planes(start.case.label, 1)[0]
    sides = [min(side, 2 * p) for side, p in zip(start.case.label.shape[1:], scene.config.data.patch_size, strict=True)]
    firsts = [(whole - side) // 2 for whole, side in zip(start.case.label.shape[1:], sides, strict=True)]
    crop = tuple(slice(first, first + side) for first, side in zip(firsts, sides, strict=True))
    canvas = start.case.canvas(number, None, crop)
    return dataclasses.replace(start, planes=[Plane(number, canvas, start.planes[number].where)])

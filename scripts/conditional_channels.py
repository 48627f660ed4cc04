"""The part of conditionals.py on channels: one image channel known, the others and the mask sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from conditional_scene import SAMPLE_NAMES, SHOWN, Scene, chosen_planes, difference, mean
from conditional_sheets import Line, Tile, write_sheet

from jdm.draw.canvas import decoded
from jdm.errors import ConfigError
from jdm.sample.modes import prepare
from jdm.sample.request import ChannelsRequest
from jdm.sample.starts import Plane, Start


def channels(scene: Scene) -> dict[str, Any]:
    """Sample the other channels and the mask given the first channel of part of each case; measure agreement."""
    if len(scene.edit_ids) < 2:
        raise ConfigError("--edits is 1, but the part channels compares cases; expected at least 2; raise it")
    request = scene.asked(ChannelsRequest, cases=scene.edit_ids, known=("0",))
    starts = prepare(scene.run, request)
    shapes = [start.case.label.shape[1:] for start in starts]
    patch = scene.config.data.patch_size
    sides = [min(*found, 2 * side) for side, *found in zip(patch, *shapes, strict=True)]
    starts = [_middle(start, sides) for start in starts]
    drawn = scene.drawn(request, starts)
    reals = [decoded(scene.config, start.planes[0].canvas, start.planes[0].canvas.x) for start in starts]
    own, other, masks = np.empty((3, request.samples, len(starts)))
    changed, lines = 0, []
    for s, (start, samples, (real, label)) in enumerate(zip(starts, drawn, reals, strict=True)):
        made = [planes[start.planes[0].number] for planes in samples]
        others = [image for k, (image, _) in enumerate(reals) if k != s]
        for k, (image, mask) in enumerate(made):
            changed += int(np.count_nonzero(image[0] != real[0]))
            own[k, s] = scene.distance(image, real, slice(1, None))
            other[k, s] = np.mean([scene.distance(image, some, slice(1, None)) for some in others])
            masks[k, s] = scene.dice(mask, label)
        known = Tile(scene.shown(real)[0].clip(0, 1))
        tiles = [known, *(_tile(scene, *pair) for pair in [(real, label), *made[:SHOWN]])]
        lines.append(Line(start.case.pair.case_id, tiles))
    name = scene.dataset.channel_names[0]
    title = f"channel {name} known, the others and the mask sampled"
    write_sheet(scene.options.out / "channels.png", title, [f"{name}, known", "real", *SAMPLE_NAMES], lines[:SHOWN])
    return {
        "cases": len(starts),
        "known": name,
        "known_pixels_changed": changed,
        "distance_own": mean(own),
        "distance_other": mean(other),
        "other_minus_own": difference(other, own),
        "mask_dice": mean(masks),
    }


def _tile(scene: Scene, image: np.ndarray, label: np.ndarray) -> Tile:
    """Three channels as colours, else the first unknown channel."""
    return scene.tile(image if len(image) == 3 else image[1:2], label)


def _middle(start: Start, sides: Sequence[int]) -> Start:
    """The middle part of one plane of a condition."""
    number = chosen_planes(start.case.label, 1)[0]
    firsts = [(whole - side) // 2 for whole, side in zip(start.case.label.shape[1:], sides, strict=True)]
    crop = tuple(slice(first, first + side) for first, side in zip(firsts, sides, strict=True))
    canvas = start.case.canvas(number, None, crop)
    return dataclasses.replace(start, planes=[Plane(number, canvas, start.planes[number].where)])

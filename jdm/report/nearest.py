"""Synthetic pairs beside their nearest training cases, the most suspect first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdm.data.raster import NATURAL_ENDINGS
from jdm.data.raw_dataset import RawDataset
from jdm.evaluation.audit import transformed
from jdm.evaluation.copies import Scale, Search
from jdm.evaluation.planes import Plane, planes
from jdm.report.content import Group, Picture, Section
from jdm.report.shown import foreground, picture

_MOST = 6


def nearest_section(made: RawDataset, real: RawDataset, nearest: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Pictures of the first pairs of `nearest`; nothing where the cases are not in the datasets at hand.

    Args: nearest: entries of audit.json's verdicts, one per case, the most suspect first.
    Raises: DataError if a case cannot be read.
    """
    shown = [each for each in nearest if each["case_id"] in made.cases and each["nearest"] in real.cases][:_MOST]
    if not shown:
        return []
    copies = sum(each["copy"] for each in nearest)
    text = (
        f"Suspected copies ({copies}) first, then the lowest ratio of the distance to the nearest case over that to "
        "the next other case. Training images are cut, flipped and turned to match."
    )
    groups = tuple(_group(made, real, each) for each in shown)
    return [Section("Nearest training cases", (text,), groups, foreground(made))]


def _group(made: RawDataset, real: RawDataset, each: Mapping[str, Any]) -> Group:
    cases = (planes(made, [each["case_id"]]), planes(real, [each["nearest"]]))
    synthetic, training = _matched(*([plane for plane in found if not plane.blank] for found in cases))
    copy = ", taken for a copy" if each["copy"] else ""
    second = "" if each["second"] is None else f", next other case {each['second']:.2f}"
    return Group(
        f"{each['case_id']}{copy}",
        (
            _shown(made, synthetic, f"Synthetic case {each['case_id']}", "synthetic"),
            _shown(real, training, f"Nearest training case {each['nearest']}",
                   f"{each['nearest']}: distance {each['distance']:.2f}{second}"),
        ),
        suspect=bool(each["copy"]),
    )  # fmt: skip


def _matched(made: list[Plane], training: list[Plane]) -> tuple[Plane, Plane]:
    """The synthetic plane that is nearest to a plane of the training case, and the part of that plane it matches."""
    shapes = ([plane.label.shape for plane in found] for found in (training, made))
    scale = Scale.of(*shapes)
    search = Search(scale)
    for plane in training:
        search.add(plane.image, plane.case_id)
    found = search.nearest([scale.image(plane.image) for plane in made])
    n = int(found.distance.argmin())
    near, symmetry = training[found.index[n]], int(found.symmetry[n])
    if not scale.whole:
        height, width = made[n].label.shape if symmetry % 2 == 0 else made[n].label.shape[::-1]
        top, left = found.start[n].tolist()
        area = np.s_[..., top : top + height, left : left + width]
        near = dataclasses.replace(near, image=near.image[area], label=near.label[area])
    image, label = transformed(near.image, symmetry), transformed(near.label, symmetry)
    return made[n], dataclasses.replace(near, image=image, label=label)


def _shown(dataset: RawDataset, plane: Plane, name: str, caption: str) -> Picture:
    # colours are shown as such only in the type in which they are stored
    coloured = dataset.file_ending in NATURAL_ENDINGS and len(plane.image) == 3 and plane.image.max() <= 255
    image = plane.image.astype(np.uint8) if coloured else plane.image
    return picture(image, plane.label, name, caption, dataset.labels)

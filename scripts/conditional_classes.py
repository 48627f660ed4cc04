"""The part of conditionals.py on classes of cases: pairs of each class, by the scale of guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
from conditional_scene import SHOWN, Scene
from conditional_sheets import Line, write_sheet
from jdm.draw.export_drawer import PairDrawer

from jdm.data.codec import PairCodec
from jdm.data.raw_dataset import read_case
from jdm.draw.guidance import check_guidance
from jdm.export.pairs import case_seed, stored_pair
from jdm.export.request import ExportRequest

SCALES = (1.0, 2.0, 4.0)
_PAIRS = 32


def classes(scene: Scene) -> dict[str, Any]:
    """Pairs of each class: which labels their foreground has, beside that of the training cases of the class."""
    names = [name for name, value in scene.dataset.labels.items() if value > 0]
    given: dict[str, str] = scene.checkpoint.metadata["classes"]
    training = scene.checkpoint.metadata["training_ids"]
    check_guidance(scene.checkpoint, scene.config.network.class_names, SCALES[-1])
    rows: list[dict[str, Any]] = []
    lines = []
    for class_name in scene.config.network.class_names:
        cases = [case for case in training if given[case] == class_name]
        real = [read_case(scene.dataset, case).label for case in cases]
        rows.append({"class": class_name, "images": "real", "pairs": len(cases), "shares": _shares(real, len(names))})
        for scale in SCALES:
            made = _pairs(scene, class_name, scale)
            shares = _shares([label for _, label in made], len(names))
            rows.append({"class": class_name, "images": f"scale {scale:g}", "pairs": len(made), "shares": shares})
            tiles = [scene.tile(image, label) for image, label in made[: 2 * SHOWN]]
            lines.append(Line(f"{class_name}\nscale {scale:g}", tiles))
    write_sheet(
        scene.out / "classes.png",
        "pairs of each class by the scale of classifier-free guidance; a column has one starting noise",
        [f"sample {k + 1}" for k in range(2 * SHOWN)],
        lines,
        plain=False,
    )
    return {"labels": names, "rows": rows}


def _pairs(scene: Scene, class_name: str, scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decoded pairs of a class, of the training patch's size; those of all scales start from the same noises."""
    size, asked = scene.config.data.patch_size, scene.request
    request = ExportRequest(
        1, "", _PAIRS, size, sampler=asked.sampler, steps=asked.steps, batch_size=asked.batch_size, guidance=scale
    )
    seeds = [case_seed(asked.seed, number, 0) for number in range(_PAIRS)]
    drawer = PairDrawer(scene.checkpoint, request, scene.device)
    parts = [seeds[first : first + asked.batch_size] for first in range(0, _PAIRS, asked.batch_size)]
    codec = PairCodec(scene.config.codec)
    return [stored_pair(codec, x) for part in parts for x in drawer.samples(part, class_name=class_name)]


def _shares(labels: list[np.ndarray], classes: int) -> list[float]:
    """Share of each class among the foreground pixels of some labels."""
    counts = sum(np.bincount(label.ravel(), minlength=classes + 1)[1 : classes + 1] for label in labels)
    return (counts / max(1, np.sum(counts))).tolist()

"""The part of conditionals.py on classes of cases: pairs of each class, by the scale of guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
from conditional_scene import SHOWN, Scene
from conditional_sheets import Line, write_sheet
from shared import first_draws

from jdm.data.classes import FILE_NAME, read_classes
from jdm.data.raw_dataset import read_case
from jdm.export.pairs import PairFactory
from jdm.export.request import ExportRequest
from jdm.system.processes import device_name

SCALES = (1.0, 2.0, 4.0)
_PAIRS = 32


def classes(scene: Scene) -> dict[str, Any]:
    """Pairs of each class: which labels their foreground has, beside that of the training cases of the class."""
    labels = list(scene.config.facts.labels[1:])
    given = read_classes(scene.run.folder / FILE_NAME, scene.dataset)
    rows: list[dict[str, Any]] = []
    lines = []
    for class_name in scene.config.facts.class_names:
        cases = [case for case in scene.run.checkpoint.metadata["training_ids"] if given[case] == class_name]
        found = {"real": [read_case(scene.dataset, case).label for case in cases]}
        for scale in SCALES:
            made = _pairs(scene, class_name, scale)
            found[f"scale {scale:g}"] = [label for _, label in made]
            tiles = [scene.tile(image, label) for image, label in made[: 2 * SHOWN]]
            lines.append(Line(f"{class_name}\nscale {scale:g}", tiles))
        rows += [
            {"class": class_name, "images": images, "pairs": len(masks), "shares": _shares(masks, len(labels))}
            for images, masks in found.items()
        ]
    write_sheet(
        scene.options.out / "classes.png",
        "pairs of each class by the scale of classifier-free guidance; a column has one starting noise",
        [f"sample {k + 1}" for k in range(2 * SHOWN)],
        lines,
        plain=False,
    )
    return {"labels": labels, "rows": rows}


def _pairs(scene: Scene, class_name: str, scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decoded pairs of a class, of the training patch's size; those of all scales start from the same noises."""
    options = scene.options
    request = ExportRequest(
        str(scene.run.folder), id=1, count=_PAIRS, canvas_size=scene.config.data.patch_size, class_label=class_name,
        guidance=scale, steps=options.steps, seed=options.seed, batch_size=options.batch_size,
    )  # fmt: skip
    return first_draws(PairFactory.of(scene.run, request, device_name()))


def _shares(labels: list[np.ndarray], classes: int) -> list[float]:
    """Share of each class among the foreground pixels of some labels."""
    counts = sum(np.bincount(label.ravel(), minlength=classes + 1)[1 : classes + 1] for label in labels)
    return (counts / max(1, np.sum(counts))).tolist()

"""Pairs as pictures: the image, and its contours as a layer of their own."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jdm.data.raw_dataset import RawDataset, read_case, slice_axis
from jdm.evaluation.figures import outlines, to_rgb
from jdm.report.content import Group, Picture, Section

CROP = 256
"""Of larger images, the central part of this many pixels per side is shown."""
_LAYER, _WIDTH = 400, 2
"""Pixels of the longer side of a layer of contours, at least, and of its lines."""
_MOST = 9
_SEED = 0


def pairs_section(synthetic: RawDataset, real: RawDataset | None, trained: Sequence[str] = ()) -> Section:
    """Real and synthetic pairs side by side, drawn at random.

    Args: trained: cases of `real` that the generator was trained on; empty: any of its cases.
    Raises: DataError if a case cannot be read.
    """
    groups = []
    if real is not None:
        known = sorted(set(trained) & set(real.cases)) or list(real.cases)
        groups.append(Group("Real", tuple(case_picture(real, case, "Real") for case in _drawn(known))))
    made = _drawn(synthetic.cases)
    groups.append(Group("Synthetic", tuple(case_picture(synthetic, case, "Synthetic") for case in made)))
    text = (
        f"Drawn at random (seed {_SEED}), not selected. Of a volume, the slice with most foreground is shown; of "
        f"images larger than {CROP} pixels, the centre."
    )
    notes = () if real is None else ("This page shows images of real cases: treat it as you treat those.",)
    title = "Synthetic pairs" if real is None else "Real and synthetic pairs"
    return Section(title, (text,), tuple(groups), foreground(synthetic), notes=notes)


def foreground(dataset: RawDataset) -> tuple[str, ...]:
    """Names of the classes 1, 2, ..."""
    return tuple(name for name, value in sorted(dataset.labels.items(), key=lambda item: item[1]) if value)


def case_picture(dataset: RawDataset, case_id: str, kind: str) -> Picture:
    """An image, or the slice of a volume with most foreground (the middle one without any).

    Args: kind: what the alternative text calls it.
    """
    pair = read_case(dataset, case_id)
    image, label = pair.image, pair.label
    if label.ndim == 3:
        axis = slice_axis([label.shape], pair.spacing)
        slices = np.moveaxis(label, axis, 0) > 0
        fullest = int(slices.sum((1, 2)).argmax()) if slices.any() else len(slices) // 2
        image, label = image.take(fullest, axis + 1), label.take(fullest, axis)
    return picture(image, label, f"{kind} case {case_id}", case_id, dataset.labels)


def picture(image: np.ndarray, label: np.ndarray, name: str, caption: str, labels: Mapping[str, int]) -> Picture:
    """A picture of an image (C, H, W) with the contours of its mask (H, W) as a second layer.

    Args: name: begins the alternative text, which goes on with the share of each class.
    """
    image, label = _central(image), _central(label)
    shares = [
        f"{class_name} {100 * float(np.mean(label == value)):.2g} %"
        for class_name, value in labels.items()
        if value and (label == value).any()
    ]
    alt = f"{name}: {', '.join(shares) if shares else 'no foreground'}"
    rgb = to_rgb(image)
    contours = _png(_contours(label)) if label.any() else b""
    return Picture(_png(rgb), alt, caption, contours, (rgb.shape[1], rgb.shape[0]))


def _contours(label: np.ndarray) -> np.ndarray:
    """uint8 RGBA: the mask, enlarged so that lines stay thin, and its inner borders."""
    factor = math.ceil(_LAYER / max(label.shape))
    large = label.repeat(factor, 0).repeat(factor, 1)
    layer = outlines(large)
    for _ in range(_WIDTH - 1):
        inner = np.where(layer[..., 3] > 0, 0, large)
        layer = np.where(layer[..., 3:] > 0, layer, outlines(inner))
    return layer


def _central(array: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - CROP) // 2) for side in array.shape[-2:])
    return array[..., top : top + CROP, left : left + CROP]


def _drawn(cases: Sequence[str]) -> list[str]:
    rng = np.random.default_rng(_SEED)
    return sorted(rng.choice(np.asarray(cases, dtype=object), min(_MOST, len(cases)), replace=False).tolist())


def _png(values: np.ndarray) -> bytes:
    """PNG of uint8 (H, W, 3 or 4); grey ones as such."""
    from PIL import Image

    if values.shape[2] == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    target = io.BytesIO()
    Image.fromarray(values).save(target, format="PNG", optimize=True)
    return target.getvalue()

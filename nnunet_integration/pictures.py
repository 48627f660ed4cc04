"""Pictures of an experiment: image, reference and each arm's prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import RawDataset, read_case


def evenly_spaced(ids: Sequence[str], most: int) -> list[str]:
    """At most `most` ids, spread over the sorted list, so that nobody chooses them by their score."""
    positions = np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).round().astype(int))
    return [sorted(ids)[position] for position in positions]


def draw_case(dataset: RawDataset, case_id: str, test: bool, predictions: Mapping[str, Path], file: Path) -> None:
    """Write one picture: the image, the reference and the prediction of each arm over it.

    Args:
        test: the case is one of imagesTs.
        predictions: label file by arm.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pair = read_case(dataset, case_id, test)
    masks = {"reference": pair.label, **{arm: read_raster(f, label=True).array[0] for arm, f in predictions.items()}}
    where = _slice(pair.label, pair.spacing)
    image = _displayable(pair.image[(slice(None), *where)])
    figure = Figure(figsize=(2.4 * (1 + len(masks)), 2.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(masks), squeeze=False)[0]
    axes[0].set_title(case_id, fontsize=8)
    axes[0].imshow(image, cmap="gray")
    for axis, (name, mask) in zip(axes[1:], masks.items(), strict=True):
        axis.set_title(name, fontsize=8)
        axis.imshow(image, cmap="gray")
        shown = np.ma.masked_equal(mask[where], 0)
        axis.imshow(shown, cmap="tab10", alpha=0.5, vmin=0, vmax=9, interpolation="nearest")
    for axis in axes:
        axis.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _slice(label: np.ndarray, spacing: Sequence[float]) -> tuple[slice | int, ...]:
    """Everything of a 2-D case; of a volume the slice with most foreground, across its coarsest axis."""
    if label.ndim == 2:
        return (slice(None), slice(None))
    axis = int(np.argmax(spacing))
    others = tuple(other for other in range(label.ndim) if other != axis)
    best = int(np.count_nonzero(label, axis=others).argmax())
    return tuple(best if position == axis else slice(None) for position in range(label.ndim))


def _displayable(image: np.ndarray) -> np.ndarray:
    """(channels, H, W) as (H, W, 3) for RGB, else the first channel, stretched to [0, 1]."""
    shown = np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image[0]
    low, high = float(shown.min()), float(shown.max())
    return (shown.astype(np.float64) - low) / (high - low or 1)

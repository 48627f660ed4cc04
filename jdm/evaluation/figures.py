"""PNG figures: pairs, predictions, loss curves.

Images of any type and number of channels become RGB; masks are outlined, not filled, so that the image stays visible.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jdm.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

COLOURS = (
    (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 158, 115),
    (213, 94, 0), (0, 114, 178), (255, 255, 255), (136, 34, 85), (153, 153, 51),
)  # fmt: skip
"""Outline colours of class 1, 2, ...: the colour-blind-safe palette of Okabe and Ito, ordered so that neighbours
differ, and two of Tol's; then repeated."""

TILE = 128
"""Pixels of the longer side of a picture in a sheet; twice that in comparisons of predictions."""
_GAP = 4
_TEXT = 12


class ImageAndLabel(Protocol):
    """Anything with image (C, *spatial) and label (*spatial), such as `jdm.data.raw_dataset.Pair`."""

    @property
    def image(self) -> np.ndarray: ...

    @property
    def label(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Comparison:
    """One case with the predictions of several arms. Masks have the image's spatial shape."""

    title: str
    image: np.ndarray  # (C, *spatial)
    reference: np.ndarray  # (*spatial)
    predictions: Mapping[str, np.ndarray]  # arm -> (*spatial)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of an image (C, H, W).

    Three uint8 channels are shown as colours. Otherwise the first channel is shown in grey, from its 0.5 to its 99.5
    percentile.
    """
    if image.shape[0] == 3 and image.dtype == np.uint8:
        return np.ascontiguousarray(np.moveaxis(image, 0, -1))
    values = image[0].astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5])
    if high <= low:  # a few bright pixels on a constant ground lie outside both percentiles
        low, high = values.min(), values.max()
    scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    grey = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def outlined(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """`image` uint8 (H, W, 3) with the inner border of every class of `label` (H, W) in its colour."""
    drawn = outlines(label)
    return np.where(drawn[..., 3:] > 0, drawn[..., :3], image)


def outlines(label: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4): the inner border of every class of `label` (H, W) in its colour, transparent elsewhere."""
    result = np.zeros((*label.shape, 4), np.uint8)
    padded = np.pad(label, 1, constant_values=0)
    neighbours = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    border = np.any([label != other for other in neighbours], axis=0)
    for value in np.unique(label[label > 0]).tolist():
        result[border & (label == value)] = (*COLOURS[(int(value) - 1) % len(COLOURS)], 255)
    return result


def plane(image: np.ndarray, label: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """The plane to show of a case with any number of spatial axes: image (C, H, W) and masks (H, W).

    Axes of length one are dropped. Of a volume, the plane across its shortest axis with most foreground in `label` is
    shown (the middle one if `label` is empty).
    Raises: DataError if a mask has another shape than the image.
    """
    for mask in (label, *others):
        if mask.shape != image.shape[1:]:
            raise DataError(
                f"an image of shape {image.shape} has a mask of shape {mask.shape}; expected {image.shape[1:]}; "
                "give the mask of this image"
            )
    masks = [label, *others]
    while label.ndim > 2:
        axis = int(np.argmin(label.shape))
        foreground = np.count_nonzero(np.moveaxis(label, axis, 0), axis=tuple(range(1, label.ndim)))
        chosen = int(foreground.argmax()) if foreground.any() else label.shape[axis] // 2
        image, masks = image.take(chosen, axis + 1), [mask.take(chosen, axis) for mask in masks]
        label = masks[0]
    return [image, *masks]


def pair_grid(pairs: Sequence[ImageAndLabel], path: Path, columns: int = 6, crop: int | None = None) -> None:
    """Write a sheet of pairs: each image, and beside it the image with its mask outlined.

    Args:
        columns: pairs per row.
        crop: of larger images, show only the central part of this many pixels per side, so that outlines do not merge.
    """
    cells = [tile for pair in pairs for tile in _tiles(pair, crop)]
    _save(_sheet(cells, 2 * columns), path)


def comparison(rows: Sequence[Comparison], path: Path, crop: int | None = None) -> None:
    """Write a sheet with a row per case: image, reference, and the prediction of every arm.

    Args: crop: as for `pair_grid`.
    Raises: DataError if there are no cases, or they do not have the same arms.
    """
    arms = list(rows[0].predictions) if rows else []
    cells, headings = [], []
    for row in rows:
        if list(row.predictions) != arms:
            raise DataError(
                f"case {row.title} has the arms {list(row.predictions)}; expected {arms} as the first case; "
                "give every case the same arms"
            )
        image, *masks = _central(plane(row.image, row.reference, *row.predictions.values()), crop)
        cells += [_tile(image, None, 2 * TILE), *(_tile(image, mask, 2 * TILE) for mask in masks)]
        headings += [row.title, "reference", *arms]
    _save(_sheet(cells, 2 + len(arms), headings), path)


def curves(log: Path, path: Path, selected: int | None = None) -> None:
    """Write the training and held-out loss of a run's log.csv, with the step whose weights are used.

    Args:
        log: CSV with columns step, loss, seen_loss, held_out_loss, smoothed; all but step may be empty in a row, and
            the last three columns may be missing.
        selected: the step whose weights are used; by default the minimum of `smoothed`.
    Raises: DataError if the file has no step and loss.
    """
    from matplotlib.figure import Figure

    columns = read_losses(log)
    step = np.array(columns["step"])
    figure = Figure(figsize=(7, 4))  # fixed margins: constrained layout gives up where tick labels are long
    axes = figure.add_subplot()
    styles = {
        "loss": ("training", "-", 0),
        "seen_loss": ("training cases, measured as held out", ".-", 2),
        "held_out_loss": ("held out", ".", 5),
        "smoothed": ("held out, smoothed", "-", 4),
    }
    for name, (title, style, colour) in styles.items():
        values = np.array(columns[name])
        known = np.isfinite(values)
        if known.any():
            shade = tuple(channel / 255 for channel in COLOURS[colour])
            axes.plot(step[known], values[known], style, color=shade, label=title)
    smoothed = np.array(columns["smoothed"])
    if selected is None and np.isfinite(smoothed).any():
        selected = int(step[np.nanargmin(smoothed)])
    if selected is not None:
        axes.axvline(selected, color="0.4", linestyle="--", label=f"weights used: step {selected}")
    axes.set_xlabel("step")
    axes.set_ylabel("denoising loss")
    least, most = axes.dataLim.intervaly
    if 0 < 2 * least < most:  # over less, a logarithmic axis has long labels that overlap
        axes.set_yscale("log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def read_losses(log: Path) -> dict[str, list[float]]:
    """The columns of a log.csv that `curves` draws; NaN where a row has no value. Raises: DataError as `curves`."""
    names = ("step", "loss", "seen_loss", "held_out_loss", "smoothed")
    columns: dict[str, list[float]] = {name: [] for name in names}
    try:
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, values in columns.items():
                    values.append(float(row.get(name) or "nan"))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{log}: cannot be read ({str(error)[:200]}); expected the log.csv of a training run") from None
    if not all(map(math.isfinite, columns["step"])) or not any(map(math.isfinite, columns["loss"])):
        raise DataError(f"{log}: holds no step and loss; expected the log.csv of a training run; train first")
    return columns


def _tiles(pair: ImageAndLabel, crop: int | None = None) -> list[PillowImage]:
    image, label = _central(plane(pair.image, pair.label), crop)
    return [_tile(image), _tile(image, label)]


def _central(arrays: list[np.ndarray], crop: int | None) -> list[np.ndarray]:
    """The central part of arrays (..., H, W), at most `crop` pixels per side."""
    if crop is None:
        return arrays
    top, left = (max(0, (n - crop) // 2) for n in arrays[0].shape[-2:])
    return [a[..., top : top + crop, left : left + crop] for a in arrays]


def _tile(image: np.ndarray, label: np.ndarray | None = None, side: int = TILE) -> PillowImage:
    """A picture whose longer side is `side`: small ones are enlarged by repeating pixels, large ones averaged."""
    from PIL import Image

    height, width = image.shape[1:]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    rgb = Image.fromarray(to_rgb(image)).resize(size, method)
    if label is None:
        return rgb
    # the outline is drawn after resizing, because it would vanish when a large image is reduced
    rows, columns = (np.arange(n) * full // n for n, full in ((size[1], height), (size[0], width)))
    return Image.fromarray(outlined(np.asarray(rgb), label[np.ix_(rows, columns)]))


def _sheet(cells: Sequence[PillowImage], columns: int, headings: Sequence[str] | None = None) -> PillowImage:
    """Pictures in rows on white, each below its heading; a heading may extend over empty ones that follow it."""
    from PIL import Image, ImageDraw, ImageFont

    if not cells:
        raise DataError("no pictures to show; expected at least one case; give one")
    head = _TEXT + 6 if headings else 0
    width, height = max(c.width for c in cells) + _GAP, max(c.height for c in cells) + _GAP + head
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for number, cell in enumerate(cells):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        if headings and headings[number]:
            # first erase the overflow of the previous heading
            draw.rectangle((left - _GAP, top, sheet.width, top + head - 1), fill="white")
            draw.text((left, top), headings[number], fill="black", font=font)
        sheet.paste(cell, (left, top + head))
    return sheet


def _save(sheet: PillowImage, path: Path) -> None:
    sheet.save(path, format="PNG", optimize=True)

"""What pairs look like, in numbers that need no network: objects of masks, and colours of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

SPECK = 20
"""Objects of fewer pixels are specks."""


def objects(label: np.ndarray) -> dict[str, float]:
    """Numbers about the connected foreground objects of a label (H, W).

    Returns:
        share: of the pixels that are foreground.
        count: objects, specks left out.
        area: median pixels of an object, specks left out; NaN without objects.
        roughness: median over the objects that do not touch the border of the perimeter over that of the disc of equal
            area: about 1 for discs, NaN without such objects. The perimeter is pi / 4 times the sides of pixels on the
            border, which is right on average over directions (Cauchy-Crofton).
        specks: share of the objects that are specks; NaN without objects.
    """
    inside = label > 0
    numbers, found = ndimage.label(inside)  # pyright: ignore[reportGeneralTypeIssues]
    areas = np.bincount(numbers.ravel(), minlength=found + 1)[1:]
    whole = areas >= SPECK
    sides = np.zeros(found + 1)
    for axis in range(label.ndim):
        across = np.moveaxis(numbers, axis, 0)
        borders = across[1:] != across[:-1]
        sides += np.bincount(across[1:][borders], minlength=found + 1) + np.bincount(
            across[:-1][borders], minlength=found + 1
        )
    edge = np.unique(np.concatenate([np.take(numbers, end, axis).ravel() for axis in range(2) for end in (0, -1)]))
    clear = whole & ~np.isin(np.arange(1, found + 1), edge)
    rough = math.pi / 4 * sides[1:][clear] / (2 * np.sqrt(math.pi * areas[clear]))
    return {
        "share": float(inside.mean()),
        "count": float(whole.sum()),
        "area": float(np.median(areas[whole])) if whole.any() else math.nan,
        "roughness": float(np.median(rough)) if clear.any() else math.nan,
        "specks": float(1 - whole.mean()) if found else math.nan,
    }


def colours(images: Sequence[np.ndarray]) -> dict[str, float]:
    """How the mean colour differs within and between images (channels, H, W).

    Returns:
        quadrants: mean over images of the root mean square distance of the mean colours of their quadrants from that
            of the image.
        spread: root mean square distance of the images' mean colours from their mean.
    """
    within = []
    for image in images:
        rows = [part for half in np.array_split(image, 2, 1) for part in np.array_split(half, 2, 2)]
        means = np.array([part.mean((1, 2)) for part in rows])
        within.append(_rms(means))
    return {"quadrants": float(np.mean(within)), "spread": _rms(np.array([image.mean((1, 2)) for image in images]))}


def _rms(values: np.ndarray) -> float:
    """Root mean square, over rows and columns, of the distance of rows from their mean."""
    return float(np.sqrt(np.mean((values - values.mean(0)) ** 2)))

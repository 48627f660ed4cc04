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


def quadrants(image: np.ndarray) -> float:
    """Root mean square distance of the mean colours of an image's (channels, H, W) quadrants from their mean."""
    rows = [part for half in np.array_split(image, 2, 1) for part in np.array_split(half, 2, 2)]
    return spread(np.array([part.mean((1, 2)) for part in rows]))


def spread(values: np.ndarray) -> float:
    """Root mean square, over rows and columns, of the distance of rows from their mean."""
    return float(np.sqrt(np.mean((values - values.mean(0)) ** 2)))


def colours(images: Sequence[np.ndarray]) -> dict[str, float]:
    """How the mean colour differs within and between images (channels, H, W).

    Returns: quadrants: mean over images of `quadrants`. spread: `spread` of the images' mean colours.
    """
    means = np.array([image.mean((1, 2)) for image in images])
    return {"quadrants": float(np.mean([quadrants(image) for image in images])), "spread": spread(means)}


def light(image: np.ndarray) -> dict[str, float]:
    """Brightness (mean), and fine: the difference of neighbouring pixels over the deviation, of (channels, H, W)."""
    fine = float(np.abs(np.diff(image, axis=2)).mean()) if image.shape[2] > 1 else 0.0
    return {"brightness": float(image.mean()), "fine": fine / max(float(image.std()), 1e-6)}

"""Outlines -> pixels. A pixel belongs to a polygon if its centre lies inside; borders are not painted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def inside_polygon(
    vertices: np.ndarray, shape: tuple[int, int], centre: float = 0.5
) -> tuple[np.ndarray, slice, slice]:
    """Which pixels of an image of `shape` (height, width) have their centre inside a closed polygon.

    Uses the nonzero winding rule, so an outline that crosses itself where it closes leaves no hole. Centres on a left
    or upper edge are inside, on a right or lower edge outside, so that polygons with a common edge neither overlap nor
    leave a gap.

    Args:
        vertices: (n, 2), x and y, finite; the last is connected to the first.
        centre: coordinate of the centre of pixel 0.
    Returns: bool (rows, columns) of the polygon's bounding box, and its place in the image; empty if it is outside.
    """
    height, width = shape
    x, y = vertices[:, 0] - centre, vertices[:, 1] - centre
    top, bottom = (int(np.clip(np.ceil(v), 0, height)) for v in (y.min(), y.max()))
    left, right = (int(np.clip(np.ceil(v), 0, width)) for v in (x.min(), x.max()))
    box = np.s_[top:bottom], np.s_[left:right]
    winding = np.zeros((max(0, bottom - top), max(0, right - left) + 1), np.int32)
    if winding.shape[0] == 0 or winding.shape[1] == 1:
        return np.zeros((winding.shape[0], winding.shape[1] - 1), bool), *box
    rows, columns, signs = _crossings(x, y, top, bottom)
    columns = np.clip(columns, left, right).astype(np.int64) - left
    np.add.at(winding, (rows - top, columns), signs)
    return winding.cumsum(axis=1)[:, :-1] != 0, *box


def _crossings(x: np.ndarray, y: np.ndarray, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every row and every edge that crosses it: row, first column whose centre is not left of it, direction."""
    y1 = np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, y1)), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, y1)), top, bottom).astype(np.int64)
    edges = np.repeat(np.arange(len(x)), last - first)
    starts = np.repeat(np.cumsum(last - first) - (last - first), last - first)
    rows = first[edges] + np.arange(len(edges)) - starts
    # always from the upper end, so that an edge shared by two polygons is rounded in the same way
    upper = np.where((y <= y1)[edges], edges, (edges + 1) % len(x))
    lower = np.where((y <= y1)[edges], (edges + 1) % len(x), edges)
    at = x[upper] + (rows - y[upper]) * ((x[lower] - x[upper]) / (y[lower] - y[upper]))
    return rows, np.ceil(at), np.where((y1 > y)[edges], 1, -1)


def number_polygons(
    polygons: Sequence[np.ndarray], shape: tuple[int, int], centre: float = 0.5
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """Pixels (height, width) uint16 of polygons, numbered from 1 in order, and notes on irregularities.

    A pixel in several polygons belongs to the smallest, so that none hides another.
    """
    filled = [inside_polygon(vertices, shape, centre) for vertices in polygons]
    numbers = np.zeros(shape, np.uint16)
    claims = np.zeros(shape, np.uint16)
    for index in sorted(range(len(filled)), key=lambda i: -int(filled[i][0].sum())):
        pixels, rows, columns = filled[index]
        numbers[rows, columns][pixels] = index + 1
        claims[rows, columns] += pixels
    notes = []
    shared, empty = int((claims > 1).sum()), sum(not pixels.any() for pixels, _, _ in filled)
    notes += [f"{shared} pixels lie in several outlines, and went to the smallest"] if shared else []
    notes += [f"{empty} outlines hold no pixel centre of the image"] if empty else []
    return numbers, notes

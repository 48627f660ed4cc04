"""Sheets of small pictures with labelled rows and columns, masks as coloured contours. Part of conditionals.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pair_sheet import shrink

from jdm.evaluation.figures import COLOURS

MOST_BYTES = 280_000
_WIDTH = 1.15  # inches of a picture


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet."""

    image: np.ndarray
    """(*spatial), shown from black at 0 to white at 1; or (*spatial, 3)."""
    label: np.ndarray | None = None
    """(*spatial), outlined."""
    region: np.ndarray | None = None
    """(*spatial) bool, outlined dashed in white."""
    map: bool = False
    """The image is one of uncertainty, shown in colours."""


@dataclass(frozen=True)
class Line:
    """A row of a sheet."""

    name: str
    tiles: Sequence[Tile]


def write_sheet(path: Path, title: str, columns: Sequence[str], lines: Sequence[Line], plain: bool = True) -> None:
    """Write a PNG of at most MOST_BYTES; pictures smaller than their place are enlarged by repeating pixels.

    Args: plain: show every row a second time without outlines, so that these hide nothing.
    """
    rows = [
        Line(
            line.name if outlines else "", [tile if outlines else Tile(tile.image, map=tile.map) for tile in line.tiles]
        )
        for line in lines
        for outlines in ((True, False) if plain else (True,))
    ]
    height, width = max((tile.image.shape[:2] for row in rows for tile in row.tiles), key=lambda s: s[0] / s[1])
    tall = _WIDTH * height / width + 0.06
    figure = Figure(figsize=(0.5 + (_WIDTH + 0.06) * len(columns), 0.65 + tall * len(rows)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(title, fontsize=9)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for r, row in enumerate(rows):
        for c, axes in enumerate(grid[r]):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_frame_on(False)
            if c < len(row.tiles):
                _draw(axes, row.tiles[c])
            if r == 0:
                axes.set_title(columns[c], fontsize=8)
        grid[r][0].set_ylabel(row.name, fontsize=7)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    shrink(path, MOST_BYTES)


def _draw(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.image, cmap="magma" if tile.map else "gray", vmin=0, vmax=1, interpolation="nearest")
    if tile.label is not None:
        for value in np.unique(tile.label[tile.label > 0]).tolist():
            _outline(axes, tile.label == value, tuple(part / 255 for part in COLOURS[(value - 1) % len(COLOURS)]), "-")
    if tile.region is not None:
        _outline(axes, tile.region, (1.0, 1.0, 1.0), ":")


def _outline(axes: Axes, inside: np.ndarray, colour: tuple[float, ...], style: str) -> None:
    """The border of a mask between its pixels, also where it meets that of the picture."""
    rows, columns = (np.arange(-1, side + 1) for side in inside.shape)
    axes.contour(
        columns, rows, np.pad(inside, 1).astype(float), [0.5], colors=[colour], linestyles=style, linewidths=0.9
    )
    axes.set_xlim(-0.5, inside.shape[1] - 0.5)
    axes.set_ylim(inside.shape[0] - 0.5, -0.5)

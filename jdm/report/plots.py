"""Plots as inline SVG, which follows the page's colours, stays sharp and needs no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from jdm.report.content import Intervals, Lines, Plot, Strips

_WIDTH, _LEFT, _RIGHT, _ROW = 420, 8, 412, 40
_MOST_DOTS = 300
_STYLES = 5


def drawn(plot: Plot) -> str:
    """An SVG element with a description of what it shows; all text from data is escaped."""
    if isinstance(plot, Lines):
        return _lines(plot)
    return _rows(plot)


def _rows(plot: Strips | Intervals) -> str:
    """A row per set: its name and summary, and below it its dots or its interval."""
    if isinstance(plot, Strips):
        rows = {name: np.asarray(values, float) for name, values in plot.rows.items() if len(values)}
        shown = [value for values in rows.values() for value in values.tolist()]
        names = {name: f"{name}: n = {len(v)}, median {np.median(v):.3g}" for name, v in rows.items()}
    else:
        rows = plot.rows
        shown = [value for row in rows.values() for value in row if value is not None]
        names = {name: f"{name}: {_interval(row)}" for name, row in plot.rows.items()}
    ticks, place = _axis([*shown, *plot.marks.values()], _LEFT + 4, _RIGHT - 4)
    top = 16 * len(plot.marks)
    bottom = top + _ROW * len(rows) + 4
    parts = [*_grid(ticks, place, top, bottom), *_marks(plot.marks, place, bottom)]
    for number, (name, row) in enumerate(rows.items()):
        middle, style = top + _ROW * number + 28, f"s{number % _STYLES}"
        parts.append(f'<text x="{_LEFT}" y="{middle - 14}">{escape(names[name])}</text>')
        if isinstance(row, np.ndarray):
            parts += _strip(row, middle, style, place)
        else:
            parts += _bar(row, middle, style, place)
    summary = f"{plot.title}. {'; '.join(names.values())}. {_said(plot.marks)}"
    return _svg(parts, bottom + 36, summary, plot.x)


def _strip(values: np.ndarray, middle: int, style: str, place) -> list[str]:
    """Dots with a fixed jitter, a box of the quartiles and a line at the median."""
    at = np.linspace(0, len(values) - 1, min(len(values), _MOST_DOTS)).round().astype(int)
    dots = "".join(
        f"M{place(value):.1f} {middle - 5 + (7 * n) % 11}h.01" for n, value in enumerate(np.sort(values)[at].tolist())
    )
    low, median, high = (place(value) for value in np.quantile(values, [0.25, 0.5, 0.75]).tolist())
    return [
        f'<path class="dots {style}" d="{dots}"/>',
        f'<rect class="box {style}" x="{low:.1f}" y="{middle - 8}" width="{high - low:.1f}" height="16"/>',
        f'<path class="mean {style}" d="M{median:.1f} {middle - 8}v16"/>',
    ]


def _bar(row: tuple[float, float | None, float | None], middle: int, style: str, place) -> list[str]:
    mean, low, high = row
    parts = [f'<path class="mean {style}" d="M{place(mean):.1f} {middle - 6}v12"/>']
    if low is not None and high is not None:
        parts.append(f'<path class="mean {style}" d="M{place(low):.1f} {middle}H{place(high):.1f}"/>')
    return parts


def _lines(plot: Lines) -> str:
    """Curves; the vertical axis is logarithmic where the values span more than a factor of three."""
    series = {name: points for name, points in plot.series.items() if points}
    ys = [y for points in series.values() for _, y in points]
    ys += [limit for bars in plot.bars.values() for bar in bars for limit in bar[1:]]
    log = min(ys) > 0 and max(ys) > 3 * min(ys)
    xs = [x for points in series.values() for x, _ in points]
    left, top = 48, 16 * (len(series) + len(plot.marks)) + 8
    bottom = top + 200
    x_ticks, place = _axis([*xs, *plot.marks.values()], left, _RIGHT - 8, plot.log)
    y_ticks, height = _axis(ys, bottom, top, log)
    parts = _grid(x_ticks, place, top, bottom)
    for value, text in y_ticks:
        parts.append(f'<path class="grid" d="M{left} {height(value):.1f}H{_RIGHT}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{height(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for number, (name, points) in enumerate(series.items()):
        style, row = f"s{number % _STYLES}", 16 * number + 8
        path = "L".join(f"{place(x):.1f} {height(y):.1f}" for x, y in points)
        for x, low, high in plot.bars.get(name, ()):  # side by side, where several curves share an x
            at = place(x) + 3 * (number - (len(series) - 1) / 2)
            parts.append(f'<path class="bar {style}" d="M{at:.1f} {height(low):.1f}V{height(high):.1f}"/>')
        parts.append(f'<path class="line {style}" d="M{path}"/><path class="line {style}" d="M{_LEFT} {row}h30"/>')
        parts.append(f'<text x="{_LEFT + 38}" y="{row + 4}">{escape(name)}</text>')
    for number, (name, x) in enumerate(plot.marks.items(), len(series)):
        row = 16 * number + 8
        parts.append(f'<path class="mark" d="M{place(x):.1f} {top}V{bottom}M{_LEFT} {row}h30"/>')
        parts.append(f'<text x="{_LEFT + 38}" y="{row + 4}">{escape(name)}</text>')
    ends = "; ".join(f"{name}: from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in series.items())
    return _svg(parts, bottom + 36, f"{plot.title}. {plot.y} over {plot.x}. {ends}. {_said(plot.marks)}", plot.x)


def _axis(values: Sequence[float], start: float, end: float, log: bool = False):
    """Ticks (value, text) over the values, and the place of a value between `start` and `end`."""
    low, high = min(values), max(values)
    if low == high:
        around = max(abs(low) * 0.1, 1e-6)
        low, high = (low * 0.9, low * 1.1) if log else (low - around, low + around)
    scale = math.log10 if log else float
    ticks = _log_ticks(low, high) if log else _ticks(low, high)

    def place(value: float) -> float:
        return start + (end - start) * (scale(value) - scale(low)) / (scale(high) - scale(low))

    return ticks, place


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    values = [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:.{digits}f}" if digits < 6 and high < 1e6 else f"{value:.3g}") for value in values]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = high / low > 100
    values = [factor * 10.0**power for power in powers for factor in ((1,) if wide else (1, 2, 5))]
    return [(value, f"{value:.3g}") for value in values if low <= value <= high]


def _grid(ticks: Sequence[tuple[float, str]], place, top: int, bottom: int) -> list[str]:
    parts = [f'<path class="grid" d="M{_LEFT} {bottom}H{_RIGHT}"/>']
    for value, text in ticks:
        x = place(value)
        anchor = "start" if x < 20 else "end" if x > _WIDTH - 20 else "middle"
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="{anchor}">{text}</text>')
    return parts


def _marks(marks: Mapping[str, float], place, bottom: int) -> list[str]:
    """Dashed lines, each named above the rows on the side that has room."""
    parts = []
    for number, (name, value) in enumerate(marks.items()):
        x, y = place(value), 16 * number + 11
        anchor, beside = ("start", x + 4) if x < _WIDTH / 2 else ("end", x - 4)
        parts.append(f'<path class="mark" d="M{x:.1f} {y - 9}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{beside:.1f}" y="{y}" text-anchor="{anchor}">{escape(name)}</text>')
    return parts


def _said(marks: Mapping[str, float]) -> str:
    return "; ".join(f"{name} at {value:.4g}" for name, value in marks.items())


def _interval(row: tuple[float, float | None, float | None]) -> str:
    mean, low, high = row
    return f"{mean:+.4f}" + ("" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]")


def _svg(parts: Sequence[str], height: int, summary: str, x: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(summary.strip())}">{"".join(parts)}'
        f'<text class="tick" x="{_WIDTH / 2}" y="{height - 4}" text-anchor="middle">{escape(x)}</text></svg>'
    )

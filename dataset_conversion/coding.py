"""Decodes mask values according to `--labels` and `--threshold`.

A lossless mask may hold only declared values, because a similar value may be another class. A lossy mask (JPEG) of two
values, or any mask with a threshold given by the user, is thresholded, unless it seems to hold a third class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from jdm.data.case_io import label_dtype, one_channel
from jdm.data.raw_layout import few
from jdm.errors import ConfigError, DataError

TOLERANCE = 7
"""Largest change of black or white by lossy compression, in grey levels of 255."""
MAX_BETWEEN = 0.5
"""Largest share of pixels between black and white, as at very soft borders of small objects."""
_AREA = 3
"""Side in pixels of a square of one intermediate value that even soft or ringing borders never contain."""
_NOISE = 0.02
"""A value that is near only one of black and white, and exceeds this share of the pixels, is not noise."""


@dataclass(frozen=True)
class Coding:
    """Mask values in the source files, and their classes."""

    values: tuple[int, ...]
    classes: tuple[int, ...]
    labels: dict[str, int]
    """Class by name, background 0, in the order given."""
    threshold: float | None = None
    """For two values: masks are thresholded here; values above count as the larger one."""

    @property
    def declared(self) -> dict[str, int]:
        """Value by class name, background first; for a class with several values, the first."""
        return {name: self.values[self.classes.index(index)] for name, index in self.labels.items()}


def parse_coding(items: tuple[str, ...], threshold: float | None = None) -> Coding:
    """Parse `("0=background", "255=nuclei")`; values with the same name are one class.

    Raises: ConfigError naming the unsuitable item or threshold.
    """
    expected = "expected VALUE=NAME, background first, such as --labels 0=background 255=nuclei"
    values: list[int] = []
    classes: list[int] = []
    labels: dict[str, int] = {}
    for item in items:
        match = re.fullmatch(r"([0-9]{1,5})=([^=\s][^=]*)", item.strip())
        if not match:
            raise ConfigError(f"--labels {item!r}: {expected}")
        name = "background" if match[2].lower() == "background" else match[2]
        if int(match[1]) in values:
            raise ConfigError(f"--labels {item!r}: the value {match[1]} is given twice; {expected}")
        if name == "ignore":
            raise ConfigError("--labels: an ignore label is not supported yet; leave out the cases that use it")
        values.append(int(match[1]))
        classes.append(labels.setdefault(name, len(labels)))
    if next(iter(labels), "") != "background" or len(labels) < 2:
        raise ConfigError(f"--labels {' '.join(items)!r}: {expected}")
    if threshold is not None and not (len(values) == 2 and min(values) <= threshold < max(values)):
        raise ConfigError(
            f"--threshold {threshold:g} with --labels {' '.join(items)}: expected two values in --labels and a "
            f"threshold from {min(values)} to below {max(values)}; correct one of them"
        )
    return Coding(tuple(values), tuple(classes), labels, threshold)


def map_mask(grey: np.ndarray, lossy: bool, coding: Coding) -> tuple[np.ndarray, list[str]]:
    """Class indices of a mask (*spatial), and the repairs.

    Args:
        lossy: stored as JPEG, which changes values.
    Raises: ValueError naming the values that fit no class.
    """
    notes: list[str] = []
    declared = np.array(coding.values)
    exact = np.isin(grey, declared)
    if not exact.all():
        low, high = int(declared.min()), int(declared.max())
        threshold = (low + high) // 2 if lossy and len(declared) == 2 else None
        threshold = threshold if coding.threshold is None else coding.threshold
        if threshold is not None:
            grey = np.where(cut(grey, (low, high), threshold, lossy), high, low)
            notes.append(f"{int((~exact).sum())} pixels of other values than {low} and {high} cut at > {threshold:g}")
        elif lossy:
            grey = _nearest(grey, declared)
            notes.append(f"{int((~exact).sum())} pixels of a JPEG mask moved to the nearest declared value")
        else:
            raise ValueError(f"the mask holds {_seen(grey)}")
    order = np.argsort(declared)
    classes = np.array(coding.classes, label_dtype(max(coding.classes) + 1))[order]
    return classes[np.searchsorted(declared[order], grey)], notes


def _nearest(grey: np.ndarray, declared: np.ndarray) -> np.ndarray:
    """The declared value nearest to each pixel. Raises: ValueError naming values that are not near exactly one."""
    found, inverse = np.unique(grey, return_inverse=True)
    distance = np.abs(found[:, None].astype(np.float64) - declared)
    nearest = declared[distance.argmin(axis=1)][inverse].reshape(grey.shape)
    close = np.diff(np.sort(declared)).min() <= 2 * TOLERANCE
    far = np.abs(grey.astype(np.float64) - nearest) > (0 if close else TOLERANCE)
    if far.any():
        raise ValueError(f"the mask holds {_seen(grey[far])}")
    return nearest


def cut(grey: np.ndarray, ends: tuple[float, float], threshold: float, lossy: bool = False) -> np.ndarray:
    """Whether each pixel lies above the threshold.

    Args:
        grey: (*spatial).
        ends: the two declared values.
    Raises: ValueError if the mask seems to hold a third class, or does not look like a mask.
    """
    low, high = ends
    near = TOLERANCE * (high - low) / 255
    values = np.unique(grey)
    least = low if low == 0 and grey.dtype.kind != "f" else low - near
    outside = values[(values < least) | (values > high + near)]
    if outside.size:
        raise ValueError(f"the mask holds {_seen(grey[np.isin(grey, outside)])}")
    if low < values[-1] <= threshold or threshold < values[0] < high - near:
        side = "above" if values[-1] <= threshold else "below"
        raise ValueError(f"the mask holds {_seen(grey)}, nothing {side} the threshold {threshold:g}")
    if lossy and threshold < values[-1] < high - near:
        raise ValueError(f"the mask holds values up to {values[-1]:g}, nothing like {high:g}")
    between = (grey > low + near) & (grey < high - near)
    if between.mean() > MAX_BETWEEN and len(values) > 2:
        raise ValueError(
            f"{between.mean():.0%} of the mask's pixels lie between {low:g} and {high:g} (images and masks swapped?)"
        )
    own = _third_class(grey, values, between, (low + near, high - near), lossy)
    if own.size:
        raise ValueError(f"the mask holds {_seen(grey[np.isin(grey, own)])}, which seems to be a class of its own")
    return grey > threshold


def _third_class(
    grey: np.ndarray, values: np.ndarray, between: np.ndarray, bounds: tuple[float, float], lossy: bool
) -> np.ndarray:
    """Values that look like another class rather than soft or noisy borders between the two ends."""
    if len(values) <= 2:
        return values[:0]
    size = [_AREA if side >= _AREA else 1 for side in grey.shape]
    flat = ndimage.minimum_filter(grey, size) == ndimage.maximum_filter(grey, size)
    filled = np.unique(grey[between & flat])
    if filled.size or lossy:
        return filled
    if len(values) == 3 and bounds[0] < values[1] < bounds[1]:
        return values[1:2]
    low, high = values[values <= bounds[0]], values[values >= bounds[1]]
    if between.any() or (len(low) > 1) == (len(high) > 1):  # noise is at both ends
        return values[:0]
    many = [v for v in (*low[1:], *high[:-1]) if (grey == v).mean() > _NOISE or (flat & (grey == v)).any()]
    return np.array(many, values.dtype)


def _seen(grey: np.ndarray) -> str:
    values, counts = np.unique(grey, return_counts=True)
    return few([f"{v:g} ({n} pixels)" for v, n in zip(values.tolist(), counts.tolist(), strict=True)], 12)


def collapsed(mask: np.ndarray, lossy: bool, where: Path) -> tuple[np.ndarray, list[str]]:
    """(*spatial) of a mask (channels, *spatial), and the repair. Raises: DataError if its channels differ."""
    if mask.shape[0] == 1:
        return mask[0], []
    spread = int((mask.max(axis=0).astype(int) - mask.min(axis=0)).max()) if lossy else 0
    if 0 < spread <= TOLERANCE:
        grey = np.round(mask.mean(axis=0)).astype(mask.dtype)
        return grey, [f"{mask.shape[0]} channels that differ by up to {spread} collapsed to their mean"]
    return one_channel(mask, where), [f"{mask.shape[0]} equal channels collapsed"]


def decode_mask(
    mask: np.ndarray, lossy: bool, where: Path, coding: Coding, advice: Callable[[], str | None]
) -> tuple[np.ndarray, list[str]]:
    """Class indices (*spatial) of a mask (channels, *spatial), and the repairs.

    Args:
        advice: returns the flags that would fit all masks (`fitting.fitting_flags`); called only on an error.
    Raises: DataError if the channels differ or values fit no class, with the flags that would fit.
    """
    grey, notes = collapsed(mask, lossy, where)
    try:
        label, repairs = map_mask(grey, lossy, coding)
    except ValueError as error:
        flags = advice()
        anew = "get lossless masks, such as PNG" if lossy else "save the masks again"
        cure = f"give {flags}" if flags else f"{anew}, with one value for each class (not for each object)"
        declared = ", ".join(map(str, coding.values))
        raise DataError(f"{where}: {error}; expected {declared} as --labels says; {cure}") from None
    return label, [*notes, *repairs]

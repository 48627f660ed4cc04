"""A pair as it is shown: slices the right way up, values that a browser can hold, and a first window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdm.data.case_io import Pair
from jdm.data.raster import Geometry

_SOFT_TISSUE = (-160.0, 240.0)
"""First window of CT, Hounsfield units."""
Cut = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Shown:
    """A pair, ready to be sent slice by slice."""

    image: np.ndarray
    """(channels, slices, y, x): uint8 of red, green, blue, or uint16 of which `values` gives the meaning."""
    label: np.ndarray
    """(slices, y, x), a view of the pair's label; writing to it changes that."""
    values: tuple[tuple[float, float], ...]
    """Per channel: offset and scale, so that the pixel value is offset + scale * number; empty for colours."""
    windows: tuple[tuple[float, float], ...]
    """Per channel: lowest and highest pixel value of the first window; empty for colours."""

    def describe(self) -> dict[str, Any]:
        """What the page must know before it asks for a slice."""
        channels, slices, height, width = self.image.shape
        return {
            "channels": channels, "slices": slices, "height": height, "width": width, "colours": not self.values,
            "values": self.values, "windows": self.windows, "first": first_slice(self.label),
        }  # fmt: skip

    def plane(self, number: int) -> bytes:
        """One slice: its label (y, x) as uint16, then its image (channels, y, x), little-endian, row by row."""
        image = self.image[:, number]
        kind = "<u2" if self.values else "u1"
        return self.label[number].astype("<u2").tobytes() + np.ascontiguousarray(image, dtype=kind).tobytes()


def shown(pair: Pair, channel_names: Sequence[str], axis: int, cut: Cut | None = None) -> Shown:
    """Prepare a pair.

    Args:
        axis: array axis along which volumes are sliced.
        cut: the part to show, in slices, y, x as shown.
    """
    image, label = (upright(array, pair.label.ndim, pair.geometry, axis) for array in (pair.image, pair.label))
    if cut is not None:
        image, label = image[(..., *cut)], label[cut]
    if len(image) == 3 and image.dtype == np.uint8 and pair.label.ndim == 2:
        return Shown(image, label, (), ())
    numbers, values, windows = [], [], []
    for name, channel in zip(channel_names, image, strict=True):
        low, high = float(channel.min()), float(channel.max())
        whole = channel.dtype.kind in "iub" and high - low <= 65535
        scale = 1.0 if whole or high == low else (high - low) / 65535
        numbers.append(np.rint((channel.astype(np.float64) - low) / scale).astype(np.uint16))
        values.append((low, scale))
        windows.append(_window(name, channel))
    return Shown(np.stack(numbers), label, tuple(values), tuple(windows))


def upright(array: np.ndarray, spatial: int, geometry: Geometry | None, axis: int) -> np.ndarray:
    """A view (..., slices, y, x) of an array (..., *spatial), as radiologists hang pictures.

    Axial slices have the front at the top and the patient's left on the right; upright ones have the head at the top.
    Pictures, and volumes of unknown orientation, stay as they are stored.

    Args: spatial: number of spatial axes, 2 or 3.
    """
    if spatial == 2:
        return array[..., None, :, :]
    rest = [a for a in range(3) if a != axis]
    flips = {a: False for a in range(3)}
    if geometry is not None:
        columns = np.reshape(geometry.direction, (3, 3))[:, ::-1]  # of array axes z, y, x; rows: left, back, head
        towards = np.abs(columns).argmax(0)
        rest.sort(key=lambda a: -towards[a])  # rows run along the body, or else from front to back
        for a in range(3):
            grows = columns[towards[a], a] > 0
            flips[a] = bool(grows) if a == rest[0] and towards[a] == 2 else not grows
    lead = array.ndim - 3
    view = array.transpose(*range(lead), *[lead + a for a in (axis, *rest)])
    return view[(..., *[slice(None, None, -1 if flips[a] else 1) for a in (axis, *rest)])]


def first_slice(label: np.ndarray) -> int:
    """The slice (of slices, y, x) with the largest foreground; the middle one if there is none."""
    counts = np.count_nonzero(label, axis=(1, 2))
    return int(counts.argmax()) if counts.any() else len(label) // 2


def _window(name: str, channel: np.ndarray) -> tuple[float, float]:
    if name.upper() == "CT":
        return _SOFT_TISSUE
    if channel.dtype == np.uint8:
        return 0.0, 255.0
    some = channel.ravel()[:: max(1, channel.size // 2**20)]  # enough of a large volume
    low, high = (float(value) for value in np.percentile(some, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)

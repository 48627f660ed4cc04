"""Pictures with a class and no mask, grey where they can be, with classes.csv. Shared by their converters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Content, Item, Reading
from dataset_conversion.coding import TOLERANCE
from dataset_conversion.ledger import Ledger
from dataset_conversion.rules import read_source, turn
from jdm.data.labels import NO_MASKS
from jdm.data.raster import Raster
from jdm.errors import DataError


@dataclass(frozen=True)
class Xray:
    """An image with its metadata."""

    stem: str
    image: Path
    label: str
    """Its class, such as PNEUMONIA."""
    part: str
    """Part of the source, such as train."""
    group: str | None
    """Patient."""


def xray_content(xrays: Sequence[Xray], ledger: Ledger, published: Mapping[str, int] | None = None) -> Content:
    """Images as 8-bit grey PNG, and their classes; the part test becomes imagesTs."""
    items = [
        Item("test" if x.part == "test" else "train", x.stem, (x.image,), partial(read_grey, x.image), x.group, x.part,
             x.label)
        for x in xrays
    ]  # fmt: skip
    counts = Counter(x.label for x in xrays)
    ledger.notes.append("classes: " + ", ".join(f"{count} {label}" for label, count in sorted(counts.items())))
    return Content(items, NO_MASKS, ".png", ("grey",), published or {}, masks=False)


def read_grey(path: Path, *, strict: bool = True) -> Reading:
    """A picture, of one channel if its colours are equal.

    Args: strict: raise for colours, and for more than 8 bits.
    Raises: DataError for these, or as `read_source`.
    """
    image, _, notes = read_source(path, label=False)
    array = image.array
    if strict and array.dtype != np.uint8:
        raise DataError(
            f"{path}: pixels are {array.dtype}; expected 8 bits, as in the others, so that grey levels are comparable; "
            "convert it"
        )
    if array.shape[0] > 1:
        spread = int((array.max(axis=0).astype(int) - array.min(axis=0)).max())
        if spread > TOLERANCE and strict:
            raise DataError(
                f"{path}: its colours differ by up to {spread}; expected grey; leave out drawings and photographs"
            )
        if spread <= TOLERANCE:
            array = as_grey(array) if spread else array[:1]
            notes.append("grey stored as colour: made grey")
    notes += [f"turned upright (orientation tag {image.orientation})"] if image.orientation != 1 else []
    return Reading(Raster(turn(array, image.orientation), (1.0, 1.0)), None, notes)


def as_grey(array: np.ndarray) -> np.ndarray:
    """(1, H, W): the mean of the channels of (channels, H, W), in their type."""
    return np.round(array.mean(axis=0, keepdims=True)).astype(array.dtype)

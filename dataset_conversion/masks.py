"""What the grey levels of published masks mean, where the user need not say it: yes/no masks and numbered objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset_conversion.coding import TOLERANCE, collapsed
from dataset_conversion.pictures import Decoded
from jdm.data.advice import map_values
from jdm.errors import DataError

THRESHOLD = 127
"""Grey levels above it are white in a mask of black and white."""
MAX_BETWEEN = 0.2
"""Share of pixels that may lie between black and white; lossy storage and soft borders make a few per cent."""


def yes_or_no(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """0/1 of a black-and-white mask (channels, y, x): > 127, or as it is where it holds only 0 and 1.

    Raises: DataError if its channels differ, or if it is neither black and white nor 0 and 1.
    """
    return _yes_or_no(*collapsed(mask, kind == "jpeg", where), where)


def any_colour(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """The same for a mask that may be drawn in one colour: a pixel counts if any channel does."""
    if mask.shape[0] > 1 and not (mask[1:] == mask[:1]).all():
        return _yes_or_no(mask.max(axis=0), ["a colour mask: foreground where any channel is"], where)
    return yes_or_no(mask, kind, where)


def _yes_or_no(grey: np.ndarray, notes: list[str], where: Path) -> Decoded:
    """As `yes_or_no`, of one channel (y, x) and the repairs so far."""
    highest = int(grey.max(initial=0))
    if grey.dtype != np.uint8:
        raise DataError(f"{where}: the mask holds {grey.dtype}; expected 8 bits, black and white; save it so")
    if highest <= 1:
        return Decoded(grey.copy(), notes)
    if highest <= THRESHOLD:
        cure = map_values(where, np.unique(grey).tolist(), {"background": 0, "foreground": 255})
        raise DataError(f"{where}: the highest value of the mask is {highest}; expected 0 and 255, or 0 and 1; {cure}")
    between = (grey > TOLERANCE) & (grey < 255 - TOLERANCE)
    if between.mean() > MAX_BETWEEN:
        raise DataError(
            f"{where}: {between.mean():.0%} of the mask's pixels are neither black nor white; expected a mask; this "
            "looks like a photograph, check that images and masks are not mixed up"
        )
    moved = int(((grey > 0) & (grey < 255)).sum())
    notes = [*notes, f"{moved} pixels of other values than 0 and 255 cut at > {THRESHOLD}"] if moved else notes
    return Decoded((grey > THRESHOLD).astype(np.uint8), notes)


def numbered(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """0/1 of a mask (channels, y, x) that numbers its objects, and the numbers.

    Raises: DataError if its channels differ, or if it is lossy, so that numbers cannot be trusted.
    """
    grey, notes = collapsed(mask, False, where)
    if kind == "jpeg" or grey.dtype.kind not in "iu":
        raise DataError(
            f"{where}: numbers of objects in a {kind.upper()} file of {grey.dtype} cannot be trusted; expected a "
            "lossless file of integers; get the original"
        )
    return Decoded((grey > 0).astype(np.uint8), notes, grey.astype(np.uint16))

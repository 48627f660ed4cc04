"""Decodes published masks that need no --labels: black-and-white masks and numbered objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset_conversion.coding import TOLERANCE, collapsed
from dataset_conversion.pictures import Decoded
from jdm.data.advice import map_values
from jdm.errors import DataError

THRESHOLD = 127
"""Grey levels above this are white in a black-and-white mask."""
MAX_BETWEEN = 0.2
"""Largest share of pixels between black and white; lossy compression and soft borders cause a few per cent."""


def yes_or_no(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """Decode a black-and-white mask (channels, y, x) to 0/1: > 127, or unchanged if it holds only 0 and 1.

    Raises: DataError if its channels differ, or if it is neither black and white nor 0 and 1.
    """
    return _yes_or_no(*collapsed(mask, kind == "jpeg", where), where)


def any_colour(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """Like `yes_or_no`, for a mask that may be drawn in one colour: foreground if any channel is."""
    if mask.shape[0] > 1 and not (mask[1:] == mask[:1]).all():
        return _yes_or_no(mask.max(axis=0), ["a colour mask: foreground where any channel is"], where)
    return yes_or_no(mask, kind, where)


def _yes_or_no(grey: np.ndarray, notes: list[str], where: Path) -> Decoded:
    """Like `yes_or_no`, for one channel (y, x), given the repairs so far."""
    highest = int(grey.max(initial=0))
    if grey.dtype != np.uint8:
        raise DataError(f"{where}: the mask holds {grey.dtype}; expected 8 bits, black and white; convert it")
    if highest <= 1:
        return Decoded(grey.copy(), notes)
    if highest <= THRESHOLD:
        cure = map_values(where, np.unique(grey).tolist(), {"background": 0, "foreground": 255})
        raise DataError(f"{where}: the highest value of the mask is {highest}; expected 0 and 255, or 0 and 1; {cure}")
    between = (grey > TOLERANCE) & (grey < 255 - TOLERANCE)
    if between.mean() > MAX_BETWEEN:
        raise DataError(
            f"{where}: {between.mean():.0%} of the mask's pixels are neither black nor white; expected a mask; this "
            "looks like a photograph, check that images and masks are not swapped"
        )
    moved = int(((grey > 0) & (grey < 255)).sum())
    notes = [*notes, f"{moved} pixels of other values than 0 and 255 cut at > {THRESHOLD}"] if moved else notes
    return Decoded((grey > THRESHOLD).astype(np.uint8), notes)


def numbered(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """Decode a mask (channels, y, x) that numbers its objects to 0/1 and the numbers.

    Raises: DataError if its channels differ, or if it is lossy, so that its numbers are unreliable.
    """
    grey, notes = collapsed(mask, False, where)
    if kind == "jpeg" or grey.dtype.kind not in "iu":
        raise DataError(
            f"{where}: object numbers in a {kind.upper()} file of {grey.dtype} are unreliable; expected a lossless "
            "file of integers; get the original"
        )
    return Decoded((grey > 0).astype(np.uint8), notes, grey.astype(np.uint16))

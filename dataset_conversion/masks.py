"""What the grey levels of published masks mean, where the user need not say it: yes/no masks and numbered objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset_conversion.pictures import Decoded
from dataset_conversion.rules import THRESHOLD, check_black_and_white, collapsed
from jdm.errors import DataError


def yes_or_no(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """0/1 of a mask (channels, y, x) that is black and white: > 127, or as it is where it holds only 0 and 1.

    Raises: DataError if its channels differ, or it is neither black-and-white nor 0 and 1.
    """
    return yes_or_no_grey(*collapsed(mask, where), where)


def any_colour(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """The same for a mask whose foreground may be drawn in one colour: a pixel counts if any channel does."""
    notes = []
    if mask.shape[0] > 1 and not (mask[1:] == mask[:1]).all():
        notes = ["a colour mask: foreground where any channel is"]
        return yes_or_no_grey(mask.max(axis=0), notes, where)
    return yes_or_no(mask, kind, where)


def yes_or_no_grey(grey: np.ndarray, notes: list[str], where: Path) -> Decoded:
    """As `yes_or_no`, of one channel (y, x) with the repairs so far."""
    highest = int(grey.max(initial=0))
    if grey.dtype != np.uint8:
        raise DataError(f"{where}: the mask holds {grey.dtype}; expected 8 bits, black and white; save it so")
    if highest <= 1:
        return Decoded(grey.copy(), notes)
    if highest <= THRESHOLD:
        raise DataError(
            f"{where}: the highest value of the mask is {highest}; expected 0 and 255, or 0 and 1; correct the mask, "
            "or say what its values mean with jdm-convert pairs --labels"
        )
    check_black_and_white(grey, where)
    moved = int(((grey > 0) & (grey < 255)).sum())
    notes = [*notes, f"{moved} pixels of other values than 0 and 255 cut at > {THRESHOLD}"] if moved else notes
    return Decoded((grey > THRESHOLD).astype(np.uint8), notes)


def numbered(mask: np.ndarray, kind: str, where: Path) -> Decoded:
    """0/1 of a mask (channels, y, x) that numbers its objects, and the numbers.

    Raises: DataError if its channels differ, or if it is lossy, so that numbers cannot be trusted.
    """
    grey, notes = collapsed(mask, where)
    if kind == "jpeg" or grey.dtype.kind not in "iu":
        raise DataError(
            f"{where}: numbers of objects in a {kind.upper()} file of {grey.dtype} cannot be trusted; expected a "
            "lossless file of integers; get the original"
        )
    return Decoded((grey > 0).astype(np.uint8), notes, grey.astype(np.uint16))

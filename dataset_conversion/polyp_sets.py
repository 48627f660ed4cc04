"""What the converters of polyp datasets share."""

from __future__ import annotations

from pathlib import Path

from dataset_conversion.ledger import Ledger
from dataset_conversion.source import find_with, missing_layout
from jdm.data.raw_layout import few

LABELS = {"background": 0, "polyp": 1}
IMAGES, MASKS = ("images", "image"), ("masks", "mask")


def image_and_mask_folders(
    root: Path, expected: str, ledger: Ledger, images: tuple[str, ...] = IMAGES, masks: tuple[str, ...] = MASKS
) -> tuple[Path, Path]:
    """The folders of images and masks that lie side by side, nearest to `root`; others are noted.

    Raises: DataError naming the `expected` layout if there are none.
    """
    found = find_with(root, images, masks)
    if not found:
        raise missing_layout(root, expected)
    if len(found) > 1:
        rest = few([str(pair[0].parent.relative_to(root)) for pair in found[1:]])
        ledger.notes.append(f"{found[0][0].parent.relative_to(root)} was read; not read: {rest}")
    return found[0][0], found[0][1]

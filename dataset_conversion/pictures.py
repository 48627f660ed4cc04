"""Pictures and their masks -> cases with the same channels and type. Shared by the converters of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Content, Item, Reading
from dataset_conversion.ledger import Ledger
from dataset_conversion.rules import PICTURE_KINDS, list_pictures, pair_by_stem, read_source, turn, upright
from jdm.data.picture_io import peek_picture
from jdm.data.raster import Raster, can_hold, sniff
from jdm.errors import DataError


@dataclass(frozen=True)
class Decoded:
    """A decoded mask."""

    label: np.ndarray
    """(y, x) class values."""
    notes: list[str] = field(default_factory=list)
    """Repairs."""
    instances: np.ndarray | None = None
    """(y, x) 0 and a number per object."""
    remarks: list[str] = field(default_factory=list)
    """Remarks that are not repairs."""


Decode = Callable[[np.ndarray, str, Path], Decoded]
"""(stored mask (channels, y, x), kind of file, its path) -> the decoded mask."""
Annotate = Callable[[Raster, Path], tuple[np.ndarray, Decoded]]
"""(image as stored, its path) -> the upright image (channels, y, x) and its mask."""


@dataclass(frozen=True)
class Picture:
    """An image of the source, and how to read its mask."""

    split: str
    stem: str
    image: Path
    annotate: Annotate | None = None
    """None: no mask."""
    files: tuple[Path, ...] = ()
    """Files of the annotation."""
    group: str | None = None
    part: str | None = None
    class_name: str | None = None


@dataclass(frozen=True)
class Form:
    """Channels and pixel type in which all images of a dataset are stored."""

    channels: int
    dtype: np.dtype

    @property
    def file_ending(self) -> str:
        return ".png" if can_hold(".png", self.channels, self.dtype) else ".tif"

    @property
    def names(self) -> tuple[str, ...]:
        return ("R", "G", "B") if self.channels == 3 else ("grey",)


def picture_content(
    pictures: Sequence[Picture], labels: Mapping[str, int], published: Mapping[str, int] | None = None,
    files: Mapping[str, str] | None = None,
) -> Content:  # fmt: skip
    """Cases of pictures; all are stored as RGB if any is in colour, otherwise as grey.

    Raises: DataError if their pixel types differ.
    """
    form = common_form([picture.image for picture in pictures])
    items = [
        Item(p.split, p.stem, (p.image, *p.files), partial(_read, p, form), p.group, p.part, p.class_name)
        for p in pictures
    ]
    return Content(items, labels, form.file_ending, form.names, published or {}, files or {})


def common_form(paths: Iterable[Path]) -> Form:
    """Common channels and pixel type of all images; unreadable images are refused later, one by one."""
    paths = list(paths)
    kinds: Counter[str] = Counter()
    channels = 1
    for path in paths:
        try:
            kind = sniff(path)
            if kind in PICTURE_KINDS:
                count, dtype = peek_picture(path, kind)
                channels = max(channels, count)
                kinds[str(dtype)] += 1
        except DataError:
            continue
    if len(kinds) > 1:
        raise DataError(
            f"{paths[0].parent}: pixels are of several types ({', '.join(f'{n} {k}' for k, n in kinds.items())}); "
            "expected one type, so that grey levels are comparable; convert them to one type"
        )
    return Form(channels, np.dtype(next(iter(kinds), "uint8")))


def _read(picture: Picture, form: Form) -> Reading:
    """Read one picture and its mask. Raises: DataError if they cannot be used without loss."""
    image, _, notes = read_source(picture.image, label=False)
    if picture.annotate is None:
        array, decoded = turn(image.array, image.orientation), None
        notes += [f"turned upright (orientation tag {image.orientation})"] if image.orientation != 1 else []
    else:
        array, decoded = picture.annotate(image, picture.image)
        notes += decoded.notes
    if array.shape[0] < form.channels:
        array = np.repeat(array, form.channels, axis=0)
        notes.append("grey image stored as RGB, as others of the dataset are")
    raster = Raster(array, (1.0, 1.0))
    if decoded is None:
        return Reading(raster, None, notes)
    return Reading(raster, decoded.label, notes, decoded.instances, decoded.remarks)


def from_mask(path: Path, decode: Decode) -> Annotate:
    """Annotation from one mask file of the image's size."""

    def annotate(image: Raster, where: Path) -> tuple[np.ndarray, Decoded]:
        mask, kind, notes = read_source(path, label=True)
        array, stored, turned = upright(image, mask, where)
        found = decode(stored, kind, path)
        return array, Decoded(found.label, [*notes, *turned, *found.notes], found.instances, found.remarks)

    return annotate


def folder_pairs(
    split: str, images: Path, masks: Path | None, decode: Decode, ledger: Ledger, *,
    mask_stem: Callable[[str], str] = str, stem: Callable[[str], str] = str,
    group: Callable[[str], str | None] = lambda _: None, part: str | None = None,
) -> list[Picture]:  # fmt: skip
    """The pictures of a folder, each with the mask of the same stem in another folder, sorted by stem.

    Args:
        mask_stem: maps a mask's stem to the image's stem.
        stem: maps the image's stem to the name of the case.
        group: maps the image's stem to its group.
    Raises: DataError as `list_pictures` and `pair_by_stem`.
    """
    pictures, aside = list_pictures(images)
    found: dict[str, Path] = {}
    if masks is not None:
        named, more = list_pictures(masks)
        aside += more
        found = {mask_stem(name): path for name, path in named.items()}
        pair_by_stem(pictures, found, (images, masks))
    for path, reason in aside:
        ledger.add("ignored", split, None, [path], [reason])
    return [
        Picture(split, stem(name), path, from_mask(found[name], decode), (found[name],), group(name), part)
        if masks is not None
        else Picture(split, stem(name), path, None, (), group(name), part)
        for name, path in sorted(pictures.items())
    ]

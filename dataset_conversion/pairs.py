"""A folder of images and a folder of masks -> nnU-Net raw dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset_conversion.ledger import Ledger
from dataset_conversion.options import PairsOptions
from dataset_conversion.rules import (
    PICTURE_KINDS,
    ValueMap,
    case_ids,
    list_pictures,
    map_mask,
    pair_by_stem,
    parse_value_map,
    read_source,
    turn,
    upright,
)
from dataset_conversion.target import Conversion, finish, new_dataset
from jdm.data.picture_io import peek_picture
from jdm.data.raster import Raster, can_hold, sniff
from jdm.data.raw_dataset import Pair, write_case, write_dataset_json, write_image
from jdm.errors import ConfigError, DataError


@dataclass(frozen=True)
class _Case:
    split: str
    case_id: str
    image: Path
    mask: Path | None
    renamed: tuple[str, ...]
    """Note on how the id came about, if it is not the stem."""


@dataclass(frozen=True)
class _Form:
    """What all images of the dataset are stored as."""

    channels: int
    file_ending: str


def convert_pairs(options: PairsOptions) -> Conversion:
    """Convert, and return what was made.

    Raises: DataError for missing counterparts, clashing stems, images of several bit depths, nothing left to train on,
        or, with `strict`, any refusal or duplicate; ExistsError, ConfigError as `new_dataset`.
    """
    values = parse_value_map(options.labels)
    if options.test_masks is not None and options.test_images is None:
        raise ConfigError("--test-masks without --test-images: expected both; add --test-images FOLDER")
    ledger = Ledger(
        {
            "converter": "pairs", "images": str(options.images), "masks": str(options.masks),
            "test images": str(options.test_images), "test masks": str(options.test_masks),
            "labels": " ".join(options.labels),
        }
    )  # fmt: skip
    with new_dataset(options.id, options.name, options.overwrite) as (partial, final):
        taken: set[str] = set()
        cases = _cases("train", options.images, options.masks, taken, ledger)
        if options.test_images is not None:
            cases += _cases("test", options.test_images, options.test_masks, taken, ledger)
        form = _common_form([case.image for case in cases])
        foreground = 0
        for case in tqdm(cases, desc="converting", unit="case", disable=None):
            foreground += _convert_case(partial, case, form, values, ledger)
        names = ("R", "G", "B") if form.channels == 3 else ("grey",)
        training = sum(e.status in ("accepted", "repaired") and e.split == "train" for e in ledger.entries)
        write_dataset_json(
            partial, channel_names=names, labels=values.labels, file_ending=form.file_ending, num_training=training
        )
        return finish(partial, final, ledger, foreground, options.strict)


def _cases(split: str, images: Path, masks: Path | None, taken: set[str], ledger: Ledger) -> list[_Case]:
    """Cases of one split, sorted by stem; `taken` as for `case_ids`."""
    pictures, aside = list_pictures(images)
    found: dict[str, Path] = {}
    if masks is not None:
        found, more = list_pictures(masks)
        aside += more
        pair_by_stem(pictures, found, (images, masks))
    for path, reason in aside:
        ledger.add("ignored", split, None, [path], [reason])
    ids = case_ids(sorted(pictures), split, taken)
    return [
        _Case(
            split,
            case_id,
            pictures[stem],
            found.get(stem),
            () if case_id == stem else (f"{stem!r} renamed {case_id!r}",),
        )
        for stem, case_id in ids.items()
    ]


def _common_form(paths: list[Path]) -> _Form:
    """Channels and file ending that hold every image; unreadable ones are refused later, one by one."""
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
            "expected one, since grey levels would not compare; convert them to one type"
        )
    dtype = np.dtype(next(iter(kinds), "uint8"))
    return _Form(channels, ".png" if can_hold(".png", channels, dtype) else ".tif")


def _convert_case(partial: Path, case: _Case, form: _Form, values: ValueMap, ledger: Ledger) -> bool:
    """Write one case, or enter it as refused; whether it is a training case with foreground."""
    files = [case.image, *([case.mask] if case.mask else [])]
    suffix = "Tr" if case.split == "train" else "Ts"
    foreground = False
    try:
        image, _, notes = read_source(case.image, label=False)
        notes = [*case.renamed, *notes]
        if case.mask is None:
            array, label = turn(image.array, image.orientation), None
            notes += [f"turned upright (orientation tag {image.orientation})"] if image.orientation != 1 else []
        else:
            mask, kind, more = read_source(case.mask, label=True)
            array, stored, turned = upright(image, mask, case.image)
            label, mapped = map_mask(stored, kind, values, case.mask)
            notes += more + turned + mapped
            foreground = bool(label.any()) and case.split == "train"
        if array.shape[0] < form.channels:
            array = np.repeat(array, form.channels, axis=0)
            notes.append("grey image stored as RGB, as others of the folder are")
        if label is None:
            write_image(partial / f"images{suffix}", case.case_id, Raster(array, (1.0, 1.0)), form.file_ending)
        else:
            pair = Pair(case.case_id, array, label, (1.0, 1.0))
            write_case(partial, pair, form.file_ending, f"labels{suffix}", f"images{suffix}")
    except DataError as error:
        ledger.add("refused", case.split, case.case_id, files, [str(error)])
        return False
    ledger.see(array, case.split, case.case_id)
    ledger.add("repaired" if notes else "accepted", case.split, case.case_id, files, notes)
    return foreground

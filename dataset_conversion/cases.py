"""Steps common to all converters: gather cases; read, check and write each; write dataset.json, folds, ledger."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset_conversion.groups import given_groups, likely_pattern, write_group_splits
from dataset_conversion.ledger import Ledger, printable
from dataset_conversion.options import SourceOptions
from dataset_conversion.rules import case_ids
from dataset_conversion.source import open_source
from dataset_conversion.target import Conversion, finish, new_dataset
from jdm.data.image_io import write_raster
from jdm.data.raster import Raster
from jdm.data.raw_dataset import Pair, write_case, write_dataset_json, write_image
from jdm.data.raw_layout import few
from jdm.errors import DataError
from jdm.system.files import write_text


@dataclass(frozen=True)
class Reading:
    """Content of one case's files, in the dataset's form."""

    image: Raster
    label: np.ndarray | None
    """(*spatial) class values; None for a case without segmentation."""
    notes: list[str] = field(default_factory=list)
    """Repairs."""
    instances: np.ndarray | None = None
    """(*spatial) 0 and a number per object."""
    remarks: list[str] = field(default_factory=list)
    """Remarks that are not repairs."""


@dataclass(frozen=True)
class Item:
    """A case of the source."""

    split: str
    """train or test."""
    stem: str
    """Becomes the case id after it is made plain and unique."""
    files: tuple[Path, ...]
    read: Callable[[], Reading]
    """Raises: DataError if the case must be refused."""
    group: str | None = None
    """Group, such as a patient or sequence."""
    part: str | None = None
    """Part of the dataset under which it is counted; by default its split."""
    class_name: str | None = None
    """Class of the image as a whole."""


@dataclass(frozen=True)
class Content:
    """Content of a source."""

    items: Sequence[Item]
    """If one has a class, all are listed in classes.csv."""
    labels: Mapping[str, int]
    file_ending: str
    channels: tuple[str, ...] | None
    """None: derived from the first case."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Published number of cases by part."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Text files to store beside dataset.json, by name."""
    masks: bool = True
    """False: the images have no segmentation, and go to imagesTs."""


def convert(
    options: SourceOptions, kind: str, name: str, gather: Callable[[Path, Ledger], Content],
    asked: Mapping[str, str] | None = None,
) -> Conversion:  # fmt: skip
    """Convert a folder or archive; with `options.check`, only report the result.

    Args:
        kind: the converter's name on the command line.
        name: name of the dataset, if the options give none.
        gather: finds the cases below a folder, and records other files in the ledger.
        asked: options to list in the record.
    Raises: DataError as `open_source`, `gather` and `fill`; ExistsError, ConfigError as `new_dataset`.
    """
    with open_source(options.source) as source:
        ledger = Ledger({"converter": kind, "source": str(options.source), **(asked or {})}, shown=source.shown)
        with new_dataset(options.id, options.name or name, options.overwrite, options.check) as target:
            return fill(target, gather(source.root, ledger), ledger, options.strict, options.groups)


def fill(
    target: tuple[Path | None, Path], content: Content, ledger: Ledger, strict: bool, groups: str | None
) -> Conversion:
    """Write every case of `content` and check the whole dataset.

    Args:
        target: as `new_dataset` gives it.
        groups: as `--groups` says; None leaves to every case the group that the source knows.
    Raises: DataError, ConfigError as `given_groups`; DataError as `finish`.
    """
    partial = target[0]
    ledger.compare(Counter(item.part or item.split for item in content.items), content.published)
    named = _with_ids(content.items)
    if groups is not None:
        ledger.source["groups"] = groups
        named = _regrouped(groups, named)
    channels, foreground = content.channels, 0
    for item, case_id in tqdm(named, desc="converting", unit="case", disable=None):
        image, filled = _convert(partial, item, case_id, content, channels, ledger)
        foreground += filled
        if channels is None and image is not None:
            count = image.shape[0]
            channels = ("image",) if count == 1 else tuple(f"channel_{i}" for i in range(count))
            hint = "; for CT, write CT into dataset.json" if image.ndim == 4 else ""
            ledger.notes.append(f"no channel names were given: {', '.join(channels)} assumed{hint}")
    training = {entry.case_id: entry.group for entry in ledger.kept("train") if entry.case_id}
    folds, notes = write_group_splits(partial, training)
    if groups is not None and folds is None and training:
        notes = ["--groups: no group has several training cases, so nnU-Net's own split holds"]
    ledger.notes += [*notes, *_about_groups(ledger, [item for item, _ in named])]
    if partial is not None:
        for name, text in (*content.files.items(), *_classes(named, ledger)):
            write_text(partial / name, text)
        write_dataset_json(
            partial, channel_names=channels or ("image",), labels=content.labels, file_ending=content.file_ending,
            num_training=len(training),
        )  # fmt: skip
    return finish(target, ledger, strict, foreground if content.masks else None, folds)


def _regrouped(groups: str, named: Sequence[tuple[Item, str]]) -> list[tuple[Item, str]]:
    stems = {case_id: item.stem for item, case_id in named}
    files = {case_id: item.files[0].name for item, case_id in named}
    found = given_groups(groups, stems, files, [case_id for item, case_id in named if item.split == "train"])
    return [(replace(item, group=found.get(case_id)), case_id) for item, case_id in named]


def _about_groups(ledger: Ledger, items: Sequence[Item]) -> list[str]:
    """Warnings about groups, or about missing groups."""
    training, test = ({entry.group for entry in ledger.kept(split)} - {None} for split in ("train", "test"))
    if both := sorted(group for group in training & test if group):
        return [
            f"{len(both)} groups ({few(both, 3)}) have cases in training and in test: scores on the test set will be "
            "better than on new patients"
        ]
    # folders of classes give names in common
    stems = [item.files[0].stem if item.class_name else item.stem for item in items if item.split == "train"]
    if any(item.group for item in items) or "groups" in ledger.source or not (pattern := likely_pattern(stems)):
        return []
    match = re.fullmatch(pattern, stems[0])
    assert match is not None
    return [
        f"names share prefixes, such as {match[1]!r} of {stems[0]!r}; if these are patients, the same patients are "
        f"in training and in validation; to separate them, convert again with --groups {shlex.quote(pattern)}"
    ]


def _classes(items: Sequence[tuple[Item, str]], ledger: Ledger) -> list[tuple[str, str]]:
    """Name and text of the table of classes of the kept cases; empty if none has a class."""
    kept = {(split, entry.case_id) for split in ("train", "test") for entry in ledger.kept(split)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "class", "part", "group", "file"))
    for item, case_id in items:
        if (item.split, case_id) in kept:
            writer.writerow(
                (
                    case_id,
                    item.class_name or "",
                    item.part or item.split,
                    item.group or "",
                    printable(item.files[0].name),
                )
            )
    return [("classes.csv", text.getvalue())] if any(item.class_name for item, _ in items) else []


def _with_ids(items: Sequence[Item]) -> list[tuple[Item, str]]:
    """Items with their case ids, training before test. Raises: DataError as `case_ids`."""
    taken: set[str] = set()
    found = []
    for split in ("train", "test"):
        mine = [item for item in items if item.split == split]
        twice = [stem for stem, count in Counter(item.stem for item in mine).items() if count > 1]
        if twice:
            raise DataError(f"{split}: the case {twice[0]!r} occurs twice; expected each once; remove one")
        ids = case_ids([item.stem for item in mine], split, taken)
        found += [(item, ids[item.stem]) for item in mine]
    return found


def _convert(
    partial: Path | None, item: Item, case_id: str, content: Content, channels: tuple[str, ...] | None, ledger: Ledger
) -> tuple[np.ndarray | None, bool]:
    """Write a case, or record it as refused. Returns: its image, and whether it is a training case with foreground."""
    try:
        reading = item.read()
        count = reading.image.array.shape[0]
        if channels is not None and count != len(channels):
            raise DataError(f"{item.files[0]}: has {count} channels; expected {len(channels)} ({', '.join(channels)})")
        if partial is not None:
            _write(partial, item.split, case_id, reading, content.file_ending)
    except DataError as error:
        ledger.add("refused", item.split, case_id, item.files, [str(error)], item.group)
        return None, False
    notes = [f"{item.stem!r} renamed {case_id!r}"] if case_id != item.stem else []
    notes += reading.notes
    ledger.see(reading.image.array, item.split, case_id)
    status = "repaired" if notes else "accepted"
    ledger.add(status, item.split, case_id, item.files, [*notes, *reading.remarks], item.group)
    filled = item.split == "train" and reading.label is not None and bool(reading.label.any())
    return reading.image.array, filled


def _write(partial: Path, split: str, case_id: str, reading: Reading, ending: str) -> None:
    suffix = "Tr" if split == "train" else "Ts"
    image = reading.image
    if reading.label is None:
        write_image(partial / f"images{suffix}", case_id, image, ending)
        return
    pair = Pair(case_id, image.array, reading.label, image.spacing, image.geometry)
    write_case(partial, pair, ending, f"labels{suffix}", f"images{suffix}")
    if reading.instances is not None:
        folder = partial / f"instances{suffix}"
        folder.mkdir(exist_ok=True)
        numbers = reading.instances.astype(np.uint16)[None]
        write_raster(folder / f"{case_id}{ending}", Raster(numbers, image.spacing, image.geometry))

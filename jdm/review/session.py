"""One reader's session: which pairs, in which order, and what is done with the reader's answers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jdm.data.classes import FILE_NAME, read_classes
from jdm.data.raw_dataset import Pair, RawDataset, read_case, slice_axis
from jdm.errors import DataError
from jdm.review import corrections
from jdm.review.decisions import ANSWERS, DECISIONS, UNDO, Entry, Log, checked, last_words, standing
from jdm.review.shown import Cut, Shown, shown, upright

MOST_BLIND = 100
"""Images of each kind in a blind reading."""
_KEPT = 3
"""Pairs in memory: the one shown, the next, and one that was left."""


@dataclass(frozen=True)
class Item:
    """A pair to show."""

    dataset: RawDataset
    case: str
    cut: Cut | None = None
    """Slices, y, x of the part shown."""


class Session:
    """The pairs, and the reader's open file. Used from several threads."""

    def __init__(self, dataset: RawDataset, items: list[Item], log: Log, like: RawDataset | None, blind: bool) -> None:
        """Args: dataset: the synthetic one. like: real cases to compare with (not blind)."""
        self.dataset, self.items, self.log, self.blind = dataset, items, log, blind
        self.references = [Item(like, case) for case in like.cases] if like is not None and not blind else []
        self.axis = volume_axis(dataset)
        self.changed = True
        """Whether the tables on disk are older than the reader's file."""
        self._guard = threading.RLock()
        self._pairs: dict[int, tuple[Pair, Shown]] = {}
        classes = dataset.folder / FILE_NAME
        self._classes = read_classes(classes, dataset) if classes.is_file() and not blind else {}

    def state(self) -> dict[str, Any]:
        """Everything the page must know at its start."""
        with self._guard:
            words = self._words()
            done = [self._decided(words, number) for number in range(len(self.items))]
            labels = self.dataset.labels
            return {
                "dataset": self.dataset.name, "blind": self.blind, "total": len(self.items), "decisions": done,
                "names": [] if self.blind else [item.case for item in self.items],
                "references": len(self.references), "labels": sorted(labels, key=lambda name: labels[name]),
                "channels": self.dataset.channel_names, "masks": self.dataset.has_masks,
                "next": self._next(words, -1), "lines": len(standing(self.log.entries, blind=self.blind)),
            }  # fmt: skip

    def describe(self, number: int) -> dict[str, Any]:
        """A pair's size, values and standing comment. Raises: IndexError for an unknown number."""
        found = self._pair(number)[1].describe()
        if number >= len(self.items):
            return found
        with self._guard:
            word = self._words().get(self._key(number))
        item = self.items[number]
        return {
            **found, "comment": (word and word.comment) or "", "class": self._classes.get(item.case, ""),
        }  # fmt: skip

    def plane(self, number: int, index: int) -> bytes:
        """A slice, see `Shown.plane`. Raises: IndexError for an unknown number or slice."""
        return self._pair(number)[1].plane(index)

    def decide(
        self, number: int, decision: str, comment: str | None, seconds: float, planes: Mapping[int, bytes]
    ) -> dict[str, Any]:
        """Put a decision on disk.

        Args:
            decision: one of `DECISIONS`, or of `ANSWERS` if blind; empty: only the comment.
            planes: for "fix", the corrected slices: label (y, x) as uint16, little-endian, as shown.
        Returns: as `_after`.
        Raises: DataError for anything else, IndexError for an unknown number; OSError if the disk refuses.
        """
        if not 0 <= number < len(self.items):
            raise IndexError(number)
        known = ANSWERS if self.blind else DECISIONS
        if decision not in (*known, ""):
            raise DataError(f"decision {decision!r}; expected one of {', '.join(known)}; press its key")
        with self._guard:
            item = self.items[number]
            origin = item.dataset.name if self.blind else ""
            entry = Entry(item.case, decision, comment, seconds, origin=origin)
            checked(replace(entry, label="?" if decision == "fix" else ""))
            label = self._corrected(number, planes) if decision == "fix" else ""
            self.log.append(replace(entry, label=label))
            self.changed = True
            if label:
                self._pairs.pop(number, None)
            return self._after(number)

    def undo(self) -> dict[str, Any]:
        """Take back the reader's last decision. Raises: DataError if there is none."""
        with self._guard:
            lines = standing(self.log.entries, blind=self.blind)
            if not lines:
                raise DataError("nothing is decided; expected a decision to take back; decide about a pair first")
            self.log.append(Entry(lines[-1].case, UNDO, origin=lines[-1].origin))
            self.changed = True
            keys = [self._key(number) for number in range(len(self.items))]
            number = keys.index(lines[-1].key) if lines[-1].key in keys else 0
            self._pairs.pop(number, None)
            return {**self._after(number), "next": number}

    def _after(self, number: int) -> dict[str, Any]:
        """What a pair's decision is now, the next undecided pair (None: none is), and how many lines can be undone."""
        words = self._words()
        return {
            "number": number, "decision": self._decided(words, number), "next": self._next(words, number),
            "lines": len(standing(self.log.entries, blind=self.blind)),
        }  # fmt: skip

    def _words(self) -> dict[tuple[str, str], Entry]:
        return last_words(self.log.entries, blind=self.blind)

    def _key(self, number: int) -> tuple[str, str]:
        item = self.items[number]
        return (item.dataset.name if self.blind else "", item.case)

    def _decided(self, words: Mapping[tuple[str, str], Entry], number: int) -> str:
        word = words.get(self._key(number))
        return "" if word is None else word.decision

    def _next(self, words: Mapping[tuple[str, str], Entry], after: int) -> int | None:
        order = [*range(after + 1, len(self.items)), *range(after + 1)]
        return next((n for n in order if not self._decided(words, n)), None)

    def _pair(self, number: int) -> tuple[Pair, Shown]:
        items = [*self.items, *self.references]
        if not 0 <= number < len(items):
            raise IndexError(number)
        with self._guard:
            if number not in self._pairs:
                item = items[number]
                pair = read_case(item.dataset, item.case)
                word = self._words().get(self._key(number)) if number < len(self.items) else None
                if word is not None and word.label:
                    pair = replace(pair, label=corrections.load(self.dataset, word.label, pair.label.shape))
                while len(self._pairs) >= _KEPT:
                    self._pairs.pop(next(iter(self._pairs)))
                self._pairs[number] = pair, shown(pair, item.dataset.channel_names, self.axis, item.cut)
            return self._pairs[number]

    def _corrected(self, number: int, planes: Mapping[int, bytes]) -> str:
        """Store a pair's label with some slices replaced; its file name."""
        pair, seen = self._pair(number)
        slices, height, width = seen.label.shape
        if not self.dataset.has_masks:
            raise DataError(f"{pair.case_id}: has no mask to fix; expected accept or reject; press a or r")
        label = pair.label.copy()
        view = upright(label, label.ndim, pair.geometry, self.axis)
        for index, content in planes.items():
            plane = np.frombuffer(content, "<u2") if len(content) == 2 * height * width else None
            if plane is None or not 0 <= index < slices or plane.max() >= self.dataset.classes:
                raise DataError(f"{pair.case_id}: slice {index} is not a mask of {width} x {height}; paint it again")
            view[index] = plane.reshape(height, width)
        if np.array_equal(label, pair.label):
            raise DataError(f"{pair.case_id}: the mask is unchanged; expected a correction; paint, or press Escape")
        return corrections.store(self.dataset, pair, label)


def volume_axis(dataset: RawDataset) -> int:
    """The array axis along which a dataset's volumes are sliced, by its first case; 0 for pictures."""
    pair = read_case(dataset, dataset.cases[0])
    return slice_axis([pair.label.shape], pair.spacing) if pair.label.ndim == 3 else 0


def blind_items(synthetic: RawDataset, real: RawDataset, reader: str) -> list[Item]:
    """As many real as synthetic cases, at most `MOST_BLIND` of each, in an order drawn for this reader.

    All are cut, at a drawn place, to the largest size that each of them has, because sizes would tell them apart. What
    cannot be hidden is in the pixels themselves: range of values, noise, resolution, traces of compression.
    """
    digest = hashlib.sha256("\0".join((synthetic.name, real.name, reader)).encode()).digest()
    rng = np.random.default_rng(list(digest))
    count = min(len(synthetic.cases), len(real.cases), MOST_BLIND)
    chosen = [
        (dataset, dataset.cases[n])
        for dataset in (synthetic, real)
        for n in rng.choice(len(dataset.cases), count, replace=False)
    ]
    axis = volume_axis(synthetic)
    sizes = []
    for dataset, case in chosen:
        pair = read_case(dataset, case)
        sizes.append(upright(pair.label, pair.label.ndim, pair.geometry, axis).shape)
    common = np.min(sizes, axis=0)
    items = []
    for (dataset, case), size in zip(chosen, sizes, strict=True):
        starts = rng.integers(0, np.array(size) - common + 1)
        z, y, x = (slice(int(a), int(a + n)) for a, n in zip(starts, common, strict=True))
        items.append(Item(dataset, case, (z, y, x)))
    return [items[n] for n in rng.permutation(len(items))]

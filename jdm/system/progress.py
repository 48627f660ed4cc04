"""Progress of long work: a bar on a terminal, else one line per minute."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_LINE_EVERY = 60.0  # seconds


class Bar:
    """Counts work done, in units named in the plural; silent if not active.

    limit: seconds after which the work ends, done or not; None: when all is done.
    """

    def __init__(
        self, total: int, unit: str, *, done: int = 0, active: bool = True, limit: float | None = None
    ) -> None:
        self._limit = math.inf if limit is None else limit
        self._total, self._unit, self._done, self._first, self._active = total, unit, done, done, active
        self._started = self._last = time.monotonic()
        terminal = active and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit=unit) if terminal else None
        self._notes = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._active and time.monotonic() - self._last > _LINE_EVERY:
            self._last = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def note(self, values: Mapping[str, str]) -> None:
        """Show some values beside the count."""
        self._notes = "".join(f", {name} {value}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix(values)

    def _line(self) -> str:
        seconds = time.monotonic() - self._started
        left = seconds / max(self._done - self._first, 1) * (self._total - self._done)
        if left > self._limit - seconds:
            return f"{self._done} {self._unit}, {duration(self._limit - seconds)} left{self._notes}"
        return f"{self._done} of {self._total} {self._unit}, about {duration(left)} left at this pace{self._notes}"


def progress(items: Iterable[T], unit: str, *, active: bool = True) -> Iterator[T]:
    """The items, with their progress shown."""
    total = len(items) if isinstance(items, Sized) else 0
    with Bar(total, unit, active=active and total > 0) as bar:
        for item in items:
            yield item
            bar.update()


def duration(seconds: float) -> str:
    """Whole minutes in words, or hours."""
    minutes = max(1, round(seconds / 60))
    if minutes >= 120:
        return f"{minutes / 60:.1f} hours"
    return f"{minutes} minute{'s' * (minutes > 1)}"

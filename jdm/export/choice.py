"""Which of the drawn pairs an export keeps: those that pass the gate, and of these the selected share.

Candidates are drawn in batches, by class, until enough pass. What is kept is a function of their records, so that an
export that was killed goes on to the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jdm.errors import DataError
from jdm.evaluation.agreement import Agreement
from jdm.evaluation.distribution import standardised
from jdm.export.amount import SPARE, Order
from jdm.export.folder import batch_records
from jdm.system.progress import Bar

_TRIED = 50
"""Candidates after which an export of which too few pass is stopped."""
_FEATURES = "features"


class Judge(Protocol):
    """Networks that judge pairs; see `nnunet_integration.teacher.Teacher`."""

    @property
    def real(self) -> Mapping[str, Agreement]: ...

    @property
    def sha256(self) -> str: ...

    def least(self, share: float) -> float: ...

    def score(self, images: Sequence[Path], label: Path) -> Agreement: ...


@dataclass
class Choice:
    """The kept pairs, by their records, and what the provenance says of them."""

    records: list[dict[str, Any]] = field(default_factory=list)
    candidates: int = 0
    passed: int = 0
    """Candidates that the gate let through."""

    def to_dict(self, order: Order, judge: Judge | None) -> dict[str, Any]:
        least = None if judge is None or order.request.gate is None else round(judge.least(order.request.gate), 6)
        numbers = {"candidates": self.candidates, "passed": self.passed, "kept": len(self.records)}
        return {**numbers, "least_agreement": least, "real_cases": 0 if judge is None else len(judge.real)}

    @property
    def agreement(self) -> dict[str, Agreement]:
        """Of the kept pairs, if they were judged."""
        return {r["case_id"]: Agreement.from_dict(r) for r in self.records if "agreement" in r}


def judge_pair(judge: Judge, folder: Path, case_id: str, ending: str, features: bool) -> dict[str, Any]:
    """What the record of a written pair says of it. Args: features: also those of the image, for the choice alone."""
    images = sorted((folder / "imagesTr").glob(f"{case_id}_[0-9]*{ending}"))
    found = judge.score(images, folder / "labelsTr" / f"{case_id}{ending}")
    kept = {_FEATURES: [float(f"{value:.6g}") for value in found.features]} if features else {}
    return {**found.to_dict(), **kept}


def choose(order: Order, judge: Judge | None, markers: Path, make: Callable[[int], None]) -> Choice:
    """Have candidates made until enough pass, and choose among them.

    Args:
        markers: folder of the batches' records.
        make: makes a batch by number.
    Raises: DataError if fewer than one in `SPARE` passes.
    """
    gate, done = order.request.gate, Choice()
    least = -math.inf if gate is None or judge is None else judge.least(gate)
    with Bar(sum(order.passing(count) for _, count in order.parts()), "pairs that pass") as bar:
        first = 0
        for (_, count), batches in zip(order.parts(), order.batches_of_parts(), strict=True):
            wanted, drawn, passing = order.passing(count), 0, []
            for number in range(first, first + len(batches)):
                marker = markers / f"{number:06d}.json"
                if not marker.exists():
                    make(number)
                records = batch_records(marker)
                new = [record for record in records if gate is None or record["agreement"] >= least]
                bar.update(min(len(new), max(wanted - len(passing), 0)))
                passing, drawn = passing + new, drawn + len(records)
                if len(passing) >= wanted or (drawn >= _TRIED and len(passing) * SPARE < drawn):
                    break
            first += len(batches)
            if len(passing) < wanted:
                raise _refused(len(passing), drawn, least)
            done.candidates, done.passed = done.candidates + drawn, done.passed + len(passing)
            done.records += selected(passing[:wanted], count, order.request.select, order.request.seed)
    for record in done.records:
        record.pop(_FEATURES, None)
    return done


def selected(records: list[dict[str, Any]], count: int, how: str | None, seed: int) -> list[dict[str, Any]]:
    """`count` of the records, in their order: those of highest (hard) or lowest (easy) loss, the most diverse ones
    (see `spread_out`), random ones, or the first."""
    if how in ("hard", "easy"):
        sign = -1 if how == "hard" else 1
        order = sorted(range(len(records)), key=lambda n: (sign * records[n]["loss"], n))
    elif how == "diverse":
        order = spread_out(np.array([record[_FEATURES] for record in records]), count)
    elif how == "random":
        order = np.random.default_rng([seed, len(records)]).permutation(len(records)).tolist()
    else:
        order = range(len(records))
    return [records[n] for n in sorted(order[:count])]


def spread_out(features: np.ndarray, count: int) -> list[int]:
    """Indices of `count` rows of features (n, d), standardised, that cover all: greedy k-centre, from the row nearest
    to the mean on always the row farthest from those chosen; its radius is at most twice the least possible.

    Source: Gonzalez 1985, Theor. Comput. Sci. 38:293-306.
    """
    scaled = standardised(features, features)
    chosen = [int(np.square(scaled).sum(1).argmin())]
    distance = np.full(len(scaled), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.square(scaled - scaled[chosen[-1]]).sum(1))
        distance[chosen] = -1  # even where rows are equal, none is taken twice
        chosen.append(int(distance.argmax()))
    return chosen


def _refused(passed: int, drawn: int, least: float) -> DataError:
    return DataError(
        f"{passed} of {drawn} pairs agree with the networks that judge them (Dice of {least:.3f} or more); expected at "
        f"least one in {SPARE}; train the generator longer, lower --gate or leave it out, and run again with "
        "--overwrite"
    )

"""What readers decided, in tables: `review/decisions.csv` and `review/review.json`, made from their files."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from jdm.data.raw_layout import RawDataset
from jdm.review.corrections import put_in_force
from jdm.review.decisions import DECISIONS, FOLDER, Entry, last_words, read_readers, reviewed
from jdm.system.files import write_json, write_text
from jdm.system.locks import locked

COLUMNS = ("case", "reader", "decision", "comment", "seconds", "time")


def refresh(dataset: RawDataset) -> None:
    """Rewrite the tables and `review/labels`, each file complete or not at all.

    Raises: DataError if a reader's file is damaged or a corrected label is missing.
    """
    folder = dataset.folder / FOLDER
    with locked(folder / ".summary.lock"):  # the last to write has read the newest lines
        readers = read_readers(dataset.folder)
        verdicts = reviewed(dataset.folder)
        put_in_force(dataset, verdicts)
        write_text(folder / "decisions.csv", _table(readers))
        blind = {name: blind_result(entries, dataset.name) for name, entries in readers.items()}
        counts = Counter(verdict.decision for case, verdict in verdicts.items() if case in dataset.training_files)
        write_json(folder / "review.json", {
            "dataset": dataset.name,
            "pairs": len(dataset.cases),
            "final": {**{d: counts[d] for d in DECISIONS}, "undecided": len(dataset.cases) - counts.total()},
            "readers": {name: _of_reader(entries, len(dataset.cases)) for name, entries in readers.items()},
            "agreement": agreement({name: _decided(entries) for name, entries in readers.items()}),
            "blind": {name: found for name, found in blind.items() if found},
        })  # fmt: skip


def agreement(decisions: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Cohen's kappa of every two readers over the cases that both decided.

    Args: decisions: reader -> case -> decision.
    Returns: for each two readers with cases in common: `readers`, `n`, `equal` (share of equal decisions), `kappa`
        (None where both gave one and the same decision throughout, which leaves it undefined).
    Source: Cohen 1960.
    """
    found = []
    for a, b in combinations(sorted(decisions), 2):
        common = sorted({*decisions[a]} & {*decisions[b]})
        if not common:
            continue
        of_a, of_b = ([decisions[name][case] for case in common] for name in (a, b))
        kappa = None
        if len({*of_a, *of_b}) > 1:
            from sklearn.metrics import cohen_kappa_score

            kappa = float(cohen_kappa_score(of_a, of_b))
        equal = sum(x == y for x, y in zip(of_a, of_b, strict=True)) / len(common)
        found.append({"readers": [a, b], "n": len(common), "equal": equal, "kappa": kappa})
    return found


def blind_result(entries: Iterable[Entry], synthetic: str) -> dict[str, Any]:
    """How well a reader tells real from synthetic images; empty if the reader was not asked.

    Args: synthetic: name of the synthetic dataset.
    Returns: `n`, `correct`, `accuracy` with its exact 95 % interval `low` to `high`, counts of each answer for images
        of each kind, and `median_seconds` per image. 0.5 is chance, because half of the images are real.
    Source: Clopper & Pearson 1934.
    """
    answers = [entry for entry in last_words(entries, blind=True).values() if entry.decision]
    if not answers:
        return {}
    from scipy.stats import binomtest

    pairs = Counter(("synthetic" if entry.origin == synthetic else "real", entry.decision) for entry in answers)
    correct = pairs["real", "real"] + pairs["synthetic", "synthetic"]
    interval = binomtest(correct, len(answers)).proportion_ci(0.95, method="exact")
    return {
        "n": len(answers), "correct": correct, "accuracy": correct / len(answers),
        "low": float(interval.low), "high": float(interval.high),
        "answers": {f"{truth} called {answer}": n for (truth, answer), n in sorted(pairs.items())},
        "median_seconds": statistics.median(entry.seconds for entry in answers),
    }  # fmt: skip


def _decided(entries: Iterable[Entry]) -> dict[str, str]:
    return {entry.case: entry.decision for entry in last_words(entries).values() if entry.decision}


def _of_reader(entries: Iterable[Entry], pairs: int) -> dict[str, Any]:
    words = [entry for entry in last_words(entries).values() if entry.decision]
    counts = Counter(entry.decision for entry in words)
    seconds = statistics.median(entry.seconds for entry in words) if words else None
    return {**{d: counts[d] for d in DECISIONS}, "undecided": pairs - len(words), "median_seconds": seconds}


def _table(readers: Mapping[str, Iterable[Entry]]) -> str:
    rows = [
        (entry.case, name, entry.decision, entry.comment or "", f"{entry.seconds:.1f}", entry.time)
        for name, entries in readers.items()
        for entry in last_words(entries).values()
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(sorted(rows))
    return text.getvalue()

"""The export as a whole: batches of pairs, the choice among them, the audit, and the dataset in its place."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jdm.data.raw_dataset import RawDataset, write_case
from jdm.draw.cost import estimate_line
from jdm.draw.run import Run
from jdm.evaluation.agreement import agreement_summary
from jdm.evaluation.audit_page import verdict, write_audit
from jdm.evaluation.set_audit import audit_set
from jdm.export.choice import Choice, Judge, choose, judge_pair
from jdm.export.folder import ExportFolder, sync_cases
from jdm.export.pairs import PairFactory, provenance
from jdm.export.request import shard_of
from jdm.system.files import write_text
from jdm.system.progress import Bar
from jdm.train.objective import memory_errors


@dataclass(frozen=True)
class Exported:
    """Result of an export by this process."""

    folder: Path
    """The finished dataset, or the hidden folder if other shards are still running."""
    finished: bool
    count: int
    redrawn: int
    """Samples that were redrawn: degenerate ones, and copies of training cases."""
    found: bool = False
    """The dataset was already complete, with the same request and checkpoint; nothing was done."""
    audit: str = ""
    """Verdict of the audit; empty without one."""
    choice: Choice | None = None
    """What was kept of how many; None: all."""


def export_pairs(factory: PairFactory, open_judge: Callable[[Run], Judge] | None = None) -> Exported:
    """Write the synthetic dataset of a factory, or one shard of it; the shard that finishes last puts it in place.

    Args: open_judge: gives the networks that judge pairs, where the request needs them.
    Raises: ExistsError if the id or the name is taken, another process holds this shard, or an unfinished export with
        other settings exists; DataError if the model does not produce plausible pairs; TrainingError if the device
        runs out of memory.
    """
    request, (index, shards) = factory.order.request, shard_of(factory.order.request.shard)
    folder = ExportFolder(factory.order, factory.run.checkpoint.sha256, shards, request.overwrite, factory.config)
    if factory.order.judged and open_judge is not None:
        folder.check()  # before networks are trained
        factory.judge = open_judge(factory.run)
        factory.order = dataclasses.replace(factory.order, judge_sha256=factory.judge.sha256)
        folder = dataclasses.replace(folder, order=factory.order)
    order, choice = factory.order, None
    with folder.joined(index) as in_place:
        if in_place:
            found = json.loads((folder.target / "provenance.json").read_text(encoding="utf-8"))
            return Exported(folder.target, True, order.count, found["redrawn"], found=True)
        with memory_errors(request.batch_size, flag="--batch-size"):
            if order.chooses:
                choice = _choose(factory, folder.partial)
            else:
                _make_batches(factory, folder.partial, range(index, len(order.batches()), shards))
        records = folder.records() if choice is None else choice.records
    if records is None:
        return Exported(folder.partial, False, order.count, 0)
    verdicts, facts = [], provenance(factory, records)
    if choice is not None:
        facts["choice"] = choice.to_dict(order, factory.judge)
    kept = None if choice is None else records
    folder.seal(facts, factory.run.kind, lambda made: verdicts.extend(_audited(factory, made, choice)), kept)
    return Exported(folder.target, True, order.count, facts["redrawn"], audit=" ".join(verdicts), choice=choice)


def _audited(factory: PairFactory, synthetic: RawDataset, choice: Choice | None) -> list[str]:
    """Write the audit beside the pairs, if there is to be one. Returns: its verdict."""
    if not factory.audited:
        return []
    print("jdm-export: auditing the pairs", file=sys.stderr, flush=True)
    trained = factory.run.checkpoint.metadata["training_ids"]
    found = audit_set(synthetic, factory.run.real_for("the audit"), trained=trained)
    if choice is not None and factory.judge is not None:
        summary = agreement_summary(choice.agreement, factory.judge.real, factory.judge.sha256)
        found = dataclasses.replace(found, agreement=summary)
    write_audit(found, synthetic.folder)
    return [verdict(found)]


def _make_batches(factory: PairFactory, partial: Path, numbers: Iterable[int]) -> None:
    """Make the missing batches."""
    batches = factory.order.batches()
    done = {number: (partial / "batches" / f"{number:06d}.json").exists() for number in numbers}
    missing = [number for number in done if not done[number]]
    _print_estimate(factory, [batches[number] for number in missing])
    with Bar(len(done), "batches", done=len(done) - len(missing)) as bar:
        for number in missing:
            _make_batch(factory, partial, number, judged=number == missing[0] and len(missing) == len(done))
            bar.update()


def _choose(factory: PairFactory, partial: Path) -> Choice:
    """Make as many batches as the choice needs, and choose."""
    markers = partial / "batches"
    if not any(markers.glob("*.json")):
        _print_estimate(factory, factory.order.expected_batches())
    return choose(factory.order, factory.judge, markers, lambda n: _make_batch(factory, partial, n, judged=n == 0))


def _print_estimate(factory: PairFactory, batches: list[range]) -> None:
    if batches:
        print(f"jdm-export: {estimate_line(factory.seconds(batches))}", file=sys.stderr, flush=True)


def _make_batch(factory: PairFactory, partial: Path, number: int, judged: bool) -> None:
    """Make one batch; its marker is written when its files are on disk."""
    kind, made = factory.run.kind, factory.batch(factory.order.batches()[number], judged=judged)
    for pair, record in made:
        write_case(partial, pair, kind.file_ending, mask=kind.has_masks)
        if factory.judge is not None:
            features = factory.order.request.select == "diverse"
            record |= judge_pair(factory.judge, partial, pair.case_id, kind.file_ending, features)
    sync_cases(partial, {pair.case_id for pair, _ in made})
    write_text(partial / "batches" / f"{number:06d}.json", json.dumps([record for _, record in made]))

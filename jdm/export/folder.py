"""The hidden folder of an unfinished export: name checks, locks, and putting the finished dataset in place.

A process must hold the lock beside the hidden folder to create, join, discard or seal it. While holding that lock, it
also takes the lock of its shard, which it keeps while it works. So if no shard lock is held, nobody works in the
folder. All locks are released when their process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdm.config.files import differences
from jdm.config.settings import Config
from jdm.data.classes import FILE_NAME, classes_csv
from jdm.data.raw_dataset import RawDataset, dataset_name, nnunet_folder, read_dataset, used_ids, write_json_like
from jdm.data.raw_layout import PARTIAL
from jdm.errors import DataError, ExistsError
from jdm.export.amount import Order
from jdm.system.files import sync_to_disk, write_text
from jdm.system.locks import held, is_held, locked


@dataclass(frozen=True)
class ExportFolder:
    """One process's view of the dataset being exported."""

    order: Order
    checkpoint_sha256: str
    shards: int
    """Number of processes that share the work."""
    overwrite: bool
    """Replace an earlier synthetic dataset, or discard an unfinished export with other settings."""
    config: Config

    @property
    def target(self) -> Path:
        return nnunet_folder("nnUNet_raw") / dataset_name(self.order.request.id, self.order.name)

    @property
    def partial(self) -> Path:
        return self.target.with_name(PARTIAL + self.target.name)

    @property
    def gate(self) -> Path:
        """The lock beside the hidden folder."""
        return self.partial.with_name(self.partial.name + ".lock")

    @contextlib.contextmanager
    def joined(self, index: int) -> Iterator[bool]:
        """Work as one of the shards; yields True if the dataset is already in place and nothing is left to do.

        Raises: ExistsError if the name is taken, another process works as this shard, an unfinished export with other
            settings exists, or the disk is too small.
        """
        self.check_id()
        with contextlib.ExitStack() as stack:
            with locked(self.gate):
                sealed = self._prepare()
                if not sealed:
                    stack.enter_context(held(self.partial / f"shard_{index}_of_{self.shards}.lock", self.partial))
            yield sealed

    def check(self) -> None:
        """Raises: ExistsError if the id or the name is taken."""
        self.check_id()
        self._check_target()

    def check_id(self) -> None:
        """Raises: ExistsError if another dataset has the id."""
        others = {path.name for path in used_ids().get(self.order.request.id, []) if path.name != self.target.name}
        if others:
            raise ExistsError(
                f"dataset id {self.order.request.id} is taken by {', '.join(sorted(others))}; expected a free one; "
                "choose another --id"
            )

    def records(self) -> list[dict[str, Any]] | None:
        """Manifest records of all batches in order; None if some are missing or another shard has sealed them.

        Waits for a process that is sealing, because sealing removes the batches.
        """
        with locked(self.gate):
            return self._records()

    def seal(
        self, provenance: Mapping[str, Any], kind: RawDataset, finish: Callable[[RawDataset], None],
        chosen: list[dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Put the dataset in place, unless another shard has done so.

        Args:
            kind: a dataset with the real one's channels, labels and format.
            finish: adds to the dataset before it is complete.
            chosen: records of the pairs to keep; None: all.
        Raises: ExistsError if the folder is gone and no dataset of this order and checkpoint is in place.
        """
        with locked(self.gate):
            ours = _without_shards(self._found()) == _without_shards(self._wanted())
            records = (self._records() if chosen is None else chosen) if ours else None
            if records is not None:
                _remove_others(self.partial, {record["case_id"] for record in records})
                _describe(self.partial, records, kind)
                finish(read_dataset(self.partial, self.target.name))
                # written last, this marks the dataset as complete
                write_text(self.partial / "provenance.json", json.dumps(provenance, indent=2) + "\n")
                _place(self.partial, self.target)
            elif not self.is_in_place():
                raise ExistsError(
                    f"{self.partial} was discarded by another export before it was complete; expected it to stay; "
                    "run this export again"
                )

    def is_in_place(self) -> bool:
        """Whether the finished dataset exists and is of this order and checkpoint."""
        return self._is_whole(self.target)

    def _records(self) -> list[dict[str, Any]] | None:
        return finished_records(self.partial, len(self.order.batches()))

    def _prepare(self) -> bool:
        """Create, join or discard the hidden folder, with its lock held. Returns: whether nothing is left to do."""
        if self.shards > 1 and self.is_in_place():
            return True
        self._check_target()
        found, wanted = self._found(), self._wanted()
        if found is not None and any(is_held(lock) for lock in self.partial.glob("*.lock")):
            self._check_others(found, wanted)
            return False
        if self._is_whole(self.partial):  # a process was killed just before the rename
            _place(self.partial, self.target)
            return True
        if found is not None and _without_shards(found) != _without_shards(wanted):
            if self._holds_work() and not self.overwrite:
                raise self._other_settings(found, "; give those to finish it, or discard it with --overwrite")
            found = None
        if found is None:
            shutil.rmtree(self.partial, ignore_errors=True)
            self._check_disk()
            (self.partial / "batches").mkdir(parents=True)
        write_text(self.partial / "request.json", json.dumps(wanted))
        return False

    def _check_others(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Raises: ExistsError if other processes in the folder use other settings or another number of shards."""
        if _without_shards(found) != _without_shards(wanted):
            raise self._other_settings(found, " and is being written; wait for it, or choose another --id")
        if found != wanted:
            raise ExistsError(
                f"{self.partial} is being written in {found['shards']} shards; expected {self.shards}; "
                f"give --shard i/{found['shards']}, or wait until those have ended"
            )

    def _holds_work(self) -> bool:
        """Whether any batch is finished, or all of them were."""
        return any((self.partial / "batches").glob("*.json")) or (self.partial / "provenance.json").exists()

    def _check_target(self) -> None:
        """Raises: ExistsError if the name is taken."""
        target = self.target
        if not target.exists():
            return
        if not (target / "provenance.json").is_file():
            raise ExistsError(
                f"{target} is a real dataset; expected a free name or a synthetic dataset; choose another --id"
            )
        if not self.overwrite:
            raise ExistsError(f"{target} exists; expected a free name; choose another --id, or add --overwrite")

    def _check_disk(self) -> None:
        """Raises: ExistsError if the pairs are unlikely to fit."""
        pairs = sum(map(len, self.order.expected_batches()))
        pixels = pairs * self.order.slices * math.prod(self.order.canvas_size)
        need = pixels * (self.config.image_channels * np.dtype(self.config.facts.dtype).itemsize + 1)
        free = shutil.disk_usage(self.partial.parent).free
        if need > free:
            raise ExistsError(
                f"the disk of {self.partial.parent} has {free // 2**20} MiB free; expected about {need // 2**20} MiB; "
                "free space first"
            )

    def _other_settings(self, found: dict[str, Any], cure: str) -> ExistsError:
        lines = differences(_without_shards(found), _without_shards(self._wanted()))
        return ExistsError(f"{self.partial} holds an unfinished export of other settings: {'; '.join(lines)}{cure}")

    def _wanted(self) -> dict[str, Any]:
        """The content of request.json: everything that determines the bytes, and the number of shards."""
        content = {**self.order.to_dict(), "checkpoint_sha256": self.checkpoint_sha256, "shards": self.shards}
        return json.loads(json.dumps(content))

    def _found(self) -> dict[str, Any] | None:
        return _read(self.partial / "request.json")

    def _is_whole(self, folder: Path) -> bool:
        """Whether a folder's provenance, written last, is of this order and checkpoint."""
        found = _read(folder / "provenance.json") or {}
        generator = found.get("generator")
        sha256 = generator.get("checkpoint_sha256") if isinstance(generator, dict) else None
        wanted = _without_shards(self._wanted())
        return {**{key: found.get(key) for key in wanted}, "checkpoint_sha256": sha256} == wanted


def finished_records(partial: Path, batches: int) -> list[dict[str, Any]] | None:
    """Manifest records of all batches in order, or None while some are missing."""
    paths = [partial / "batches" / f"{number:06d}.json" for number in range(batches)]
    if not all(path.is_file() for path in paths):
        return None
    return [record for path in paths for record in batch_records(path)]


def batch_records(path: Path) -> list[dict[str, Any]]:
    """Manifest records of a finished batch. Raises: DataError if they are damaged."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        records = None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path} is damaged; expected the records of a batch; remove it and repeat the command")
    return records


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """Records of a manifest.jsonl, one per case.

    Raises: DataError naming the file and line if it is not a manifest of an export.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected the file of an export; export again") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("case_id"), str):
            raise DataError(
                f"{path}: line {number} is no record; expected one with a case_id; export the dataset again"
            )
        records.append(record)
    return records


def _describe(partial: Path, records: list[dict[str, Any]], kind: RawDataset) -> None:
    """Write the files that describe the dataset, except for its provenance."""
    write_text(partial / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    if classes := {record["case_id"]: record["class"] for record in records if "class" in record}:
        write_text(partial / FILE_NAME, classes_csv(classes))
    write_json_like(partial, kind, len(records))


def _remove_others(partial: Path, case_ids: set[str]) -> None:
    """Remove the files of pairs that were not chosen; a killed process has removed some of them."""
    for path in [*partial.glob("imagesTr/*"), *partial.glob("labelsTr/*")]:
        stem = path.name.partition(".")[0]
        if not case_ids & {stem, stem[: -len("_0000")]}:
            path.unlink()


def _place(partial: Path, target: Path) -> None:
    """Remove the export's own files and rename the folder; can be repeated if killed at any point."""
    for folder in (partial, partial / "imagesTr", partial / "labelsTr"):
        for stray in folder.glob(".*"):  # left by a killed writer
            stray.unlink()
    replaced = partial.with_name(partial.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():  # a synthetic dataset, to be replaced by --overwrite
        target.rename(replaced)
    shutil.rmtree(partial / "batches", ignore_errors=True)
    for lock in (*partial.glob("*.lock"), *partial.glob("*.holder")):
        lock.unlink()
    (partial / "request.json").unlink(missing_ok=True)
    partial.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _without_shards(content: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (content or {}).items() if key != "shards"}


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def sync_cases(partial: Path, case_ids: set[str]) -> None:
    """Flush the files and directory entries of some cases to disk."""
    for folder in filter(Path.is_dir, (partial / "imagesTr", partial / "labelsTr")):
        stems = {path: path.name.partition(".")[0] for path in folder.iterdir()}
        sync_to_disk([path for path, stem in stems.items() if case_ids & {stem, stem[: -len("_0000")]}])
        sync_to_disk([folder])
    sync_to_disk([partial])

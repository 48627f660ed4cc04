"""The folder an export grows in: taken names, one writer at a time, and putting the finished dataset in place."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdm.checkpoint import Checkpoint, differences
from jdm.data.raw_dataset import RawDataset, used_ids, write_dataset_json
from jdm.errors import ExistsError

if TYPE_CHECKING:
    from jdm.export import ExportRequest


def check_target(target: Path, request: ExportRequest, overwrite: bool) -> None:
    """Refuse an id or a folder that is taken.

    Raises: ExistsError.
    """
    others = [path for path in used_ids().get(request.id, []) if path.name != target.name]
    if others:
        raise ExistsError(
            f"dataset id {request.id} is taken by {', '.join(sorted({p.name for p in others}))}; expected a free one; "
            "choose another --id"
        )
    if not target.exists():
        return
    if not (target / "provenance.json").is_file():
        raise ExistsError(f"{target} is a real dataset; expected a free name or a synthetic set; choose another --id")
    if not overwrite:
        raise ExistsError(f"{target} exists; expected a free name; choose another --id, or add --overwrite")


def claim(partial: Path, checkpoint: Checkpoint, request: ExportRequest) -> None:
    """Make the hidden folder, or make sure that it grows from the same request and checkpoint.

    Raises: ExistsError showing what differs.
    """
    wanted = json.loads(json.dumps({**asdict(request), "checkpoint_sha256": checkpoint.sha256}))
    (partial / "batches").mkdir(parents=True, exist_ok=True)
    path = partial / "request.json"
    if path.is_file():
        lines = differences(json.loads(path.read_text(encoding="utf-8")), wanted)
        if lines:
            raise ExistsError(
                f"{partial} holds an unfinished export of other settings: {'; '.join(lines)}; "
                "finish that one, or remove the folder"
            )
        return
    need = request.count * math.prod(request.canvas_size) * checkpoint.config.image_channels * 2
    free = shutil.disk_usage(partial).free
    if need > free:
        raise ExistsError(
            f"the disk of {partial} has {free // 2**20} MiB free; expected about {need // 2**20} MiB; free space first"
        )
    write_text(path, json.dumps(wanted))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file; the lock goes with the process, however it ends.

    Raises: ExistsError naming the process that holds it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ExistsError(
                f"{path.parent} is being written by process {file.read().strip()}; expected no other; wait for it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def finished_records(partial: Path, batches: int) -> list[dict[str, Any]] | None:
    """Manifest records of all batches in order, or None while some are missing."""
    paths = [partial / "batches" / f"{number:06d}.json" for number in range(batches)]
    if not all(path.is_file() for path in paths):
        return None
    return [record for path in paths for record in json.loads(path.read_text(encoding="utf-8"))]


def seal(
    partial: Path, target: Path, records: list[dict[str, Any]], provenance: Mapping[str, Any], dataset: RawDataset
) -> None:
    """Write what describes the dataset, drop what only the export needed, and put it in place."""
    write_text(partial / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_text(partial / "provenance.json", json.dumps(provenance, indent=2) + "\n")
    write_dataset_json(
        partial,
        channel_names=dataset.channel_names,
        labels=dataset.labels,
        file_ending=dataset.file_ending,
        num_training=len(records),
    )
    shutil.rmtree(partial / "batches")
    (partial / "request.json").unlink()
    for lock in partial.glob("*.lock"):
        lock.unlink()
    if target.exists():  # a synthetic one, which the user chose to overwrite: see check_target
        shutil.rmtree(target)
    partial.rename(target)


def write_text(path: Path, text: str) -> None:
    """Complete or absent, and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

"""A reviewed dataset: a raw dataset without rejected pairs and with corrected labels, for any trainer of nnU-Net."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.case_io import read_label
from jdm.data.classes import FILE_NAME, classes_csv, read_classes
from jdm.data.raw_dataset import NAME, RawDataset, dataset_name, nnunet_folder, read_dataset, used_ids, write_json_like
from jdm.data.raw_layout import PARTIAL, few
from jdm.errors import DataError, ExistsError
from jdm.review.corrections import copy_file
from jdm.review.decisions import FOLDER, Verdict, last_words, read_readers, reviewed
from jdm.system.files import sync_to_disk, write_text
from jdm.system.locks import locked


@dataclass(frozen=True)
class Written:
    """A reviewed dataset in its place."""

    folder: Path
    summary: str
    """In words: how many pairs were kept, corrected, rejected and not decided about."""


def write_reviewed(synthetic: RawDataset, id: int) -> Written:
    """Write `DatasetNNN_NAME_reviewed` beside the synthetic dataset, complete or not at all.

    Pairs that nobody decided about are kept; the provenance says how many.
    Raises: DataError if nothing is decided, everything is rejected or a decision is about an unknown case; ExistsError
        if the id is taken.
    """
    match = NAME.fullmatch(synthetic.name)
    target = nnunet_folder("nnUNet_raw") / dataset_name(id, f"{match[2] if match else synthetic.name}_reviewed")
    if taken := used_ids().get(id, []):
        raise ExistsError(
            f"dataset id {id} is taken by {few(sorted({path.name for path in taken}))}; expected a free one; choose "
            "another --write"
        )
    verdicts = _verdicts(synthetic)
    kept = [case for case in synthetic.cases if case not in verdicts or verdicts[case].decision != "reject"]
    if not kept:
        raise DataError(f"all pairs of {synthetic.name} are rejected; expected some to keep; export more")
    partial = target.with_name(PARTIAL + target.name)
    with locked(partial.with_name(partial.name + ".lock")):
        shutil.rmtree(partial, ignore_errors=True)  # of a killed command
        partial.mkdir()
        try:
            record = _record(synthetic, verdicts, kept)
            _fill(partial, synthetic, verdicts, kept)
            read_dataset(partial, target.name)
            provenance = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))
            text = json.dumps({**provenance, "reviewed": record}, indent=2)
            write_text(partial / "provenance.json", text + "\n")  # last: marks the dataset as complete
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_to_disk([target.parent])
    summary = (
        f"{len(kept)} of {len(synthetic.cases)} pairs kept, {len(record['corrected'])} of them with corrected masks "
        f"and {record['undecided']} that nobody decided about; {len(record['rejected'])} rejected"
    )
    return Written(target, summary)


def _verdicts(synthetic: RawDataset) -> dict[str, Verdict]:
    verdicts = reviewed(synthetic.folder)
    if not verdicts:
        raise DataError(
            f"{synthetic.folder / FOLDER}: holds no decision; expected some; review first: jdm-review {synthetic.id}"
        )
    if strange := sorted({*verdicts} - {*synthetic.cases}):
        raise DataError(
            f"{synthetic.folder / FOLDER}: decides about {few(strange, 5)}; expected cases of {synthetic.name}; remove "
            "the review, which is of another export"
        )
    return verdicts


def _record(synthetic: RawDataset, verdicts: dict[str, Verdict], kept: list[str]) -> dict[str, Any]:
    """What the provenance says about the review."""
    readers = {
        name: sum(bool(entry.decision) for entry in last_words(entries).values())
        for name, entries in read_readers(synthetic.folder).items()
    }
    return {
        "source": synthetic.name,
        "readers": readers,
        "pairs": len(synthetic.cases),
        "kept": len(kept),
        "undecided": len(synthetic.cases) - len(verdicts),
        "rejected": [case for case, verdict in verdicts.items() if verdict.decision == "reject"],
        # the names hold the labels' digests, so that other corrections give another provenance
        "corrected": {case: verdict.label.name for case, verdict in verdicts.items() if verdict.label is not None},
    }


def _fill(folder: Path, synthetic: RawDataset, verdicts: dict[str, Verdict], kept: list[str]) -> None:
    """Everything but the provenance."""
    ending = synthetic.file_ending
    for name in ("imagesTr", *(("labelsTr",) if synthetic.has_masks else ())):
        (folder / name).mkdir()
    shares: dict[str, dict[str, float]] = {}
    for case in kept:
        for channel, path in enumerate(synthetic.image_files(case)):
            copy_file(path, folder / "imagesTr" / f"{case}_{channel:04d}{ending}")
        _copy_spacing(synthetic.image_files(case)[0].with_name(f"{case}.json"), folder / "imagesTr")
        if not synthetic.has_masks:
            continue
        label = verdicts[case].label if case in verdicts else None
        if label is not None:
            shares[case] = _shares(read_label(label, synthetic.reader).array, synthetic)
        copy_file(label or synthetic.label_file(case), folder / "labelsTr" / f"{case}{ending}")
    _describe(folder, synthetic, kept, shares)


def _copy_spacing(path: Path, folder: Path) -> None:
    """Copy the JSON file with the spacing of a TIFF volume's image, if there is one."""
    if path.is_file():
        shutil.copyfile(path, folder / path.name)


def _shares(label: np.ndarray, synthetic: RawDataset) -> dict[str, float]:
    """The foreground shares of a corrected label, as in an export's manifest."""
    counts = np.bincount(label.ravel(), minlength=synthetic.classes)
    return {name: round(float(counts[value] / label.size), 6) for name, value in synthetic.labels.items() if value}


def _describe(folder: Path, synthetic: RawDataset, kept: list[str], shares: dict[str, dict[str, float]]) -> None:
    """Write manifest.jsonl, classes.csv and dataset.json, as of an export.

    Args: shares: foreground shares of the corrected cases.
    """
    manifest = synthetic.folder / "manifest.jsonl"
    lines, wanted = [], {*kept}
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else [], 1):
        try:
            record = json.loads(line)
            case = record["case_id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(
                f"{manifest}: line {number} is not a record with a case_id; export the dataset again"
            ) from None
        if case in shares:
            record = {**record, "foreground_share": shares[case], "corrected": True}
        if case in wanted:
            lines.append(json.dumps(record) + "\n")
    if lines:
        write_text(folder / "manifest.jsonl", "".join(lines))
    classes = synthetic.folder / FILE_NAME
    if classes.is_file():
        found = read_classes(classes, synthetic)
        write_text(folder / FILE_NAME, classes_csv({case: found[case] for case in kept}))
    write_json_like(folder, synthetic, len(kept))

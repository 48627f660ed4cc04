"""The report on a synthetic dataset, and on the audit of one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, read_case, read_dataset
from jdm.errors import DataError
from jdm.evaluation.agreement import GATE
from jdm.evaluation.audit_page import agreement_verdict
from jdm.evaluation.tables import Table
from jdm.report.content import Report, Section, Strips
from jdm.report.nearest import nearest_section
from jdm.report.read import contents_of, find_dataset, read_object
from jdm.report.shown import foreground, pairs_section

AUDIT, PROVENANCE, MANIFEST = "audit.json", "provenance.json", "manifest.jsonl"
_MOST_MEASURED = 100
_TABLES = {
    "copies": "Nearness to training cases: how often taken for copies, medians, and the shared information of masks",
    "distribution": "Distance of pixels to those of training cases; floor: of one half of those to the other",
    "resemblance": "Likeness of random pairs of different cases, 64 pixels a side; within a set: its diversity",
    "appearance": "Looks: means over images or slices",
}


def synthetic_report(folder: Path, real: RawDataset | None) -> Report:
    """The report on a synthetic dataset, beside real cases if they are given.

    Raises: DataError if a part of it is missing or damaged.
    """
    made = read_dataset(folder)
    provenance = read_object(folder / PROVENANCE)
    generator = read_generator(made)
    verdict = f"{len(made.cases)} synthetic pairs, not audited: nothing says how near they lie to training cases."
    if (folder / AUDIT).is_file():
        verdict = audit_verdict(folder / AUDIT)
    with contents_of(folder / PROVENANCE):
        facts = _provenance(provenance, generator)
    return Report(
        "synthetic dataset", f"{made.name}: synthetic pairs", verdict, tuple(synthetic_sections(made, real)), facts
    )


def audit_report(folder: Path, real: RawDataset | None) -> Report:
    """The report on an audit that lies apart from its dataset. Raises: DataError if it is damaged."""
    file = folder / AUDIT
    content = read_object(file)
    with contents_of(file):
        name, like = str(content["synthetic"]), str(content["real"])
    made = find_dataset(name)
    sections = [] if made is None else [pairs_section(made, real, _trained(made))]
    sections += audit_sections(file, made, real)
    return Report("audit", f"Audit of {name}", audit_verdict(file), tuple(sections), (("Compared with", like),))


def synthetic_sections(made: RawDataset, real: RawDataset | None) -> list[Section]:
    """Pairs, nearest training cases and distributions of a synthetic dataset. Raises: DataError as its files."""
    sections = [pairs_section(made, real, _trained(made))]
    if (made.folder / AUDIT).is_file():
        sections += audit_sections(made.folder / AUDIT, made, real)
    shares = _share_plots(made, real)
    if shares:
        text = "Share of pixels or voxels of each class, a dot per case."
        sections.append(Section("Foreground", (text,), plots=tuple(shares)))
    return sections


def audit_sections(file: Path, made: RawDataset | None, real: RawDataset | None) -> list[Section]:
    """What an audit.json says; with both datasets at hand, also the nearest cases as pictures."""
    content = read_object(file)
    with contents_of(file):
        verdicts = content["verdicts"]
        tables = tuple(_sets_table(caption, content[name]) for name, caption in _TABLES.items())
        if by_class := content.get("resemblance_by_class"):
            tables = (*tables, _by_class(by_class))
        marks = {
            f"median of {name.replace('_', '-')} cases": numbers["distance"]
            for name, numbers in content["copies"].items()
            if name != "synthetic"
        }
        plot = Strips(
            "Distance of each synthetic image or slice to its nearest training case", "0: a copy; 1.41: unrelated",
            {"synthetic": [float(each["distance"]) for each in verdicts]}, marks,
        )  # fmt: skip
        nearest = sorted(_nearest_by_case(verdicts), key=lambda each: (not each["copy"], _ratio(each)))
        listed = Table(
            "Each pair and its nearest training case; the lowest ratio of the two distances is the most suspect",
            ("pair", "nearest training case", "distance", "to the next other case", "ratio", "taken for a copy"),
            tuple(_nearest_row(each) for each in nearest),
        )
    sections = []
    if made is not None and real is not None:
        with contents_of(file):
            sections += nearest_section(made, real, nearest)
    sections.append(Section("Distances and distributions", plots=(plot,), tables=(*tables, listed)))
    if content.get("agreement"):
        with contents_of(file):
            sections.append(_agreement_section(content["agreement"]))
    return sections


def _agreement_section(found: Mapping[str, Any]) -> Section:
    rows = {name.replace("_", "-"): [float(x) for x in cases.values()] for name, cases in found["cases"].items()}
    limit = {f"{100 * GATE:.0f} % of real cases lie below": float(found["least"])}
    plot = Strips("Agreement of each case", "Dice of mask and prediction", rows, limit)
    table = _sets_table("Agreement, and the networks' loss, by set", found["sets"])
    return Section("Agreement of masks", (agreement_verdict(found),), plots=(plot,), tables=(table,))


def audit_verdict(file: Path) -> str:
    """The verdict of an audit.json in words. Raises: DataError if it is damaged."""
    import dataclasses

    from jdm.evaluation.audit_page import verdict
    from jdm.evaluation.set_audit import SetAudit, Verdict

    content = read_object(file)
    with contents_of(file):
        known = {field.name: content[field.name] for field in dataclasses.fields(SetAudit) if field.name in content}
        for name in ("verdicts", "leaked"):
            known[name] = tuple(Verdict(**each) for each in known[name])
        known["three_sample"] = {k: math.nan if v is None else v for k, v in known["three_sample"].items()}
        return verdict(SetAudit(**known))


def _trained(made: RawDataset) -> list[str]:
    return list(read_generator(made)["training_ids"])


def _nearest_by_case(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each case, the plane that is most suspect."""
    best: dict[str, dict[str, Any]] = {}
    for each in verdicts:
        known = best.get(each["case_id"])
        if known is None or (not each["copy"], _ratio(each)) < (not known["copy"], _ratio(known)):
            best[each["case_id"]] = each
    return list(best.values())


def _ratio(each: Mapping[str, Any]) -> float:
    return each["distance"] / max(each["second"], 1e-6) if each["second"] is not None else 1.0


def _nearest_row(each: Mapping[str, Any]) -> tuple[str, ...]:
    second = "" if each["second"] is None else f"{each['second']:.3f}"
    ratio = "" if each["second"] is None else f"{_ratio(each):.3f}"
    return (
        each["case_id"], str(each["nearest"]), f"{each['distance']:.3f}", second, ratio, "yes" if each["copy"] else "no"
    )  # fmt: skip


def _sets_table(caption: str, sets: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Numbers by set, a row per measure."""
    measures = list(
        dict.fromkeys(k for numbers in sets.values() for k, v in numbers.items() if not isinstance(v, list))
    )
    header = ("measure", *(name.replace("_", "-") for name in sets))
    rows = [
        (measure.replace("_", " "), *(_number(numbers.get(measure)) for numbers in sets.values()))
        for measure in measures
        if measure != "frechet_reliable"
    ]
    reliable = sets.get("synthetic", {}).get("frechet_reliable")
    note = "; frechet is unreliable here, with fewer images than features" if reliable == 0 else ""
    return Table(caption + note, header, tuple(rows))


def _by_class(pairs: Mapping[str, Mapping[str, float]]) -> Table:
    """A row per pair of groups, because there are many."""
    caption = "The same by class; real pairs of one class are the floor, which a perfect generator's pairs reach"
    rows = [(groups, *(_number(value) for value in numbers.values())) for groups, numbers in pairs.items()]
    return Table(caption, ("groups", "mean squared error", "structural similarity"), tuple(rows))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if value % 1 and abs(value) > 1e-6 else f"{value:.0f}"


def _share_plots(made: RawDataset, real: RawDataset | None) -> list[Strips]:
    """Foreground shares of synthetic pairs by the manifest, and those of real ones measured from their labels."""
    from jdm.export.folder import read_manifest

    file, plots = made.folder / MANIFEST, []
    if not file.is_file() or not made.has_masks:
        return []
    with contents_of(file):
        records = [record["foreground_share"] for record in read_manifest(file)]
        found = {name: [float(record.get(name, 0)) for record in records] for name in foreground(made)}
    measured: dict[str, list[float]] = {name: [] for name in found}
    if real is not None and real.labels == made.labels:
        spread = np.unique(np.linspace(0, len(real.cases) - 1, _MOST_MEASURED).round().astype(int))
        for case in (real.cases[n] for n in spread):
            label = read_case(real, case).label
            for name in found:
                measured[name].append(float(np.mean(label == real.labels[name])))
    for name, shares in found.items():
        rows = {"real": measured[name], "synthetic": shares}
        plots.append(Strips(name, "share", {kind: values for kind, values in rows.items() if values}))
    return plots


def _provenance(content: Mapping[str, Any], generator: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What provenance.json says, in words."""
    trained = list(map(str, generator["training_ids"]))
    fold, step = generator.get("fold"), generator.get("step")
    facts = {
        "Generator": f"trained on {generator.get('dataset')}, fold {fold}, step {step}",
        "Training cases": f"{len(trained)}: {', '.join(trained[:30])}" + (" ..." if len(trained) > 30 else ""),
        "Checkpoint (SHA-256)": generator.get("checkpoint_sha256"),
        "jdm": content.get("jdm_version"),
        "Sampler": f"{content.get('sampler')}, {content.get('steps')} steps" if content.get("sampler") else None,
        "Guidance": content.get("guidance"),
        "Masks": content.get("masks"),
        "Seed": content.get("seed"),
        "Compared with real pairs": None if "judged" not in content else "yes" if content["judged"] else "no, --anyway",
        "Drawn again": content.get("redrawn"),
    }
    return tuple((name, str(value)) for name, value in facts.items() if value is not None)


def check_finished(folder: Path) -> None:
    """Raises: DataError if an export, or what is left of one, is not complete."""
    if not (folder / PROVENANCE).is_file() or folder.name.startswith("."):
        raise DataError(
            f"{folder}: is an unfinished export; expected one with {PROVENANCE}, which is written last; repeat the "
            "jdm-export command to finish it"
        )

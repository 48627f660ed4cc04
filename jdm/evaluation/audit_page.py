"""The files of an audit; audit.md has the verdict in words, then the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdm.data.raw_layout import few
from jdm.evaluation.agreement import GATE
from jdm.evaluation.set_audit import FLAGGED, SetAudit
from jdm.system.files import write_json, write_text

_COPIES = {
    "copies": "share taken for copies",
    "ratio": "median ratio of nearest to second nearest",
    "distance": "median distance",
    "smallest_distance": "smallest distance",
    "authentic": "AuthPct / 100",
    "hash_bits": "median bits to the nearest perceptual hash, of 64",
    "smallest_hash_bits": "fewest bits to one",
    "mask_information": "mutual information of masks, nats",
}
_DISTRIBUTION = ("n", "kernel", "frechet", "precision", "recall", "density", "coverage")


def write_audit(audit: SetAudit, folder: Path) -> list[Path]:
    """Write audit.json and audit.md. Returns: their paths."""
    write_json(folder / "audit.json", audit.to_dict())
    write_text(folder / "audit.md", page(audit))
    return [folder / "audit.json", folder / "audit.md"]


def verdict(audit: SetAudit) -> str:
    """One paragraph: copies, whether that can be trusted, whether pairs are as far from training cases as unseen real
    ones are, and what was measured besides."""
    return " ".join(
        filter(None, (_copies_verdict(audit), agreement_verdict(audit.agreement), membership_verdict(audit.membership)))
    )


def agreement_verdict(found: Mapping[str, Any] | None) -> str:
    """Agreement of masks in a sentence; empty without."""
    if found is None:
        return ""
    low, high = (f"{100 * limit:.0f}" for limit in found["below_interval"])
    made, real = (found["sets"][name] for name in ("synthetic", "held_out"))
    return (
        f"A network that did not see them agrees with the masks of {100 * found['below']:.0f} % of the pairs "
        f"({low} to {high} %) less than with those of all but {100 * GATE:.0f} % of {real['n']} real cases "
        f"(Dice below {found['least']:.3f}; means {made['mean']:.3f} and {real['mean']:.3f})."
    )


def membership_verdict(found: Mapping[str, Any] | None) -> str:
    """Membership inference in a sentence; empty if it was not looked for."""
    if found is None:
        return ""
    if "auc" not in found:
        return f"Membership inference was left out: {found.get('left_out', 'there are no held-out cases')}."
    patients, area = (
        found["patients"],
        f"AUC {found['auc']:.2f}, 95 % interval {found['low']:.2f} to {found['high']:.2f}",
    )
    counted = f"{patients['training']} training and {patients['held_out']} held-out patients or cases"
    if found["low"] > 0.5:
        return f"The generator's own loss tells its training cases from unseen ones ({area}, {counted}): it leaks them."
    return (
        f"The generator's own loss does not tell its training cases from unseen ones ({area}; 0.5: chance; {counted})."
    )


def _copies_verdict(audit: SetAudit) -> str:
    pairs = len({found.case_id for found in audit.verdicts})
    lines = [f"{len(audit.copied)} of {pairs} pairs are copies of training cases."]
    if "held_out" not in audit.copies:
        lines.append("There are no real cases that were not trained on, so nothing says how near is too near.")
        return " ".join(lines)
    lines.append(_trusted(audit))
    if leaked := sorted({found.case_id for found in audit.leaked}):
        lines.append(
            f"Held-out cases that look like copies of training cases: {few(leaked)}. If they are of the same patients, "
            "the split leaks. The other controls leave them out."
        )
    z = audit.three_sample["z"]
    if math.isnan(z):
        return " ".join(lines)
    made, control = audit.copies["synthetic"]["distance"], audit.copies["held_out"]["distance"]
    if z < -3:
        lines.append(
            f"The pairs lie nearer to training cases than unseen real cases (C_T = {z:.1f}, below -3): "
            "the model repeats what it was trained on, if not whole cases."
        )
    else:
        lines.append(
            f"The pairs lie no nearer to training cases than unseen real cases (C_T = {z:.1f}; below -3 would say so): "
            f"median distance {made:.3f}, theirs {control:.3f}."
        )
    return " ".join(lines)


def _trusted(audit: SetAudit) -> str:
    """What the same criterion says of real cases that cannot be copies."""
    control = audit.copies["held_out"]
    low, high = (f"{100 * limit:.1f}" for limit in control["copies_interval"])
    share = f"{100 * control['copies']:.1f} % ({low} to {high} %)"
    seen = f"Of unseen real images or slices {share} would be taken for copies"
    if audit.calibrated:
        return f"{seen}."
    return (
        f"{seen}, more than {100 * FLAGGED:.0f} %: cases of this dataset are so alike that a pair taken for a copy "
        "may be none; look at each."
    )


def page(audit: SetAudit) -> str:
    """The audit as Markdown."""
    planes = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in audit.planes.items())
    blank = "".join(
        f"; {count} constant ones of {name.replace('_', '-')} left out" for name, count in audit.blank.items()
    )
    how = "whole images" if audit.whole else "areas as large as a pair, at every offset"
    parts = [
        f"# Audit of {audit.synthetic}", verdict(audit),
        f"Beside {audit.real}; images or slices: {planes}{blank}. Compared: {how}, over flips and quarter turns, by "
        f"normalised cross-correlation. A pair is taken for a copy if it equals a training case, or if its distance to "
        f"the nearest one is below {audit.threshold:.3f} times that to the nearest of another case, near-duplicates of "
        "that one left out.",
        "## Copies", _table({name: audit.copies[name] for name in audit.copies}, _COPIES),
        "## Distribution",
        "Distance of pixels, reduced to 16 a side, to those of training cases; `floor`: of one half of the training "
        "cases to the other." + _warning(audit),
        _table(audit.distribution, {name: name for name in _DISTRIBUTION}),
        "Likeness of random pairs of different cases, 64 pixels a side; within a set it measures diversity.",
        _table(audit.resemblance, {"mean_squared_error": "mean squared error", "structural_similarity": "SSIM"}),
        *_by_class(audit),
        "## Looks", _table(audit.appearance, {name: name for name in next(iter(audit.appearance.values()))}),
    ]  # fmt: skip
    if audit.agreement is not None:
        sets = audit.agreement["sets"]
        parts += [
            "## Agreement of masks",
            "Dice of a mask and the prediction of nnU-Nets that did not see the case, each trained on one half of the "
            "real training cases; real cases by the network of the other half, synthetic ones by both (mean).",
            _table(sets, {name: name for name in sets["synthetic"]}),
        ]
    if audit.coherence:
        parts += [
            "## Neighbouring slices",
            "Gradients of volumes and overlap of neighbouring masks along each axis: Kolmogorov distance of their "
            "distribution to that of training volumes (0: equal, 1: apart; `floor`: of one half of them to the other), "
            "and means. A stack of unrelated slices is apart along its own axis.",
            _table(audit.coherence, {name: name for name in audit.coherence["synthetic"]}),
        ]  # fmt: skip
    for title, found in (("Copies", audit.verdicts), ("Held-out cases near to training cases", audit.leaked)):
        if lines := [f"- {v.case_id}: {v.nearest}" for v in found if v.copy]:
            parts += [f"## {title} by name", "\n".join(dict.fromkeys(lines))]
    return "\n\n".join(parts) + "\n"


def _by_class(audit: SetAudit) -> list[str]:
    """A row per pair of groups, because there are many."""
    if not audit.resemblance_by_class:
        return []
    lines = ["| groups | mean squared error | SSIM |", "| --- | ---: | ---: |"]
    for groups, numbers in audit.resemblance_by_class.items():
        lines.append(f"| {groups} | {' | '.join(map(_cell, numbers.values()))} |")
    text = "The same by class. Real pairs of one class are the floor, which a perfect generator would reach."
    return [text, "\n".join(lines)]


def _warning(audit: SetAudit) -> str:
    unreliable = not audit.distribution["synthetic"].get("frechet_reliable")
    return " The Frechet distance is unreliable: there are fewer images than features." if unreliable else ""


def _table(sets: Mapping[str, Mapping[str, Any]], rows: Mapping[str, str]) -> str:
    head = ["", *(name.replace("_", "-") for name in sets)]
    body = [[text, *(_cell(numbers.get(row)) for numbers in sets.values())] for row, text in rows.items()]
    lines = [head, ["---", *["---:"] * len(sets)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}" if value % 1 else f"{value:.0f}"

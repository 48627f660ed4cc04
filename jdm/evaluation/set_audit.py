"""The audit of a synthetic dataset: are its pairs copies of training cases, and are they distributed like real ones?

Every number stands beside that of real cases that were not trained on, and, for distributions, beside that of two
halves of the training cases. Cases are read one at a time; of each plane some kilobytes are kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset
from jdm.errors import DataError
from jdm.evaluation.audit import COPY_RATIO, mutual_information, transformed
from jdm.evaluation.coherence import coherences, compared
from jdm.evaluation.copies import Matches, Scale, Search
from jdm.evaluation.hashes import nearest_bits
from jdm.evaluation.planes import PlaneSet, area, planes, training_groups
from jdm.evaluation.set_distances import distributions, looks, resemblance, resemblance_by_class
from jdm.system.files import strict

FLAGGED = 0.01
"""Share of held-out real planes that may be taken for copies; above it, verdicts on single pairs cannot be trusted."""
_LOOKED_AT = 50
"""Cases whose sizes decide how images are compared."""
_MOST_AREAS = 2000
"""Random areas of held-out images that are compared, where areas are."""


@dataclass(frozen=True)
class Verdict:
    """What the search found about one plane of a pair, or of a held-out real case."""

    case_id: str
    nearest: str
    """Training case."""
    distance: float
    second: float
    copy: bool


@dataclass(frozen=True)
class SetAudit:
    """The audit of a synthetic dataset; `to_dict` is audit.json."""

    synthetic: str
    real: str
    planes: dict[str, int]
    """Number of images or slices of synthetic, training and held-out cases."""
    blank: dict[str, int]
    """Constant ones, which were left out."""
    whole: bool
    """Whether whole images were compared, else areas of the training images at every offset."""
    threshold: float
    """A distance ratio below this makes a copy."""
    copies: dict[str, dict[str, Any]]
    """By set: numbers about its nearest training images."""
    three_sample: dict[str, float]
    """C_T of Meehan et al. 2020 (arXiv:2004.05675) with one cell: z of the Mann-Whitney U of the distances of synthetic
    and of held-out cases (mean over their planes) to their nearest training images; far below 0 says copying. p:
    one-sided."""
    distribution: dict[str, dict[str, float | None]]
    resemblance: dict[str, dict[str, float]]
    """By pair of sets: mean squared error and structural similarity of random pairs of different cases."""
    appearance: dict[str, dict[str, float]]
    leaked: tuple[Verdict, ...]
    """Held-out real cases that are copies of training cases, which the controls leave out."""
    verdicts: tuple[Verdict, ...]
    agreement: dict[str, Any] | None = None
    """See `agreement.agreement_summary`; None: no network judged the pairs."""
    membership: dict[str, Any] | None = None
    """See `jdm.sample.membership`; or `left_out`, the reason. None: not looked for."""
    coherence: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of volumes: how neighbouring slices fit together, see `jdm.evaluation.coherence.compared`."""
    resemblance_by_class: dict[str, dict[str, float]] = field(default_factory=dict)
    """`resemblance` by pair of groups of one class; empty unless both datasets have classes.csv."""

    @property
    def copied(self) -> list[str]:
        """Cases with a plane that is a copy."""
        return sorted({verdict.case_id for verdict in self.verdicts if verdict.copy})

    @property
    def calibrated(self) -> bool | None:
        """Whether no more held-out planes than `FLAGGED` are taken for copies, as far as can be told; None: unknown."""
        control = self.copies.get("held_out")
        return None if control is None else control["copies_interval"][0] <= FLAGGED

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with NaN as None."""
        return strict({**dataclasses.asdict(self), "copied": self.copied, "calibrated": self.calibrated})


def audit_set(
    synthetic: RawDataset, real: RawDataset, held_out: RawDataset | None = None, trained: Sequence[str] | None = None
) -> SetAudit:
    """Audit a synthetic dataset against the real one that its generator was trained on.

    Args:
        held_out: real cases that were not trained on; None: those of `real` that were not, test cases included.
        trained: cases of `real` that were; None: those in the synthetic dataset's provenance.json.
    Raises: DataError if the dataset is not an export, or not of `real`, held-out cases were trained on, or the sets
        cannot be compared.
    """
    trained = _trained(synthetic, real) if trained is None else trained
    shapes = [plane.label.shape for plane in planes(synthetic, _spread(synthetic.cases))]
    scale = Scale.of([plane.label.shape for plane in planes(real, _spread(trained))], shapes)
    size = None if scale.whole else tuple(np.median(shapes, axis=0).astype(int).tolist())
    rng, search = np.random.default_rng(0), Search(scale)
    training, control = PlaneSet(f"{real.name}'s training cases", scale), PlaneSet("the held-out cases", scale)
    masks = []
    for plane in planes(real, trained, group_of=training_groups(real, trained)):
        if not plane.blank:
            search.add(plane.image, plane.group)
            masks.append(scale.label(plane.label))
        training.add(plane if size is None else area(plane, size, rng), of=plane)
    made = PlaneSet(synthetic.name, scale)
    for plane in planes(synthetic, list(synthetic.cases)):
        made.add(plane)
    for dataset, cases, test in _held_out(real, held_out, trained):
        repeats = 1 if size is None else math.ceil(min(len(made), _MOST_AREAS) / max(len(cases), 1))
        for plane in planes(dataset, cases, test):
            for _ in range(repeats):
                control.add(plane if size is None else area(plane, size, rng), of=plane)
    _refuse(made, training, control)
    if held_out is not None:
        _refuse_trained(training, control)
    found = _compared(_Sets(made, training, control), search, masks, (synthetic.name, real.name))
    unseen = [one for part in _held_out(real, held_out, trained) for one in coherences(*part)]
    made_and_real = coherences(synthetic, synthetic.cases), coherences(real, trained)
    return dataclasses.replace(
        found, coherence=compared(*made_and_real, unseen),
        resemblance_by_class=resemblance_by_class(made, training, synthetic, real),
    )  # fmt: skip


def _trained(synthetic: RawDataset, real: RawDataset) -> list[str]:
    """The training cases in a provenance."""
    origin = read_generator(synthetic)
    dataset, trained = origin.get("dataset"), set(origin["training_ids"])
    if dataset != real.name or not trained <= set(real.cases):
        raise DataError(
            f"{synthetic.name} was made from {dataset}; found {real.name}; expected the dataset that its generator was "
            "trained on; name that one with --like"
        )
    return sorted(trained)


def _held_out(
    real: RawDataset, held_out: RawDataset | None, trained: Sequence[str]
) -> list[tuple[RawDataset, list[str], bool]]:
    """Datasets, cases, and whether they are of imagesTs."""
    if held_out is not None:
        return [(held_out, list(held_out.cases), False)]
    known = set(trained)
    tested = [case for case in real.test_cases if real.test_files[case].label or not real.has_masks]
    return [(real, [case for case in real.cases if case not in known], False), (real, tested, True)]


def _spread(cases: Sequence[str]) -> list[str]:
    """At most `_LOOKED_AT` cases spread over all."""
    chosen = np.linspace(0, len(cases) - 1, min(_LOOKED_AT, len(cases))).astype(int)
    return [str(cases[n]) for n in np.unique(chosen)]


def _refuse(made: PlaneSet, training: PlaneSet, control: PlaneSet) -> None:
    """Raise a DataError if the sets cannot be compared."""
    for part in (made, training):
        if not part.images:
            raise DataError(
                f"all {part.blank} images of {part.name} are constant; expected some that are not; check the files"
            )
    for part in (made, control):
        if part.images and len(part.images[0]) != len(training.images[0]):
            raise DataError(
                f"{part.name} has {len(part.images[0])} channels and {training.name} {len(training.images[0])}; "
                "expected the same; name the dataset that the generator was trained on"
            )


def _refuse_trained(training: PlaneSet, control: PlaneSet) -> None:
    """Raise a DataError if a case that was said to be held out was trained on."""
    known = dict(zip(training.digests, training.cases, strict=True))
    for case_id, digest in zip(control.cases, control.digests, strict=True):
        if digest in known:
            raise DataError(
                f"held-out case {case_id} equals training case {known[digest]}; expected cases that were not trained "
                "on; leave it out, or give others with --held-out"
            )


@dataclass(frozen=True)
class _Sets:
    made: PlaneSet
    training: PlaneSet
    control: PlaneSet


def _compared(sets: _Sets, search: Search, masks: list[np.ndarray], names: tuple[str, str]) -> SetAudit:
    """The audit of gathered sets. Args: masks: reduced, of the whole training planes."""
    made, training, control = sets.made, sets.training, sets.control
    own = search.compare(training.images)
    found = {"synthetic": (made, search.nearest(made.images))}
    leaked, unseen = (), control
    if control.images:
        near = search.nearest(control.images)
        found["held_out"] = (control, near)
        leaked = tuple(_verdict(control, training, near, n, True) for n in np.flatnonzero(near.ratio < COPY_RATIO))
        unseen = control.without({verdict.case_id for verdict in leaked})
    exact, near = set(training.digests), found["synthetic"][1]
    copied = (near.ratio < COPY_RATIO) | np.array([digest in exact for digest in made.digests])
    parts = {"synthetic": made, "training": training, **({"held_out": unseen} if unseen.images else {})}
    return SetAudit(
        *names, planes={name: len(part) for name, part in {**parts, "held_out": control}.items() if len(part)},
        blank={name: part.blank for name, part in {**parts, "held_out": control}.items() if part.blank},
        whole=search.scale.whole, threshold=COPY_RATIO,
        copies={
            name: _nearness(part, near, own, masks, search.scale) | _hashes(part, training, search.scale)
            for name, (part, near) in found.items()
        },
        three_sample=_three_sample(found, {verdict.case_id for verdict in leaked}),
        distribution=distributions(parts), resemblance=resemblance(parts),
        appearance={name: looks(part) for name, part in parts.items()}, leaked=leaked,
        verdicts=tuple(_verdict(made, training, near, n, bool(copy)) for n, copy in enumerate(copied)),
    )  # fmt: skip


def _verdict(part: PlaneSet, training: PlaneSet, near: Matches, n: int, copy: bool) -> Verdict:
    distance, second = (round(float(values[n]), 4) for values in (near.distance, near.second))
    return Verdict(part.cases[n], training.cases[near.index[n]], distance, second, copy)


def _three_sample(found: dict[str, tuple[PlaneSet, Matches]], left_out: set[str]) -> dict[str, float]:
    if "held_out" not in found:
        return {"z": math.nan, "p": math.nan}
    distances = []
    for part, near in (found["synthetic"], found["held_out"]):
        by_case: dict[str, list[float]] = {}
        for case_id, distance in zip(part.cases, near.distance.tolist(), strict=True):
            by_case.setdefault(case_id, []).append(distance)
        distances.append([float(np.mean(values)) for case_id, values in by_case.items() if case_id not in left_out])
    n, m = map(len, distances)
    if not m:
        return {"z": math.nan, "p": math.nan}
    test = stats.mannwhitneyu(*distances, alternative="less", method="asymptotic")
    return {"z": float((test.statistic - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)), "p": float(test.pvalue)}


def _nearness(part: PlaneSet, near: Matches, own: np.ndarray, masks: list[np.ndarray], scale: Scale) -> dict[str, Any]:
    """Numbers about the nearest training images of a set.

    copies_interval: exact 95 % interval (Clopper-Pearson) of `copies`.
    authentic: share of planes farther from their nearest training image than that is from those of other cases (100
    times this is AuthPct, Alaa et al. 2022, arXiv:2102.08921).
    """
    rows = zip(part.labels, near.index, near.symmetry, near.start // scale.factor, strict=True)
    shared = np.array([_mask_information(label, masks[i], int(k), start) for label, i, k, start in rows])
    below = near.ratio < COPY_RATIO
    interval = stats.binomtest(int(below.sum()), len(below)).proportion_ci(method="exact")
    comparable = ~np.isnan(own[near.index])
    return {
        "copies": float(below.mean()),
        "copies_interval": [float(interval.low), float(interval.high)],
        "ratio": float(np.median(near.ratio)),
        "distance": float(np.median(near.distance)),
        "smallest_distance": float(near.distance.min()),
        "authentic": float(np.mean((near.distance > own[near.index])[comparable])) if comparable.any() else math.nan,
        "mask_information": float(np.nanmean(shared)) if np.isfinite(shared).any() else math.nan,
    }


def _hashes(part: PlaneSet, training: PlaneSet, scale: Scale) -> dict[str, Any]:
    """Bits between perceptual hashes of a set and the nearest of the training images; none where areas are compared,
    whose places are unknown."""
    if not scale.whole:
        return {}
    bits = nearest_bits(part.greys, training.greys)
    return {"hash_bits": float(np.median(bits)), "smallest_hash_bits": float(bits.min())}


def _mask_information(label: np.ndarray, training: np.ndarray, symmetry: int, start: np.ndarray) -> float:
    """Mutual information of a reduced mask and the matched area of a training mask, nats; NaN if their sizes differ.

    Source: thesis Eq. 5.1.
    """
    height, width = label.shape if symmetry % 2 == 0 else label.shape[::-1]
    beneath = training[start[0] : start[0] + height, start[1] : start[1] + width]
    turned = transformed(beneath, symmetry)
    return mutual_information(label, turned) if turned.shape == label.shape else math.nan

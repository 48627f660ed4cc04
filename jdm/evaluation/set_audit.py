"""The audit of a synthetic dataset: are its pairs copies of training cases, and are they distributed like real ones?

Every number stands beside the same number of real cases that were not trained on, and, for distributions, beside that
of two halves of the training cases.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset
from jdm.errors import DataError
from jdm.evaluation.appearance import colours, objects
from jdm.evaluation.audit import COPY_RATIO, mutual_information, transformed
from jdm.evaluation.copies import Matches, Search
from jdm.evaluation.distribution import KernelDistance, standardised
from jdm.evaluation.manifold import frechet, manifold
from jdm.evaluation.planes import Plane, area, digest, features, planes, repeated
from jdm.system.files import strict

FLAGGED = 0.01
"""Share of held-out real cases that may be taken for copies."""


@dataclass(frozen=True)
class Verdict:
    """What the search found about one plane of a pair."""

    case_id: str
    nearest: str
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
    whole: bool
    """Whether whole images were compared, else areas of the training images at every offset."""
    threshold: float
    """A distance ratio below this makes a copy: `COPY_RATIO`, or lower if held-out cases would be flagged."""
    copies: dict[str, dict[str, float]]
    """By set: numbers about its nearest training images."""
    three_sample: dict[str, float]
    """C_T of Meehan et al. 2020 (arXiv:2004.05675) with one cell: z of the Mann-Whitney U of the distances of synthetic
    and of held-out planes to their nearest training image; far below 0 says copying. p: one-sided."""
    distribution: dict[str, dict[str, float | None]]
    appearance: dict[str, dict[str, float]]
    verdicts: tuple[Verdict, ...]

    @property
    def copied(self) -> list[str]:
        """Cases with a plane that is a copy."""
        return sorted({verdict.case_id for verdict in self.verdicts if verdict.copy})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with NaN as None."""
        return strict({**dataclasses.asdict(self), "copied": self.copied})


def audit_set(
    synthetic: RawDataset, real: RawDataset, held_out: RawDataset | None = None, trained: Sequence[str] | None = None
) -> SetAudit:
    """Audit a synthetic dataset against the real one that its generator was trained on.

    Args:
        held_out: real cases that were not trained on; None: those of `real` that were not, test cases included.
        trained: cases of `real` that were; None: those in the synthetic dataset's provenance.json.
    Raises: DataError if the dataset is not an export, or not of `real`, or held-out cases were trained on.
    """
    trained = _trained(synthetic, real) if trained is None else trained
    training = planes(real, trained)
    if held_out is None:
        others = planes(real, [case for case in real.cases if case not in set(trained)])
        others += planes(real, [case for case in real.test_cases if real.test_files[case].label], test=True)
    else:
        others = planes(held_out, list(held_out.cases))
    _refuse_trained(training, others)
    made = planes(synthetic, list(synthetic.cases))
    if len({len(plane.image) for plane in (*made, *training, *others)}) > 1:
        raise DataError(f"{synthetic.name} and the real cases differ in channels; expected the same; name its dataset")
    return _compared(made, training, others, synthetic.name, real.name)


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


def _refuse_trained(training: list[Plane], others: list[Plane]) -> None:
    known = {digest(plane): plane.case_id for plane in training}
    for plane in others:
        if (twin := known.get(digest(plane))) is not None:
            raise DataError(
                f"held-out case {plane.case_id} equals training case {twin}; expected cases that were not trained on; "
                "leave it out, or give others with --held-out"
            )


def _compared(made: list[Plane], training: list[Plane], others: list[Plane], name: str, like: str) -> SetAudit:
    shapes = [plane.label.shape for plane in made]
    search = Search([plane.image for plane in training], [plane.group for plane in training], shapes)
    size = None if search.whole else tuple(np.median(shapes, axis=0).astype(int).tolist())
    rng = np.random.default_rng(0)
    control = others if size is None else [area(plane, size, rng) for plane in repeated(others, len(made))]
    own = training if size is None else [area(plane, size, rng) for plane in training]
    sets = {"synthetic": made, "held_out": control}
    found = {key: search.nearest([plane.image for plane in part]) for key, part in sets.items() if part}
    threshold = COPY_RATIO
    if "held_out" in found:
        threshold = min(threshold, float(np.quantile(found["held_out"].ratio, FLAGGED, method="lower")))
    near_own = search.own([plane.image for plane in own]).distance
    ct = {"z": math.nan, "p": math.nan}
    if "held_out" in found:
        ct = _three_sample(found["synthetic"].distance, found["held_out"].distance)
    exact = {digest(plane) for plane in training}
    verdicts = _verdicts(made, training, found["synthetic"], threshold, exact)
    return SetAudit(
        name, like, {key: len(part) for key, part in (("training", training), *sets.items())}, search.whole, threshold,
        {key: _nearness(sets[key], training, near, near_own, threshold) for key, near in found.items()}, ct,
        _distributions(made, own, control), {k: _looks(v) for k, v in (("training", own), *sets.items()) if v},
        tuple(verdicts),
    )  # fmt: skip


def _verdicts(
    made: list[Plane], training: list[Plane], near: Matches, threshold: float, exact: set[str]
) -> list[Verdict]:
    rows = zip(made, near.index, near.distance, near.second, near.ratio < threshold, strict=True)
    return [
        Verdict(plane.case_id, training[index].case_id, round(float(d), 4), round(float(s), 4),
                bool(below) or digest(plane) in exact)
        for plane, index, d, s, below in rows
    ]  # fmt: skip


def _three_sample(made: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    test = stats.mannwhitneyu(made, held_out, alternative="less", method="asymptotic")
    n, m = len(made), len(held_out)
    return {"z": float((test.statistic - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)), "p": float(test.pvalue)}


def _nearness(
    part: list[Plane], training: list[Plane], near: Matches, own: np.ndarray, threshold: float
) -> dict[str, float]:
    """Numbers about the nearest training images of a set.

    authentic: share of planes farther from their nearest training image than that is from those of other cases (100
    times this is AuthPct, Alaa et al. 2022, arXiv:2102.08921).
    """
    shared = [_mask_information(plane, training[i], int(k), at) for plane, i, k, at in
              zip(part, near.index, near.symmetry, near.start, strict=True)]  # fmt: skip
    return {
        "copies": float(np.mean(near.ratio < threshold)),
        "ratio": float(np.median(near.ratio)),
        "distance": float(np.median(near.distance)),
        "smallest_distance": float(near.distance.min()),
        "authentic": float(np.mean(near.distance > own[near.index])),
        "mask_information": float(np.nanmean(shared)) if np.isfinite(shared).any() else math.nan,
    }


def _mask_information(plane: Plane, training: Plane, symmetry: int, start: np.ndarray) -> float:
    """Mutual information of a mask and that of the matched training area, nats; NaN if their sizes differ."""
    height, width = plane.label.shape if symmetry % 2 == 0 else plane.label.shape[::-1]
    beneath = training.label[start[0] : start[0] + height, start[1] : start[1] + width]
    turned = transformed(beneath, symmetry)
    return mutual_information(plane.label, turned) if turned.shape == plane.label.shape else math.nan


def _distributions(
    made: list[Plane], training: list[Plane], held_out: list[Plane]
) -> dict[str, dict[str, float | None]]:
    """Distances of a set's features to those of training planes; `floor`: of one half of these to the other."""
    sets = {"synthetic": made, "training": training, **({"held_out": held_out} if held_out else {})}
    pixels = {name: features(part) for name, part in sets.items()}
    scale = pixels["training"]
    scaled = {name: standardised(values, scale) for name, values in pixels.items()}
    groups = sorted({plane.group for plane in training})
    first = {group for n, group in enumerate(groups) if n % 2 == 0}
    if len(groups) > 1:
        halves = [[p for p in training if (p.group in first) is wanted] for wanted in (True, False)]
        scaled["floor"], reference = (standardised(features(half), scale) for half in halves)
    else:
        reference = scaled["training"]

    def against(values: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
        if min(len(values), len(real)) < 2:
            return {}
        distances: dict[str, Callable[[], float]] = {
            "kernel": lambda: KernelDistance(real)(values), "frechet": lambda: frechet(values, real)
        }  # fmt: skip
        enough = min(len(values), len(real)) > values.shape[1]
        return {
            "n": len(values), **{name: distance() for name, distance in distances.items()}, **manifold(values, real),
            "frechet_reliable": float(enough),
        }  # fmt: skip

    return {
        name: against(values, reference if name == "floor" else scaled["training"])
        for name, values in scaled.items()
        if name != "training"
    }


def _looks(part: list[Plane]) -> dict[str, float]:
    """Means of `objects` and `colours`, and of fine: the difference of neighbouring pixels over the deviation."""
    found = [objects(plane.label) for plane in part]
    means = {}
    for name in found[0]:
        values = [one[name] for one in found if not math.isnan(one[name])]
        means[name] = float(np.mean(values)) if values else math.nan
    fine = [float(np.abs(np.diff(p.image, axis=2)).mean() / max(float(p.image.std()), 1e-6)) for p in part]
    light = [float(plane.image.mean()) for plane in part]
    images = [plane.image for plane in part]
    return {**means, "brightness": float(np.mean(light)), "fine": float(np.mean(fine)), **colours(images)}

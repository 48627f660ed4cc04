"""How a synthetic set differs from real ones: distances of features, likeness of random pairs, and looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations_with_replacement

import numpy as np

from jdm.data.classes import FILE_NAME, read_all_classes
from jdm.data.raw_dataset import RawDataset
from jdm.evaluation.appearance import spread
from jdm.evaluation.distribution import KernelDistance, standardised
from jdm.evaluation.manifold import frechet, manifold
from jdm.evaluation.planes import PlaneSet

_MOST = 2000
"""Planes of a set whose features are compared."""
_PAIRS = 500
"""Random pairs of two sets whose likeness is measured."""
_PAIRS_OF_CLASSES = 200
"""Those of two classes, of which there may be many."""


def distributions(sets: Mapping[str, PlaneSet]) -> dict[str, dict[str, float | None]]:
    """Distances of a set's features to those of training planes; `floor`: of one half of these to the other.

    The halves are of different groups, such as patients.
    """
    pixels = {name: _features(part) for name, part in sets.items()}
    scaled = {name: standardised(values, pixels["training"]) for name, values in pixels.items()}
    training = sets["training"]
    groups = sorted(set(training.groups))
    reference = {name: scaled["training"] for name in scaled if name != "training"}
    if len(groups) > 1:
        first = np.isin(_thinned(training.groups), groups[::2])
        scaled["floor"], reference["floor"] = scaled["training"][first], scaled["training"][~first]
    return {name: _against(scaled[name], real) for name, real in reference.items()}


def _features(part: PlaneSet) -> np.ndarray:
    return np.stack(_thinned(part.features))


def _thinned(values: list) -> list:
    """At most `_MOST` of a set's values, spread over it."""
    return [values[n] for n in np.unique(np.linspace(0, len(values) - 1, min(_MOST, len(values))).astype(int))]


def _against(values: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    if min(len(values), len(real)) < 2:
        return {}
    distances: dict[str, Callable[[], float]] = {
        "kernel": lambda: KernelDistance(real)(values), "frechet": lambda: frechet(values, real)
    }  # fmt: skip
    return {
        "n": len(values), **{name: distance() for name, distance in distances.items()}, **manifold(values, real),
        "frechet_reliable": float(min(len(values), len(real)) > values.shape[1]),
    }  # fmt: skip


def resemblance(sets: Mapping[str, PlaneSet]) -> dict[str, dict[str, float]]:
    """Mean squared error and structural similarity of random pairs of planes of different cases, by pair of sets.

    Within a set they measure its diversity. Images are grey and 64 pixels a side; the unit is the range from the 0.5 to
    the 99.5 percentile of the training planes.
    Source of the similarity: Wang et al. 2004, by scikit-image.
    """
    return _resemblances(sets, combinations_with_replacement(sets, 2), sets["training"], _PAIRS)


def resemblance_by_class(
    made: PlaneSet, training: PlaneSet, synthetic: RawDataset, real: RawDataset
) -> dict[str, dict[str, float]]:  # fmt: skip
    """The same between and within groups of planes of one class: real A, synthetic A, real B.

    Of two groups of real planes of one class it is the floor: what a perfect generator would get. Empty unless both
    datasets have classes.csv.
    Raises: DataError if one cannot be used.
    """
    groups = {}
    for word, part, dataset in (("real", training, real), ("synthetic", made, synthetic)):
        file = dataset.folder / FILE_NAME
        if not file.is_file():
            return {}
        class_of = read_all_classes(file, dataset)
        for name in sorted({class_of[case] for case in part.cases} - {""}):
            groups[f"{word} {name}"] = part.without({case for case in part.cases if class_of[case] != name})
    kinds = [(a, b) for a, b in combinations_with_replacement(groups, 2) if not _of_two_made(a, b)]
    return _resemblances(groups, kinds, training, _PAIRS_OF_CLASSES)


def _of_two_made(a: str, b: str) -> bool:
    """Whether two groups are synthetic ones of different classes, which say nothing about likeness to real ones."""
    return a != b and a.startswith("synthetic ") and b.startswith("synthetic ")


def _resemblances(
    sets: Mapping[str, PlaneSet], pairs: Iterable[tuple[str, str]], training: PlaneSet, count: int
) -> dict[str, dict[str, float]]:  # fmt: skip
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    low, high = np.percentile(np.stack(_thinned(training.greys)), [0.5, 99.5])
    found = {}
    for a, b in pairs:
        errors, likeness = [], []
        first, second = (rng.integers(0, len(sets[name]), count).tolist() for name in (a, b))
        for m, n in zip(first, second, strict=True):
            if a == b and sets[a].cases[m] == sets[b].cases[n]:
                continue
            x, y = ((grey - low) / max(high - low, 1e-6) for grey in (sets[a].greys[m], sets[b].greys[n]))
            errors.append(float(np.mean((x - y) ** 2)))
            likeness.append(structural_similarity(x, y, data_range=1.0))
        if errors:
            found[f"{a} - {b}"] = {
                "mean_squared_error": float(np.mean(errors)), "structural_similarity": float(np.mean(likeness))
            }  # fmt: skip
    return found


def looks(part: PlaneSet) -> dict[str, float]:
    """Means over planes of `appearance.objects`, `light` and `quadrants`, and the spread of their mean colours."""
    means = {}
    for name in part.looks[0]:
        values = [one[name] for one in part.looks if not math.isnan(one[name])]
        means[name] = float(np.mean(values)) if values else math.nan
    return {**means, "spread": spread(np.array(part.means))}

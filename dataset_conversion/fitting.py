"""Suggests flags of `jdm-convert pairs` for a folder of masks if the given flags do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataset_conversion.coding import Coding, map_mask
from jdm.data.advice import MOST_VALUES, label_words, labels_flag


@dataclass(frozen=True)
class Mask:
    """A mask as stored."""

    grey: np.ndarray
    """(*spatial)."""
    lossy: bool = False
    palette: tuple[int, ...] = ()
    """Red, green, blue of each index, if the values are indices."""

    def brightness(self, value: float) -> float:
        """Brightness of the colour shown for a value."""
        return float(sum(self.palette[3 * int(value) : 3 * int(value) + 3])) if self.palette else value


@dataclass(frozen=True)
class _Facts:
    """Properties of a mask for finding flags that fit all masks."""

    values: tuple[float, ...] | None
    """Values, the darker first; None if there are too many for flags."""
    lossy: bool
    cut: frozenset[int]
    """White values with which it can be thresholded."""
    whole: frozenset[int]
    """White values that need no --threshold."""


def fitting_flags(masks: Iterable[Mask], coding: Coding) -> str | None:
    """The --labels, and --threshold if needed, that fit all masks; None if there are none.

    Args:
        masks: read one by one and not kept in memory.
    """
    two = len(coding.labels) == 2
    inverse = two and coding.values[0] > coding.values[-1]
    cuts = {
        high: Coding((high, 0) if inverse else (0, high), (0, 1), coding.labels, threshold)
        for high, threshold in ((1, 0.5), (255, 127), (65535, 32767))
    }
    facts = [_facts(mask, cuts if two else {}) for mask in masks]
    values = [fact.values for fact in facts if fact.values is not None]
    if two:
        if meaning := _two_valued(facts, coding):
            return labels_flag(meaning, "background")
        for high, trial in cuts.items():
            if all(high in fact.cut for fact in facts):
                flag = labels_flag(dict(zip(trial.values, coding.declared, strict=True)), "background")
                return flag if all(high in fact.whole for fact in facts) else f"{flag} --threshold {trial.threshold:g}"
        first = coding.declared["background"]
        if any(len(v) > 2 and fact.cut for fact in facts if (v := fact.values)) or any(
            len(v) > 1 and first not in v for v in values
        ):
            return None  # masks use different values, so naming every value would mislabel some
    if len(values) < len(facts) or any(fact.lossy for fact in facts):
        return None
    return label_words({value for found in values for value in found}, coding.declared, all_masks=True)


def _facts(mask: Mask, cuts: Mapping[int, Coding]) -> _Facts:
    values = np.unique(mask.grey).tolist()
    return _Facts(
        tuple(sorted(values, key=mask.brightness)) if len(values) <= MOST_VALUES else None,
        mask.lossy,
        frozenset(high for high, coding in cuts.items() if _fits(mask, coding)),
        frozenset(high for high, coding in cuts.items() if _fits(mask, replace(coding, threshold=None))),
    )


def _fits(mask: Mask, coding: Coding) -> bool:
    try:
        map_mask(mask.grey, mask.lossy, coding)
    except ValueError:
        return False
    return True


def _two_valued(facts: Sequence[_Facts], coding: Coding) -> dict[float, str] | None:
    """Class name by value if no mask has more than two values: the darker is background, or the brighter if --labels
    says so. None if a mask has more values, or if a value would be both."""
    background, name = coding.declared
    names = (background, name) if coding.declared[background] < coding.declared[name] else (name, background)
    roles: dict[float, set[str]] = {}
    for fact in sorted(facts, key=lambda fact: -len(fact.values or ())):  # single values last
        values = fact.values
        if values is None or len(values) > 2 or fact.lossy:
            return None
        if len(values) == 2:
            for value, role in zip(values, names, strict=True):
                roles.setdefault(value, set()).add(role)
        for value in values:
            roles.setdefault(value, {names[value > 0]})
    if any(len(found) > 1 for found in roles.values()) or any(v != int(v) or v < 0 for v in roles):
        return None
    meaning = {value: next(iter(found)) for value, found in roles.items()}
    meaning = {v: n for n, v in coding.declared.items() if n not in meaning.values()} | meaning
    return meaning if len(meaning) <= MOST_VALUES and set(meaning.values()) == {background, name} else None

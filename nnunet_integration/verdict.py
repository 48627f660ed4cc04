"""An experiment's result in words: whether synthetic pairs helped."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Literal

Outcome = Literal["helped", "did not help", "cannot tell"]

LEVEL = 0.05
"""A difference is significant below this p, Holm-adjusted over all tested differences."""
RELEVANT = 0.01
"""If a gain of this much Dice can be excluded, the pairs did not help."""
NOT_LEARNED = 0.05
"""Below this mean Dice, an arm or class counts as not learned: nnU-Net predicts only background before it learns."""
_UNKNOWN: Outcome = "cannot tell"
_WITH_PAIRS = ("pretrain-finetune", "mix")
_SAYS: dict[Outcome, str] = {
    "helped": "Synthetic pairs helped",
    "cannot tell": "Cannot tell whether synthetic pairs help",
    "did not help": "Synthetic pairs did not help",
}


def outcomes(summary: Mapping[str, Any]) -> dict[str, Outcome]:
    """The outcome of each arm that trains on both synthetic and real cases, compared with its control.

    Args:
        summary: result of `summarise`.
    """
    return {entry["arm"]: _outcome(entry, summary["arms"]) for entry in tested(summary)}


def verdict(summary: Mapping[str, Any]) -> str:
    """One paragraph: outcome, difference, control, scope, and smallest detectable difference."""
    found, entries = outcomes(summary), tested(summary)
    if not entries:
        return (
            f"{_SAYS[_UNKNOWN]}: no arm with both kinds of cases was compared with its control; add --arms "
            "real-long pretrain-finetune mix."
        )
    overall: Outcome = next(outcome for outcome in _SAYS if outcome in found.values())
    entries.sort(key=lambda entry: list(_SAYS).index(found[entry["arm"]]))
    arms = []
    for entry in entries:
        outcome = found[entry["arm"]]
        word = "" if outcome == overall and entry is entries[0] else f"{outcome}, "
        arms.append(f"{entry['arm']} minus {entry['minus']}: {word}{_by_how_much(entry, summary['arms'])}")
    sentences = [
        f"{_SAYS[overall]}: {'; '.join(arms)}.",
        _control(entries, summary["arms"]),
        _scope(summary),
        _power(entries),
        *_false_positives(entries, summary),
    ]
    return " ".join(sentences)


def limits(interval: Mapping[str, Any], sign: str = "") -> str:
    """The limits of an interval; a single unit has none."""
    if interval["low"] is None:
        return "[undefined]"
    return f"[{interval['low']:{sign}.4f}, {interval['high']:{sign}.4f}]"


def cell(interval: Mapping[str, Any] | None, sign: str = "") -> str:
    """A mean with its interval."""
    return "undefined" if interval is None else f"{interval['mean']:{sign}.4f} {limits(interval, sign)}"


def headline(verdict: str) -> str:
    """The first sentence of a verdict: the outcome, and the differences behind it."""
    return verdict.partition(". ")[0].rstrip(".") + "."


def unit(summary: Mapping[str, Any]) -> str:
    """Description of the units behind intervals and p values."""
    images, groups = summary["images"], summary["groups"]
    if groups == images:
        return f"{images} images"
    if groups == 1:
        return f"{images} images, all of one group (such as a patient), which say nothing about other groups"
    return f"{images} images of {groups} groups (such as patients or sequences), which are resampled whole"


def answers(arm: str, other: str, arms: Container[str]) -> bool:
    """Whether a comparison shows if pairs help: an arm trained on both kinds of cases, minus the control.

    The control has the same total number of updates, all on real cases; if it is missing, arm `real` replaces it.
    """
    return arm in _WITH_PAIRS and other == ("real-long" if "real-long" in arms else "real")


def tested(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The differences that show whether pairs help."""
    return [entry for entry in summary["differences"] if answers(entry["arm"], entry["minus"], summary["arms"])]


def _outcome(entry: Mapping[str, Any], arms: Mapping[str, Any]) -> Outcome:
    dice, invented = _sign(entry["dice"]), _sign(entry["false_positive_rate"])
    if _unlearned(entry, arms) or (dice and dice == invented):  # Dice and false positives contradict
        return "cannot tell"
    if dice > 0 or (dice == 0 and invented < 0):
        return "helped"
    high = entry["dice"] and entry["dice"]["high"]
    return "did not help" if dice < 0 or invented > 0 or (high is not None and high < RELEVANT) else "cannot tell"


def _sign(difference: Mapping[str, Any] | None) -> int:
    """1 or -1 for a significant difference, else 0."""
    if difference is None or difference["p_holm"] is None or difference["p_holm"] >= LEVEL:
        return 0
    return 1 if difference["mean"] > 0 else -1


def _unlearned(entry: Mapping[str, Any], arms: Mapping[str, Any]) -> list[str]:
    """Arms of a comparison that have not learned to segment anything."""
    found = {name: arms[name]["dice"] for name in (entry["arm"], entry["minus"])}
    return [name for name, dice in found.items() if dice is not None and dice["mean"] < NOT_LEARNED]


def _by_how_much(entry: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    dice = entry["dice"]
    if dice is None:
        return "no reference has a class"
    text = f"{dice['mean']:+.4f} Dice {limits(dice, '+')}"
    if dice["p_holm"] is not None:
        text += f", p = {dice['p_holm']:.3g}"
    if unlearned := _unlearned(entry, arms):
        text += f", but {' and '.join(unlearned)} did not learn (mean Dice below {NOT_LEARNED}; raise --iterations)"
    elif (invented := _sign(entry["false_positive_rate"])) and invented == _sign(dice):
        text += f", but {'more' if invented > 0 else 'fewer'} false positives"
    return text


def _control(entries: list[dict[str, Any]], arms: Mapping[str, Any]) -> str:
    control = entries[0]["minus"]
    total = {
        name: arms[name]["updates_real"] + arms[name]["updates_synthetic"]
        for name in (control, *(entry["arm"] for entry in entries))
    }
    if all(abs(updates - total[control]) <= 0.01 * updates for updates in total.values()):
        return f"The control, {control}, trains only on real cases, for equally many updates."
    counts = ", ".join(f"{name} {updates:.0f}" for name, updates in total.items())
    return f"The control, {control}, trains only on real cases, but the numbers of updates differ ({counts})."


def _scope(summary: Mapping[str, Any]) -> str:
    cells, seeds = summary["cells"]["with_class"], summary["seeds"]
    what = "seed" if isinstance(seeds[0], int) else "network"  # of several folds and seeds
    return (
        f"Over {cells} cells (image x class) and {len(seeds)} {what}{'s' if len(seeds) > 1 else ''}; 95 % intervals "
        f"and p (Holm) over {unit(summary)}."
    )


def _power(entries: list[dict[str, Any]]) -> str:
    seen = [entry["dice"]["detectable"] for entry in entries if entry["dice"]]
    if not seen or None in seen:
        return "These are too few to detect any difference."
    return f"The smallest difference detectable in 80 % of such experiments is {max(seen):.4f} Dice."


def _false_positives(entries: list[dict[str, Any]], summary: Mapping[str, Any]) -> list[str]:
    if not (cells := summary["cells"]["without_class"]):
        return []
    names = [entries[0]["minus"], *(entry["arm"] for entry in entries)]
    rates = ", ".join(f"{name} {100 * summary['arms'][name]['false_positive_rate']['mean']:.0f} %" for name in names)
    return [f"False positives, in the {cells} cells whose reference lacks the class: {rates}."]

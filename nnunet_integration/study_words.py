"""What a study adds to an experiment's report: sentences of the verdict, and tables of its curves and test sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jdm.evaluation.tables import Table
from nnunet_integration.verdict import cell, headline, tested


def study_sentences(results: Mapping[str, Any]) -> Iterator[str]:
    """Sentences to add to the verdict: on length, own plateaus, amounts and test sets; none for a plain experiment."""
    study = results["study"]
    if lengths := study["lengths"]:
        yield from _on_lengths(lengths)
    if study["ratios"]:
        parts = [f"{entry['ratio']:g} times: {_compared(entry)}" for entry in study["ratios"]]
        yield f"By amount of synthetic cases, in amounts of real ones: {'; '.join(parts)}."
    for name, summary in study["tests"].items():
        yield f"On {name}: {headline(summary['verdict'])}"


def _on_lengths(lengths: Mapping[str, Any]) -> Iterator[str]:
    curve, compared = lengths["curve"], lengths["compared"]
    dice = [entry["judged"]["real"] for entry in curve]
    gained = "an unknown amount" if None in dice[-2:] else f"{dice[-1] - dice[-2]:+.4f} Dice"
    place = f"on {lengths['judged_on']}" + (", which are also scored" if lengths["judged_on_scored"] else "")
    if lengths["reached"]:
        yield (
            f"All arms had {compared} updates in total, the plateau of real: it gained {gained} over half as many "
            f"({place}; less than {lengths['rise']} ends the doubling)."
        )
    else:
        yield (
            f"The plateau was not reached: at {compared} updates in total, the most allowed, real had gained {gained} "
            f"over half as many ({place}); raise --most-iterations."
        )
    own = lengths["own"]
    if all(found["updates"] == compared for found in own["plateaus"].values()):
        return
    parts = [
        f"{entry['arm']} ({_updates(own, entry['arm'])}) minus {entry['minus']} ({_updates(own, entry['minus'])}): "
        f"{cell(entry['dice'], '+')}"
        for entry in tested(own)
    ]
    if parts:
        yield f"Each at its own plateau: {'; '.join(parts)}."


def _updates(own: Mapping[str, Any], arm: str) -> str:
    found = own["plateaus"][arm]
    return f"{found['updates']} updates" + ("" if found["reached"] else ", plateau not reached")


def _compared(summary: Mapping[str, Any]) -> str:
    found = [f"{entry['arm']} minus {entry['minus']} {cell(entry['dice'], '+')}" for entry in tested(summary)]
    return ", ".join(found) or "not compared"


def study_tables(results: Mapping[str, Any]) -> list[Table]:
    """Tables of the curves over length and amount, of own plateaus, and of each external test set."""
    study = results.get("study") or {}
    found = []
    if lengths := study.get("lengths"):
        found += [_length_table(lengths), _own_table(lengths["own"])]
    if ratios := study.get("ratios"):
        found.append(_ratio_table(ratios))
    return found + [_test_table(name, summary) for name, summary in study.get("tests", {}).items()]


def _length_table(lengths: Mapping[str, Any]) -> Table:
    curve = lengths["curve"]
    header = ["updates in total", *curve[-1]["arms"], *_pairs(curve[-1]), f"real on {lengths['judged_on']}"]
    rows = []
    for entry in curve:
        judged = entry["judged"]["real"]
        rows.append(
            (str(entry["updates"]), *_scores(entry, curve[-1]), "undefined" if judged is None else f"{judged:.4f}")
        )
    caption = "Dice by length, all arms with equal totals [95 % intervals, not adjusted for the number of lengths]"
    return Table(caption, tuple(header), tuple(rows))


def _own_table(own: Mapping[str, Any]) -> Table:
    rows = tuple((arm, _updates(own, arm), cell(facts["dice"])) for arm, facts in own["arms"].items())
    return Table("Dice of each arm at its own plateau", ("arm", "updates in total", "Dice"), rows)


def _ratio_table(ratios: list[Mapping[str, Any]]) -> Table:
    arms, pairs = ratios[-1]["arms"], _pairs(ratios[-1])
    rows = tuple((f"{entry['ratio']:g}", str(entry["cases"]), *_scores(entry, ratios[-1])) for entry in ratios)
    caption = "Dice by amount of synthetic cases, in amounts of real ones; arms on real cases alone are the same in all"
    return Table(caption, ("amount", "synthetic cases", *arms, *pairs), rows)


def _test_table(name: str, summary: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = [(arm, cell(facts["dice"]), "", "") for arm, facts in summary["arms"].items()]
    for entry in summary["differences"]:
        dice = entry["dice"] or {}
        counts = entry in tested(summary) and dice
        p, seen = dice.get("p_holm"), dice.get("detectable")
        shown = [form(value) if counts and value is not None else "" for value, form in ((p, _p), (seen, _dice))]
        rows.append((f"{entry['arm']} minus {entry['minus']}", cell(entry["dice"], "+"), *shown))
    caption = f"Test set {name}: Dice over {summary['cells']['with_class']} cells of {summary['images']} images"
    return Table(caption, ("arm", "Dice [95 % interval]", "p (Holm)", "smallest detectable"), tuple(rows))


def _p(value: float) -> str:
    return f"{value:.3g}"


def _dice(value: float) -> str:
    return f"{value:.4f}"


def _pairs(summary: Mapping[str, Any]) -> list[str]:
    return [f"{entry['arm']} minus {entry['minus']}" for entry in tested(summary)]


def _scores(entry: Mapping[str, Any], like: Mapping[str, Any]) -> list[str]:
    """Dice of the arms and of the tested differences, in the order of another entry."""
    differences = {(each["arm"], each["minus"]): each["dice"] for each in entry["differences"]}
    arms = [cell(entry["arms"][arm]["dice"]) if arm in entry["arms"] else "" for arm in like["arms"]]
    return [*arms, *(cell(differences.get((each["arm"], each["minus"])), "+") for each in tested(like))]

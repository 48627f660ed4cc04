"""results.json, results.md and the pictures of an experiment, from the scores on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from jdm.system.files import strict, write_json, write_text
from nnunet_integration import report
from nnunet_integration.arms import ALL_ARMS, ArmName
from nnunet_integration.case_sets import CaseSet
from nnunet_integration.comparison import Entry, summarise, summarise_together
from nnunet_integration.pictures import draw_case, evenly_spaced
from nnunet_integration.preparation import Experiment
from nnunet_integration.study import RISE, Lengths, Study, judging, points
from nnunet_integration.study_words import study_sentences
from nnunet_integration.trainings import PAIR_ARMS, Point, padding_of_arm, updates

PICTURES = 6


def write_results(study: Study, lengths: Lengths | None) -> dict[str, Any]:
    """Write results.json, results.md and pictures of all arms with every seed, including those of earlier calls.

    What is tested is adjusted together: the main comparison, those at other amounts, and those on other test sets.
    """
    main, *others = points(study, lengths)
    sets: list[Callable[[Experiment], CaseSet]] = [_scored]
    sets += [_test(number) for number in range(len(study.experiments[0].tests))]
    entries = [_entry(study, main, main, of) for of in sets]
    entries += [_entry(study, point, main, _scored) for point in others]
    first, settings = study.experiments[0], study.experiments[0].settings
    summary, *found = summarise_together(settings, entries)
    tests = dict(zip([cases.title for cases in first.tests], found, strict=False))
    ratios: dict[float | None, dict[str, Any]] = {main.ratio: summary}
    ratios |= zip([point.ratio for point in others], found[len(tests) :], strict=True)
    counts = first.counts
    extra = {
        "scores": sorted({str(job.score_file(job.experiment.scored).parent.relative_to(study.folder))
                          for job in study.jobs(main, ALL_ARMS)}),
        "folds": [experiment.settings.fold for experiment in study.experiments],
        "train_fraction": study.options.train_fraction,
        "lengths": None if lengths is None else _lengths(study, lengths, main.ratio),
        "ratios": [
            {"ratio": ratio, "cases": counts[ratio], **_part(ratios[ratio])} for ratio in sorted(counts)
        ],
        "tests": {name: {**_part(each), "images": each["images"], "groups": each["groups"], "cells": each["cells"],
                         "verdict": each["verdict"]} for name, each in tests.items()},
    }  # fmt: skip
    if len(study.experiments) > 1:
        summary["settings"] |= {"fold": " ".join(study.options.fold), "synthetic": " ".join(_names(study))}
    data = _data(study, main)
    results = {
        **summary,
        "study": strict(extra),
        "data": data,
        "notes": report.notes(data),
        "trainings": _minutes(study),
        "stock": first.stock,
        "patch_note": first.patch_note,
        **report.circumstances(),
    }
    results["verdict"] = " ".join([results["verdict"], *study_sentences(results)])
    write_json(study.folder / "results.json", results)
    write_text(study.folder / "results.md", report.markdown(results))
    _draw(study, main, list(summary["arms"]))
    return results


def _scored(experiment: Experiment) -> CaseSet:
    return experiment.scored


def _test(number: int) -> Callable[[Experiment], CaseSet]:
    return lambda experiment: experiment.tests[number]


def _entry(study: Study, point: Point, main: Point, of: Callable[[Experiment], CaseSet]) -> Entry:
    """Facts, scores and groups of all arms at a point; arms without synthetic cases are those of the main point."""
    scores = {}
    for arm in ALL_ARMS:
        found = study.scores(point if arm in PAIR_ARMS else main, arm, of)
        if found is not None:
            scores[arm] = found
    return Entry(_facts(study, tuple(scores), point), scores, study.groups(of))


def _facts(study: Study, arms: Sequence[ArmName], point: Point) -> dict[ArmName, dict[str, Any]]:
    """Updates and padding of each arm, of the first fold."""
    settings = study.experiments[0].settings
    facts: dict[ArmName, dict[str, Any]] = {}
    for arm in arms:
        on_real, on_synthetic = updates(settings, arm, point)
        facts[arm] = {
            "updates_real": on_real,
            "updates_synthetic": on_synthetic,
            "padding_share": padding_of_arm(settings, arm, study.padding, point),
        }
    return facts


def _lengths(study: Study, lengths: Lengths, ratio: float | None) -> dict[str, Any]:
    """The curve over lengths, and the comparison with each arm at its own plateau; neither is tested."""
    settings, own = study.experiments[0].settings, {}
    curve = []
    for epochs, judged in lengths.judged.items():
        point = Point(epochs, ratio)
        found = summarise(settings, _entry(study, point, point, _scored))
        curve.append({"updates": epochs * study.per_epoch, "judged": judged, **_part(found)})
    facts, scores = {}, {}
    for arm in lengths.plateaus:
        point = Point(lengths.own(arm), ratio)
        scores[arm] = study.scores(point, arm, _scored)
        facts |= _facts(study, (arm,), point)
        own[arm] = {"updates": lengths.own(arm) * study.per_epoch, "reached": lengths.plateaus[arm] is not None}
    found = summarise(settings, Entry(facts, scores, study.groups(_scored)))
    cases = judging(study.experiments[0])
    return {
        "curve": curve,
        "compared": lengths.compared * study.per_epoch,
        "reached": lengths.plateaus["real"] is not None,
        "rise": RISE,
        "judged_on": cases.title if len(study.experiments) == 1 else "the cases that each fold left out",
        "judged_on_scored": study.experiments[0].judged is None,
        "own": {"plateaus": own, **_part(found)},
    }


def _part(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("arms", "differences", "outcomes", "not_learned")}


def _names(study: Study) -> list[str]:
    return [experiment.synthetic.name for experiment in study.experiments]


def _data(study: Study, main: Point) -> dict[str, Any]:
    first, several = study.experiments[0], len(study.experiments) > 1
    used = [e.counts[main.ratio] if main.ratio is not None else len(e.synthetic.cases) for e in study.experiments]
    title = first.scored.title
    if several and not first.on_test_set:
        title = f"validation cases of folds {' '.join(study.options.fold)}, each scored by the networks without it"
    scored = {case for experiment in study.experiments for case in experiment.scored.ids}
    return {
        "training_cases": len(first.training_ids),
        "synthetic_cases": used[0],
        "test_cases": len(scored),
        "test_set": title,
        "transductive": sorted({case for experiment in study.experiments for case in experiment.transductive}),
        "chose_generator": sorted({case for experiment in study.experiments for case in experiment.chose_generator}),
    }


def _minutes(study: Study) -> dict[str, dict[str, Any]]:
    """Minutes by training, over all seeds on disk; for a continued training, only since its last start."""
    found: dict[str, dict[str, Any]] = {}
    for experiment in study.experiments:
        for file in sorted((experiment.folder / "runs").glob("*/seed_*/training.json")):
            minutes = json.loads(file.read_text(encoding="utf-8"))["minutes"]
            entry = found.setdefault(file.parent.parent.name, {"minutes": 0.0, "seeds": 0})
            entry["minutes"] += minutes
            entry["seeds"] += 1
    return found


def _draw(study: Study, main: Point, arms: list[ArmName]) -> None:
    """Pictures of cases that nobody chose, as predicted with the first seed; not of external cases."""
    where = {case: experiment for experiment in study.experiments for case in experiment.scored.ids}
    for case_id in evenly_spaced([*where], PICTURES):
        experiment = where[case_id]
        real, test = experiment.real, experiment.on_test_set
        if case_id not in (real.test_files if test else real.training_files):
            continue
        first = {job.arm: job for job in reversed(study.jobs(main, arms)) if job.experiment is experiment}
        file = f"{case_id}{real.file_ending}"
        predictions = {arm: first[arm].predictions(experiment.scored) / file for arm in arms}
        draw_case(real, case_id, test, predictions, study.folder / "pictures" / f"{case_id}.png")

"""Writes the report on any folder that jdm wrote."""

from __future__ import annotations

import os
from pathlib import Path

from jdm.data.raw_dataset import RawDataset
from jdm.errors import DataError
from jdm.report.content import Report
from jdm.report.page import check_out, write_page

DEMO = "demo.txt"
_UNFINISHED = {"experiment.json": "jdm-experiment", "classify.json": "jdm-classify"}


def report_folder(folder: Path, out: Path | None = None, real: RawDataset | None = None) -> Path:
    """Write report.html and report.json about a folder that jdm wrote. Returns: the page's path.

    Args:
        out: where to write them; None: into `folder`.
        real: show cases of this dataset beside synthetic ones. The page then holds images of patients, and should
            not lie beside pairs that are shared.
    Raises: DataError if jdm did not write or finish the folder, or a part of it is damaged; ConfigError or ExistsError
        if `out` cannot be used.
    """
    if not (os.path.lexists(folder) and folder.is_dir()):
        found = "a file" if os.path.lexists(folder) else "nothing"
        raise DataError(f"{folder}: found {found}; expected a folder that jdm wrote; give one")
    check_out(out or folder)
    return write_page(_report(folder, real), out or folder)


def _report(folder: Path, real: RawDataset | None) -> Report:
    from jdm.report.demo import demo_report
    from jdm.report.evaluated import EVALUATION, evaluation_report
    from jdm.report.experiment import RESULTS
    from jdm.report.synthetic import AUDIT, MANIFEST, PROVENANCE, audit_report, check_finished, synthetic_report
    from jdm.report.training import LOG, PLAN, training_report

    if (folder / DEMO).is_file():
        return demo_report(folder)
    if (folder / RESULTS).is_file():
        return _results(folder)
    for name, command in _UNFINISHED.items():
        if (folder / name).is_file():
            raise DataError(
                f"{folder}: has no {RESULTS}; expected a finished comparison; repeat the {command} command to finish it"
            )
    if any((folder / name).exists() for name in (PROVENANCE, MANIFEST, "batches", "request.json")):
        check_finished(folder)
        return synthetic_report(folder, real)
    if (folder / AUDIT).is_file():
        return audit_report(folder, real)
    for name, report in ((EVALUATION, evaluation_report), (PLAN, training_report), (LOG, training_report)):
        if (folder / name).is_file():
            return report(folder)
    raise DataError(
        f"{folder}: holds none of {RESULTS}, {PROVENANCE}, {EVALUATION}, {AUDIT} and {PLAN}; expected the folder of an "
        "experiment, a comparison of classifiers, a synthetic dataset, an evaluation, an audit, a run or a demo; give "
        "one"
    )


def _results(folder: Path) -> Report:
    """The report of results.json: an experiment's has cells, a comparison of classifiers' has runs."""
    from jdm.report.classified import classify_report
    from jdm.report.experiment import RESULTS, experiment_report
    from jdm.report.read import read_object

    results = read_object(folder / RESULTS)
    if "cells" in results:
        return experiment_report(folder)
    if "runs" in results:
        return classify_report(folder)
    raise DataError(
        f"{folder / RESULTS}: has neither cells nor runs; expected the results of jdm-experiment or jdm-classify; "
        "give the folder of one"
    )

"""Train nnU-Net with and without synthetic pairs under equal conditions, and report whether they helped."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jdm.export.request import shard_of
from jdm.system.locks import held, locked
from nnunet_integration import report
from nnunet_integration.arms import ExperimentOptions
from nnunet_integration.claims import check_folder, claim, locks_folder, output_folder
from nnunet_integration.preparation import Experiment, prepare
from nnunet_integration.results import write_results
from nnunet_integration.study import Study, check_folds, checked, train_lengths, train_points


def run_experiment(options: ExperimentOptions) -> tuple[Path, dict[str, Any] | None]:
    """Run the missing parts of an experiment and write its results.

    Returns: the folder, and the content of its results.json; None if other shards are still at work, the last of which
        writes it.

    Raises: JdmError for unusable options, datasets that do not fit, or a generator that was trained on test cases;
        ExistsError if the output folder holds something else, or another process runs an experiment in it.
    """
    options = checked(options)
    folder = output_folder(options).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f".{folder.name}.lock"  # beside the folder, because --overwrite removes it
    index, shards = shard_of(options.shard)
    with ExitStack() as stack:
        if shards == 1:
            stack.enter_context(held(lock, folder))
            study = _prepared(options, folder)
        else:
            with locked(lock):
                study = _prepared(options, folder)
                stack.enter_context(held(locks_folder(folder) / f"shard_{index}_of_{shards}.lock", folder))
        lengths = None
        with _threads(study.experiments[0].settings.threads):
            if options.until_plateau:
                lengths = train_lengths(study)
            if not train_points(study, lengths):
                return folder, None
        with locked(lock) if shards > 1 else ExitStack():
            return folder, write_results(study, lengths)


def _prepared(options: ExperimentOptions, folder: Path) -> Study:
    """Prepare and claim the folder, and one in it for each of several folds."""
    several = len(options.fold) > 1
    settings = {"real": options.real, "folds": options.fold, "synthetic": options.synthetic}
    if several:
        check_folder(folder, settings, options.overwrite)
    experiments: list[Experiment] = []
    for number in range(len(options.fold)):
        experiments.append(prepare(options, number))
        options = replace(options, threads=experiments[0].settings.threads)  # measured once
    check_folds(experiments)
    found = experiments[0].settings
    if several:
        claim(folder, settings, options.overwrite, locks_folder(folder))
    for experiment in experiments:
        claim(experiment.folder, experiment.settings.to_dict(), options.overwrite, locks_folder(folder))
        for cases in (experiment.scored, *experiment.tests, *filter(None, [experiment.judged])):
            cases.copy_references(experiment.real.file_ending)
    locks_folder(folder).mkdir(exist_ok=True)
    line = report.settings_line(found.to_dict(), experiments[0].stock, experiments[0].patch_note)
    print(line, file=sys.stderr, flush=True)
    return Study(options, folder, tuple(experiments))


def _threads(wanted: int) -> ExitStack:
    """A block in which torch uses that many threads."""
    stack, before = ExitStack(), torch.get_num_threads()
    torch.set_num_threads(wanted)
    stack.callback(torch.set_num_threads, before)
    return stack

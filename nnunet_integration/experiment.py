"""Train nnU-Net with and without synthetic pairs under equal conditions, and report whether they helped."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from jdm.evaluation.metrics import evaluate_folders
from jdm.system.files import write_json, write_text
from jdm.system.locks import held
from nnunet_integration import host, report
from nnunet_integration.arms import (
    ARMS,
    ArmName,
    ExperimentOptions,
    Training,
    needed_trainings,
    padding_of_arm,
    pretraining,
    trainings,
    updates,
)
from nnunet_integration.comparison import summarise
from nnunet_integration.pictures import draw_case, evenly_spaced
from nnunet_integration.plans import padding_share
from nnunet_integration.preparation import (
    SETTINGS_FILE,
    Experiment,
    check_folder,
    differing,
    kept_settings,
    output_folder,
    prepare,
)
from nnunet_integration.settings import TrainerSettings

PICTURES = 6


def run_experiment(options: ExperimentOptions) -> tuple[Path, dict[str, Any]]:
    """Run the missing parts of an experiment and write its results.

    Returns: the folder, and the content of its results.json.

    Raises: JdmError for unusable options, datasets that do not fit, or a generator that was trained on test cases;
        ExistsError if the output folder holds something else, or another process runs an experiment in it.
    """
    folder = output_folder(options).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.parent / f".{folder.name}.lock", folder):  # beside the folder, because --overwrite removes it
        return _run(options)


def _run(options: ExperimentOptions) -> tuple[Path, dict[str, Any]]:
    experiment = prepare(options)
    claim(experiment, options.overwrite)
    settings_line = report.settings_line(experiment.settings.to_dict(), experiment.stock, experiment.patch_note)
    print(settings_line, file=sys.stderr, flush=True)
    needed = needed_trainings(experiment.settings, options.arms)
    _copy_references(experiment)
    threads = torch.get_num_threads()
    torch.set_num_threads(experiment.settings.threads)
    total = len(options.seeds) * sum(training.epochs for training in needed)
    try:
        with tqdm(total=total, unit="epoch", file=sys.__stderr__, disable=None) as bar:
            for seed in options.seeds:
                for training in needed:
                    bar.set_description(f"{training.name}, seed {seed}")
                    _train(experiment, training, seed, bar)
                for arm in options.arms:
                    _score(experiment, arm, seed)
    finally:
        torch.set_num_threads(threads)
    return experiment.folder, _write_results(experiment, options)


def claim(experiment: Experiment, overwrite: bool) -> None:
    """Claim the output folder for this experiment.

    Raises: ExistsError if it holds another experiment (with the first difference) or other files.
    """
    folder, settings = experiment.folder, experiment.settings.to_dict()
    check_folder(folder, settings, overwrite)
    before = kept_settings(folder)
    if overwrite and before and differing(before, settings):
        shutil.rmtree(folder)
    write_json(folder / SETTINGS_FILE, settings)


def _copy_references(experiment: Experiment) -> None:
    """Copy the reference labels to one folder, named by case id."""
    folder, real = experiment.folder / "references", experiment.real
    folder.mkdir(exist_ok=True)
    for case_id in experiment.evaluated_ids:
        label = real.label_file(case_id, experiment.on_test_set)
        shutil.copyfile(label, folder / f"{case_id}{real.file_ending}")


def _train(experiment: Experiment, training: Training, seed: int, bar: tqdm) -> None:
    run = _host_run(experiment, training, seed)
    if run.checkpoint.is_file():
        bar.update(training.epochs)
        return
    start = time.perf_counter()
    host.train(run, experiment.device, experiment.settings.workers, bar.update, experiment.log)
    minutes = (time.perf_counter() - start) / 60
    write_json(run.results / "training.json", {"minutes": minutes, "epochs": training.epochs})


def _host_run(experiment: Experiment, training: Training, seed: int) -> host.HostRun:
    settings = experiment.settings
    dataset = experiment.synthetic if training.synthetic_set else experiment.real
    weights = None
    if training.after is not None:
        weights = str(_host_run(experiment, pretraining(settings), seed).checkpoint)
    return host.HostRun(
        trainer=training.trainer,
        fold="all" if training.synthetic_set else settings.fold,
        settings=TrainerSettings(
            epochs=training.epochs,
            iterations=settings.iterations_per_epoch,
            val_iterations=max(1, settings.iterations_per_epoch // 25),
            learning_rate=settings.learning_rate,
            seed=seed,
            synthetic=experiment.synthetic.name,
            synthetic_share=settings.synthetic_share,
            keep_head=settings.keep_head,
            pretrained_weights=weights,
        ),
        plans=experiment.plans[dataset.name],
        configuration=experiment.configuration,
        dataset_json=json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8")),
        results=experiment.folder / "runs" / training.name / f"seed_{seed}",
        training_ids=None if training.synthetic_set else experiment.training_ids,
    )


def _score_file(experiment: Experiment, arm: ArmName, seed: int) -> Path:
    return experiment.folder / "scores" / f"{arm}_seed_{seed}.json"


def _predictions(experiment: Experiment, arm: ArmName, seed: int) -> Path:
    return experiment.folder / "predictions" / arm / f"seed_{seed}"


def _score(experiment: Experiment, arm: ArmName, seed: int) -> None:
    """Predict the evaluated cases and score them at native size, unless this has been done."""
    file = _score_file(experiment, arm, seed)
    if file.is_file():
        return
    real = experiment.real
    run = _host_run(experiment, trainings(experiment.settings)[arm], seed)
    cases = {case: real.image_files(case, experiment.on_test_set) for case in experiment.evaluated_ids}
    folder = _predictions(experiment, arm, seed)
    host.predict(run, cases, folder, experiment.device, experiment.settings.mirroring, experiment.log)
    scores = evaluate_folders(folder, experiment.folder / "references", "nnunet", labels=real.labels)
    write_json(file, scores.to_dict())


def _write_results(experiment: Experiment, options: ExperimentOptions) -> dict[str, Any]:
    """Write results.json, results.md and pictures of all arms with every seed, including those of earlier calls."""
    scores: dict[ArmName, dict[int, dict[str, Any]]] = {}
    for arm in ARMS:
        files = {seed: _score_file(experiment, arm, seed) for seed in options.seeds}
        if all(file.is_file() for file in files.values()):
            scores[arm] = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items()}
    on_test_set, fold = experiment.on_test_set, experiment.settings.fold
    data = {
        "training_cases": len(experiment.training_ids),
        "synthetic_cases": len(experiment.synthetic.cases),
        "test_cases": len(experiment.evaluated_ids),
        "test_set": "imagesTs" if on_test_set else f"validation cases of fold {fold}",
        "chose_generator": experiment.chose_generator,
    }
    results = {
        **summarise(experiment.settings, _arm_facts(experiment, tuple(scores)), scores, experiment.group_of),
        "data": data,
        "notes": report.notes(data),
        "trainings": _minutes(experiment),
        "stock": experiment.stock,
        "patch_note": experiment.patch_note,
        **report.circumstances(),
    }
    write_json(experiment.folder / "results.json", results)
    write_text(experiment.folder / "results.md", report.markdown(results))
    for case_id in evenly_spaced(experiment.evaluated_ids, PICTURES):
        name = f"{case_id}{experiment.real.file_ending}"
        predictions = {arm: _predictions(experiment, arm, options.seeds[0]) / name for arm in scores}
        file = experiment.folder / "pictures" / f"{case_id}.png"
        draw_case(experiment.real, case_id, on_test_set, predictions, file)
    return results


def _minutes(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Minutes by training, over all seeds on disk; for a continued training, only since its last start."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((experiment.folder / "runs").glob("*/seed_*/training.json")):
        minutes = json.loads(file.read_text(encoding="utf-8"))["minutes"]
        entry = found.setdefault(file.parent.parent.name, {"minutes": 0.0, "seeds": 0})
        entry["minutes"] += minutes
        entry["seeds"] += 1
    return found


def _arm_facts(experiment: Experiment, arms: tuple[ArmName, ...]) -> dict[ArmName, dict[str, Any]]:
    """Updates and padding of each arm."""
    settings = experiment.settings
    shapes = {
        "real": host.preprocessed_shapes(experiment.preprocessed(experiment.real), experiment.training_ids),
        "synthetic": host.preprocessed_shapes(
            experiment.preprocessed(experiment.synthetic), experiment.synthetic.cases
        ),
    }
    padding = {source: padding_share(found, settings.patch_size) for source, found in shapes.items()}
    facts: dict[ArmName, dict[str, Any]] = {}
    for arm in arms:
        on_real, on_synthetic = updates(settings, arm)
        facts[arm] = {
            "updates_real": on_real,
            "updates_synthetic": on_synthetic,
            "padding_share": padding_of_arm(settings, arm, padding["real"], padding["synthetic"]),
        }
    return facts

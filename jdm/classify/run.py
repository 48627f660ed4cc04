"""A comparison of classifiers: prepare, train every arm, fold and seed once, score, report."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jdm.classify.arms import phases, probabilities, train
from jdm.classify.images import Images, read_images
from jdm.classify.networks import build, sha256
from jdm.classify.report import report
from jdm.classify.request import Arm, ClassifyOptions, check_options
from jdm.data.classes import FILE_NAME, class_names, read_all_classes
from jdm.data.groups import read_groups
from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, open_dataset
from jdm.data.splits import check_fold_safety, fold_split
from jdm.errors import DataError, ExistsError
from jdm.system.files import strict, write_json
from jdm.system.locks import held
from jdm.system.progress import Bar
from jdm.train.checkpoint import run_folder

SETTINGS, RESULTS = "classify.json", "results.json"


@dataclass(frozen=True)
class Comparison:
    """What the arms share."""

    options: ClassifyOptions
    folder: Path
    names: tuple[str, ...]
    """Classes."""
    real: Images
    """All training cases with a class, of all folds."""
    synthetic: Images
    test: Images | None
    """imagesTs; None: the validation cases of each fold are scored."""
    splits: Mapping[str, tuple[list[str], list[str]]]
    """Training and scored cases by fold."""
    groups: Mapping[str, str]
    """Patient of each scored case."""

    def scored(self, fold: str) -> Images:
        return self.real.subset(self.splits[fold][1]) if self.test is None else self.test


def classify(options: ClassifyOptions) -> tuple[Path, dict[str, Any]]:
    """Run the missing parts of a comparison and write its results. Returns: the folder, and results.json's content.

    Raises: JdmError for unusable options or datasets, or a generator that was trained on scored cases; ExistsError if
        the folder holds something else, or another process works in it.
    """
    check_options(options)
    folder = (options.out or run_folder(open_dataset(options.real).name, "x").with_name("classify")).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.parent / f".{folder.name}.lock", folder):
        comparison = prepare(options, folder)
        _claim(comparison)
        _train_missing(comparison)
        results = strict(report(_collected(comparison), _about(comparison), folder))
        write_json(folder / RESULTS, results)
        return folder, results


def prepare(options: ClassifyOptions, folder: Path) -> Comparison:
    """Open and check both datasets, and read their images."""
    real, synthetic = open_dataset(options.real), open_dataset(options.synthetic)
    if real.channel_names != synthetic.channel_names:
        raise DataError(
            f"{synthetic.name} has channels {synthetic.channel_names}; expected those of {real.name}, "
            f"{real.channel_names}; name the dataset it was generated from"
        )
    classes, made = _classes(real), _classes(synthetic)
    names = class_names(classes, real.cases, real.folder / FILE_NAME)
    splits = {}
    for fold in options.folds:
        training, scored = fold_split(real, fold)
        splits[fold] = [c for c in training if classes.get(c)], [c for c in scored if classes.get(c)]
    tested = [case for case in real.test_cases if classes.get(case)]
    if not tested and (empty := [fold for fold, (_, scored) in splits.items() if not scored]):
        raise DataError(
            f"{real.name} fold {empty[0]} has no validation case and no image in imagesTs has a class; expected images "
            "to score; choose folds 0 to 4"
        )
    generator = read_generator(synthetic)
    if generator.get("dataset") != real.name:
        raise DataError(
            f"{synthetic.name} was generated from {generator.get('dataset')}; expected {real.name}, whose cases are "
            "scored; name that dataset"
        )
    for fold, (_, validation) in splits.items():
        check_fold_safety(generator["training_ids"], [*validation, *tested], f"fold {fold} of {real.name}")
    return Comparison(
        options, folder, names, read_images(real, classes, names, options.size, test=False),
        read_images(synthetic, made, names, options.size, test=False),
        read_images(real, classes, names, options.size, test=True) if tested else None,
        splits, read_groups(real, test=bool(tested)),
    )  # fmt: skip


def _classes(dataset: RawDataset) -> dict[str, str]:
    path = dataset.folder / FILE_NAME
    if not path.is_file():
        raise DataError(f"{dataset.name} has no {FILE_NAME}; expected the class of each case in it; add it")
    return read_all_classes(path, dataset)


def _about(comparison: Comparison) -> dict[str, Any]:
    """What determines the numbers, and must be equal for finished work to count."""
    options = comparison.options
    free = ("out", "overwrite", "arms", "seeds")
    asked = {key: value for key, value in dataclasses.asdict(options).items() if key not in free}
    weights = "" if options.weights is None else sha256(options.weights)
    provenance = (open_dataset(options.synthetic).folder / "provenance.json").read_text(encoding="utf-8")
    return {
        **asked, "weights": weights, "classes": list(comparison.names), "provenance": json.loads(provenance),
        "training": {fold: len(part[0]) for fold, part in comparison.splits.items()},
        "synthetic_images": len(comparison.synthetic.cases),
        "scored": "imagesTs" if comparison.test else "validation",
    }  # fmt: skip


def _claim(comparison: Comparison) -> None:
    """Raises: ExistsError if the folder holds a comparison with other settings, or other files."""
    folder, settings = comparison.folder, json.loads(json.dumps(_about(comparison)))
    if folder.exists() and any(folder.iterdir()):
        try:
            found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ExistsError(f"{folder} holds other files; expected a free name; choose another --out") from None
        if found != settings:
            differing = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
            if not comparison.options.overwrite:
                raise ExistsError(
                    f"{folder} holds a comparison with other settings ({', '.join(differing)}); expected the same; "
                    "choose another --out, or replace it with --overwrite"
                )
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings)


def _jobs(comparison: Comparison) -> list[tuple[Arm, str, int, Path]]:
    options = comparison.options
    return [
        (arm, fold, seed, comparison.folder / "runs" / arm / f"fold_{fold}_seed_{seed}.json")
        for seed in options.seeds
        for fold in options.folds
        for arm in options.arms
    ]


def _train_missing(comparison: Comparison) -> None:
    options = comparison.options
    missing = [job for job in _jobs(comparison) if not job[3].is_file()]
    total = sum(phase.updates for arm, *_ in missing for phase in phases(arm, options.iterations))
    with Bar(total, "updates") as bar:
        for arm, fold, seed, file in missing:
            real = comparison.real.subset(comparison.splits[fold][0])
            moments = real.moments()
            torch.manual_seed(seed)  # of the initial weights and dropout
            model = build(options.network, real.x.shape[1], len(comparison.names), options.weights)
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            synthetic = comparison.synthetic.standardised(*moments)
            losses = train(model, arm, real.standardised(*moments), synthetic, options, seed, bar.update)
            scored = comparison.scored(fold)
            found = probabilities(model, scored.standardised(*moments))
            content = {"losses": losses, "probabilities": dict(zip(scored.cases, found.tolist(), strict=True))}
            write_json(file, content)


def _collected(comparison: Comparison) -> dict[str, Any]:
    """By arm: probabilities (runs, images, classes) and losses; with the classes and patients of the images.

    With a test set a run is a fold and a seed; else it is a seed, whose images are the validation cases of all folds.
    """
    options, tested = comparison.options, comparison.test is not None
    read = {
        (arm, fold, seed): json.loads(file.read_text(encoding="utf-8")) for arm, fold, seed, file in _jobs(comparison)
    }
    images = comparison.scored(options.folds[0]) if tested else comparison.real.subset(
        [case for fold in options.folds for case in comparison.splits[fold][1]]
    )  # fmt: skip
    arms = {}
    for arm in options.arms:
        rows = []
        for seed in options.seeds:
            by_fold = [read[arm, fold, seed]["probabilities"] for fold in options.folds]
            rows += by_fold if tested else [{k: v for part in by_fold for k, v in part.items()}]
        losses = [read[arm, fold, seed]["losses"] for fold in options.folds for seed in options.seeds]
        arms[arm] = {"p": np.array([[row[case] for case in images.cases] for row in rows]), "losses": losses}
    groups = [comparison.groups.get(case, case) for case in images.cases]
    return {"names": comparison.names, "y": images.y.numpy(), "groups": groups, "cases": images.cases, "arms": arms}

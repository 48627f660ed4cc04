"""jdm-doctor's checks of one dataset."""

from __future__ import annotations

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, check_dataset, open_dataset, read_case, used_ids
from jdm.data.raw_layout import environment_folder
from jdm.data.splits import FOLDS, fold_count, fold_split, splits_file
from jdm.errors import ConfigError, DataError
from nnunet_integration.doctor_page import Report


def examine_dataset(report: Report, name: str) -> None:
    """Facts and findings of one dataset. Raises: ConfigError if there is no dataset of this id or name."""
    report.section(f"Dataset {name}")
    try:
        if environment_folder("nnUNet_raw") is None:
            report.fact("folder", "not searched: nnUNet_raw is unusable")
            return
        used = used_ids()
    except ConfigError:  # about a variable, reported above
        report.fact("folder", "not searched: a variable is unusable")
        return
    try:
        dataset = open_dataset(name)
    except ConfigError:
        if not any(len({folder.name for folder in folders}) > 1 for folders in used.values()):
            raise
        report.fact("folder", "not opened: an id has two names")
        return
    except DataError as error:
        report.fact("folder", "not opened, see below")
        report.must("jdm-train, jdm-export, jdm-experiment", str(error))
        return
    report.fact("folder", dataset.folder)
    report.fact("cases", f"{len(dataset.cases)} training, {len(dataset.test_cases)} test, as {dataset.file_ending}")
    report.fact("reader", dataset.reader)
    report.fact("channels", ", ".join(dataset.channel_names))
    report.fact("labels", ", ".join(f"{value} {label}" for label, value in dataset.labels.items()))
    if not dataset.cases:
        report.must(
            "jdm-train", f"{dataset.folder} has no training case; expected at least one; make it with jdm-convert"
        )
        return
    try:
        pair = read_case(dataset, dataset.cases[0])
        report.fact("first case", f"{pair.image.shape} of {pair.image.dtype}, spacing {pair.spacing}")
    except DataError:  # reported in the findings below
        report.fact("first case", "cannot be read")
    report.findings += check_dataset(dataset)
    _folds(report, dataset)
    _origin(report, dataset)
    _runs(report, dataset)


def _folds(report: Report, dataset: RawDataset) -> None:
    path = splits_file(dataset)
    report.fact("folds", path or f"nnU-Net's {FOLDS} random ones")
    if path is None and len(dataset.cases) < FOLDS:
        report.facts[-1] = ("folds", f"'all' only, of {len(dataset.cases)} cases")
        return
    problems = []
    try:
        for fold in range(fold_count(dataset)):
            try:
                fold_split(dataset, fold)
            except DataError as error:
                problems.append(str(error))
    except DataError as error:
        problems.append(str(error))
    for problem in dict.fromkeys(problems):
        report.must("jdm-train, jdm-experiment", problem)


def _origin(report: Report, dataset: RawDataset) -> None:
    """For a synthetic dataset: its generator, and whether its manifest matches the cases."""
    if not (dataset.folder / "provenance.json").is_file():
        return
    from jdm.export.folder import read_manifest

    with report.checked("jdm-experiment, jdm-register"):
        generator = read_generator(dataset)
        seen = len(generator["training_ids"])
        report.fact("synthetic", f"from {generator.get('dataset')} fold {generator.get('fold')}, {seen} training cases")
        path = dataset.folder / "manifest.jsonl"
        named = [record["case_id"] for record in read_manifest(path)]
        if sorted(named) != list(dataset.cases):
            report.must(
                "jdm-experiment, jdm-register",
                f"{path} names {len(named)} cases, but the folder holds {len(dataset.cases)}; expected the same cases; "
                "export the dataset again",
            )


def _runs(report: Report, dataset: RawDataset) -> None:
    """Check that the dataset's checkpoints are complete and of this dataset."""
    from jdm.draw.run import check_origin
    from jdm.train.checkpoint import load_checkpoint, run_folder

    for folder in sorted(run_folder(dataset.name, "all").parent.glob("fold_*")):
        with report.checked("jdm-export, jdm-sample"):
            checkpoint = load_checkpoint(folder)
            check_origin(checkpoint, dataset)
            report.fact(
                folder.name, f"weights of step {checkpoint.metadata.get('step')}, sha256 {checkpoint.sha256[:12]}"
            )

"""Make a synthetic dataset ready for nnU-Net with the plans of a real one, in this process."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
    move_plans_between_datasets,
)
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tqdm import tqdm

from jdm.data.raw_dataset import RawDataset, nnunet_folder
from jdm.errors import ConfigError, DataError
from jdm.system.files import replaced
from jdm.system.locks import locked
from nnunet_integration.plans import moved_plans
from nnunet_integration.records import Records, export_digest, stamps
from nnunet_integration.settings import environment

STOCK_PLANS = "nnUNetPlans"


class FastFingerprintExtractor(DatasetFingerprintExtractor):
    """Compute the fingerprint from fewer foreground pixels and without worker processes.

    nnU-Net draws 1e8 pixels even from a few PNGs, which takes half a minute and 4 GB. Percentiles of 1e6 pixels are
    just as good, and are used only for CT.
    """

    def __init__(self, dataset_name_or_id: str | int):
        super().__init__(dataset_name_or_id, num_processes=1)
        self.num_foreground_voxels_for_intensitystats = 1e6

    def run(self, overwrite_existing: bool = False) -> dict[str, Any]:
        """The fingerprint: read if it exists, else computed and written as nnU-Net does."""
        file = nnunet_folder("nnUNet_preprocessed") / self.dataset_name / "dataset_fingerprint.json"
        if file.is_file() and not overwrite_existing:
            return json.loads(file.read_text(encoding="utf-8"))
        file.parent.mkdir(parents=True, exist_ok=True)
        first = next(iter(self.dataset.values()))["images"][0]
        reader = determine_reader_writer_from_dataset_json(self.dataset_json, first)
        samples = int(self.num_foreground_voxels_for_intensitystats // len(self.dataset))
        cases = [
            self.analyze_case(case["images"], case["label"], reader, samples)
            for case in progress(self.dataset.values(), f"fingerprint {self.dataset_name}")
        ]
        shapes, spacings, intensities, _, relative_sizes = zip(*cases, strict=True)
        fingerprint = {
            "spacings": list(spacings),
            "shapes_after_crop": list(shapes),
            "foreground_intensity_properties_per_channel": {
                channel: _intensity_properties(np.concatenate(values))
                for channel, values in enumerate(zip(*intensities, strict=True))
            },
            "median_relative_size_after_cropping": np.median(relative_sizes),
        }
        with replaced(file) as partial:
            save_json(fingerprint, str(partial))
        return json.loads(file.read_text(encoding="utf-8"))


def _intensity_properties(values: np.ndarray) -> dict[str, float]:
    if values.size == 0:
        raise DataError("no foreground pixel in any training label; expected annotated cases; check labelsTr")
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    properties = {
        "mean": values.mean(),
        "median": median,
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
        "percentile_99_5": high,
        "percentile_00_5": low,
    }
    return {name: float(value) for name, value in properties.items()}


def progress(items: Any, description: str) -> Any:
    """A progress bar over `items`; silent without a terminal."""
    return tqdm(items, desc=description, file=sys.__stderr__, disable=None, leave=False)


@contextmanager
def chatter_to(file: Path) -> Iterator[None]:
    """Redirect nnU-Net's output to a log file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        yield


@dataclass(frozen=True)
class Registered:
    """Locations of a synthetic dataset's nnU-Net data."""

    plans_name: str
    configuration: str
    preprocessed: Path
    cases: int


def plan_dataset(dataset: RawDataset, plans_name: str = STOCK_PLANS) -> Path:
    """Fingerprint and plan a dataset unless this has been done; returns its plans file.

    Raises: ConfigError if plans of another planner are requested but do not exist.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset.name
    _copy_splits(dataset, folder)
    file = folder / f"{plans_name}.json"
    if file.is_file():
        return file
    if plans_name != STOCK_PLANS:
        raise ConfigError(
            f"no plans {plans_name} for {dataset.name} in {folder}; jdm makes only {STOCK_PLANS}; "
            f"run nnUNetv2_plan_experiment -d {dataset.id} with the planner you want"
        )
    FastFingerprintExtractor(dataset.name).run()
    threads = torch.get_num_threads()
    with environment({"nnUNet_n_proc_DA": "1"}):  # the planner sets as many torch threads; 0 makes it crash
        ExperimentPlanner(dataset.name).plan_experiment()
    torch.set_num_threads(threads)
    return file


def _copy_splits(dataset: RawDataset, folder: Path) -> None:
    """Copy the raw dataset's folds for nnU-Net, as its planner does, even if plans already exist."""
    source, target = dataset.folder / "splits_final.json", folder / "splits_final.json"
    if source.is_file() and not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(target) as partial:
            shutil.copyfile(source, partial)


def move_plans(real: RawDataset, synthetic: RawDataset, plans_name: str = STOCK_PLANS) -> str:
    """Give the synthetic dataset the real one's plans and a fingerprint; returns the name of the moved plans."""
    folder = nnunet_folder("nnUNet_preprocessed") / synthetic.name
    FastFingerprintExtractor(synthetic.name).run()
    target = moved_plans(plans_name, real.name)
    file = folder / f"{target}.json"
    before = (file.read_bytes(), file.stat().st_mtime_ns) if file.is_file() else (None, 0)
    move_plans_between_datasets(real.name, synthetic.name, plans_name, target)
    if file.read_bytes() == before[0]:
        os.utime(file, ns=(before[1], before[1]))  # unchanged plans must not make preprocessed cases look out of date
    shutil.copyfile(synthetic.folder / "dataset.json", folder / "dataset.json")
    return target


def preprocess(dataset: RawDataset, plans_name: str, configuration: str, owned: bool) -> Path:
    """Preprocess the cases that are missing or out of date; see `Records`.

    Args:
        owned: the folder belongs to jdm, so cases of a replaced export are removed from it.
    Returns: the folder of preprocessed cases.
    Raises: DataError if the folder holds cases that are not in the raw dataset.
    """
    base = nnunet_folder("nnUNet_preprocessed") / dataset.name
    plans_file = base / f"{plans_name}.json"
    plans = PlansManager(json.loads(plans_file.read_text(encoding="utf-8")))
    settings = plans.get_configuration(configuration)
    dataset_json = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    files = get_filenames_of_train_images_and_targets(str(dataset.folder), dataset_json)
    folder = base / settings.data_identifier
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_or_remove_leftovers(folder, set(files), owned)
    records, export = Records(folder), export_digest(dataset.folder) if owned else None
    preprocessor = settings.preprocessor_class(verbose=False)
    for case_id, case in progress(files.items(), f"preprocess {dataset.name}"):
        sources = [*map(Path, case["images"]), Path(case["label"]), plans_file]
        results = _case_files(folder, case_id)
        if not records.is_current(case_id, results, sources, export):
            _remove_case(folder, case_id)
            before = stamps(sources)
            preprocessor.run_case_save(
                str(folder / case_id), case["images"], case["label"], plans, settings, dataset_json
            )
            records.add(case_id, results, before, export)
        _copy_reference(Path(case["label"]), base / "gt_segmentations" / f"{case_id}{dataset.file_ending}")
    return folder


def _refuse_or_remove_leftovers(folder: Path, expected: set[str], owned: bool) -> None:
    extra = sorted(set(nnUNetDatasetBlosc2.get_identifiers(str(folder))) - expected)
    if extra and not owned:
        raise DataError(
            f"{folder} holds {len(extra)} cases that are not in the raw dataset ({', '.join(extra[:3])}); "
            "expected only its cases; run nnUNetv2_preprocess for the dataset again"
        )
    for case_id in extra:
        _remove_case(folder, case_id)


def _case_files(folder: Path, case_id: str) -> list[Path]:
    # nnU-Net writes the properties last, so a case with them is complete
    return [folder / f"{case_id}.pkl", folder / f"{case_id}.b2nd", folder / f"{case_id}_seg.b2nd"]


def _remove_case(folder: Path, case_id: str) -> None:
    for file in _case_files(folder, case_id):
        file.unlink(missing_ok=True)


def _copy_reference(label: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if not target.is_file() or not filecmp.cmp(label, target, shallow=True):
        shutil.copy2(label, target)


def check_masks(dataset: RawDataset) -> None:
    """Raises: DataError for images without masks."""
    if not dataset.has_masks:
        raise DataError(f"{dataset.name} has no masks, so nnU-Net cannot train on it; expected some; use jdm-classify")


def check_same_kind(real: RawDataset, synthetic: RawDataset) -> None:
    """Raises: DataError if the two sets differ in channels, labels or file format."""
    for what, ours, theirs in (
        ("channels", synthetic.channel_names, real.channel_names),
        ("labels", synthetic.labels, real.labels),
        ("file ending", synthetic.file_ending, real.file_ending),
    ):
        if ours != theirs:
            raise DataError(
                f"{synthetic.name} has {what} {ours}; expected those of {real.name}, {theirs}; "
                "name the dataset from which the synthetic dataset was generated"
            )


@contextmanager
def alone(dataset: str) -> Iterator[None]:
    """Wait for and hold the lock on a dataset's preprocessed folder, to exclude other jdm processes."""
    lock = nnunet_folder("nnUNet_preprocessed") / f".{dataset}.jdm.lock"
    with ExitStack() as stack:
        if not stack.enter_context(locked(lock, wait=False)):
            print(f"waiting for another process that plans or preprocesses {dataset}", flush=True)
            stack.enter_context(locked(lock))
        yield


def register(
    synthetic: RawDataset, real: RawDataset, configuration: str = "2d", plans_name: str = STOCK_PLANS
) -> Registered:
    """Plan the real dataset if needed, move its plans to the synthetic one, and preprocess both.

    Anything up to date is kept, so that a second call is fast and a killed one continues. Waits for other processes
    that prepare one of the datasets.
    Raises: DataError if the sets differ in channels, labels or file format; ConfigError for unknown plans.
    """
    check_masks(real)
    check_same_kind(real, synthetic)
    log = nnunet_folder("nnUNet_preprocessed") / synthetic.name / "jdm_register.log"
    with alone(real.name), chatter_to(log):
        plan_dataset(real, plans_name)
        preprocess(real, plans_name, configuration, owned=False)
    with alone(synthetic.name), chatter_to(log):
        target = move_plans(real, synthetic, plans_name)
        folder = preprocess(synthetic, target, configuration, owned=True)
    return Registered(target, configuration, folder, len(synthetic.cases))


def next_commands(synthetic: RawDataset, real: RawDataset, registered: Registered, plans_name: str) -> list[str]:
    """The stock nnU-Net commands that pretrain on the synthetic set and finetune on the real one."""
    from nnunet_integration.settings import ext_folder

    configuration = registered.configuration
    weights = (
        f"$nnUNet_results/{synthetic.name}/nnUNetTrainerJDMPretrain__{registered.plans_name}__{configuration}"
        "/fold_all/checkpoint_final.pth"
    )
    return [
        f"export nnUNet_extTrainer={ext_folder()}",
        "export OMP_WAIT_POLICY=passive",
        f"nnUNetv2_train {synthetic.id} {configuration} all -tr nnUNetTrainerJDMPretrain -p {registered.plans_name}",
        f"nnUNetv2_train {real.id} {configuration} 0 -tr nnUNetTrainerJDMFinetune -p {plans_name} "
        f"-pretrained_weights {weights}",
    ]

"""nnU-Net training and prediction in this process, through its Python interface."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from nnunetv2.ensembling.ensemble import merge_files
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from jdm.errors import DataError
from nnunet_integration import trainers
from nnunet_integration.checkpoints import load_body
from nnunet_integration.register import alone, chatter_to
from nnunet_integration.settings import VARIABLES, TrainerSettings, environment, ext_folder

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True)
class HostRun:
    """One nnU-Net training: its data, length and results folder."""

    trainer: str
    fold: int | str
    settings: TrainerSettings
    plans: dict[str, Any]
    configuration: str
    dataset_json: dict[str, Any]
    results: Path
    """Used as nnUNet_results for this training only, so that seeds and arms do not overwrite each other."""
    training_ids: tuple[str, ...] | None = None
    """Expected training cases of nnU-Net's split; None: not checked."""
    split: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """Training and validation cases in place of nnU-Net's."""

    @property
    def model_folder(self) -> Path:
        name = f"{self.trainer}__{self.plans['plans_name']}__{self.configuration}"
        return self.results / self.plans["dataset_name"] / name

    @property
    def checkpoint(self) -> Path:
        return self.model_folder / f"fold_{self.fold}" / FINAL


def train(run: HostRun, device: torch.device, workers: int, on_epoch: Callable[[], object], log: Path) -> None:
    """Train to the end, from the run's latest checkpoint if there is one.

    Args:
        workers: augmentation processes; 0: none.
        on_epoch: called once per epoch, including epochs that an interrupted run had finished.
    Raises: DataError if the generator was trained on an evaluation case, or if the training cases of nnU-Net's split
        differ from `training_ids`.
    """
    variables: dict[str, str | None] = {**dict.fromkeys(VARIABLES.values()), **run.settings.environment()}
    variables |= {"nnUNet_results": str(run.results), "nnUNet_n_proc_DA": str(workers)}
    # in runs as short as an experiment's, compiling takes longer than it saves
    variables |= {"nnUNet_compile": os.environ.get("nnUNet_compile", "f")}  # noqa: SIM112
    with environment({**variables, "nnUNet_extTrainer": str(ext_folder())}), chatter_to(log):
        latest = run.checkpoint.with_name("checkpoint_latest.pth")
        plans = {**copy.deepcopy(run.plans), "continue_training": latest.is_file()}
        trainer = getattr(trainers, run.trainer)(
            plans, run.configuration, run.fold, copy.deepcopy(run.dataset_json), device
        )
        trainer.after_epoch, trainer.split = on_epoch, run.split
        if run.training_ids is not None:
            with alone(run.plans["dataset_name"]):  # nnU-Net writes the folds now if there are none
                found = trainer.do_split()[0]
            _check_split(run, run.training_ids, found)
        if latest.is_file():
            trainer.load_checkpoint(str(latest))
            for _ in range(trainer.current_epoch):
                on_epoch()
        elif run.settings.pretrained_weights:
            trainer.initialize()
            load_body(trainer.network, Path(run.settings.pretrained_weights))
        torch.backends.cudnn.benchmark = device.type == "cuda"
        trainer.run_training()
        run.checkpoint.with_name("checkpoint_best.pth").unlink(missing_ok=True)


def _check_split(run: HostRun, expected: Sequence[str], found: Sequence[str]) -> None:
    if other := sorted(set(found) ^ set(expected)):
        raise DataError(
            f"nnU-Net's fold {run.fold} of {run.plans['dataset_name']} trains on {len(found)} cases, not on the "
            f"experiment's {len(expected)}: {len(other)} differ ({', '.join(other[:3])}); expected the same; correct "
            "splits_final.json in the dataset's folder under nnUNet_preprocessed, or remove it"
        )


def predict(
    run: HostRun,
    cases: Mapping[str, Sequence[Path]],
    folder: Path,
    device: torch.device,
    mirroring: bool,
    log: Path,
    probabilities: bool = False,
) -> None:
    """Predict cases at native size into `folder`; cases already there are kept.

    Args:
        cases: image files, one per channel, by case id.
        probabilities: also write label probabilities (.npz) and the geometry (.pkl), for `average`.
    """
    ending = run.dataset_json["file_ending"]
    endings = (".npz", ".pkl", ending) if probabilities else (ending,)  # the last one marks a finished case
    todo = {case_id: files for case_id, files in cases.items() if not (folder / f"{case_id}{ending}").is_file()}
    if not todo:
        return
    partial = folder / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    with environment({"nnUNet_extTrainer": str(ext_folder())}), chatter_to(log):
        predictor = nnUNetPredictor(
            use_mirroring=mirroring,
            perform_everything_on_device=device.type == "cuda",
            device=device,
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(str(run.model_folder), (run.fold,), FINAL)
        for case_id, files in todo.items():
            # one case at a time, so that finished cases are kept if this process is killed
            predictor.predict_from_files_sequential([[str(f) for f in files]], [str(partial / case_id)], probabilities)
            for each in endings:
                (partial / f"{case_id}{each}").replace(folder / f"{case_id}{each}")
    for file in partial.iterdir():
        file.unlink()
    partial.rmdir()


def average(run: HostRun, ids: Sequence[str], members: Sequence[Path], folder: Path) -> None:
    """Write the most probable labels of the mean probabilities of several predictions, as nnUNetv2_ensemble does.

    Args:
        members: folders of predictions with probabilities; the first one's geometry is used.
    """
    plans = PlansManager(run.plans)
    reader, labels = plans.image_reader_writer_class(), plans.get_label_manager(run.dataset_json)
    for case_id in ids:
        files = [str(member / f"{case_id}.npz") for member in members]
        merge_files(files, str(folder / case_id), run.dataset_json["file_ending"], reader, labels)


def preprocessed_shapes(folder: Path, ids: Sequence[str]) -> list[tuple[int, ...]]:
    """Spatial shape of preprocessed cases."""
    cases = nnUNetDatasetBlosc2(str(folder), list(ids))
    images = (cast(Any, cases.load_case(case_id)[0]) for case_id in cases.identifiers)
    return [tuple(image.shape[1:]) for image in images]


def read_plans(preprocessed: Path, plans_name: str) -> dict[str, Any]:
    """A dataset's plans, as nnU-Net wrote them."""
    return json.loads((preprocessed / f"{plans_name}.json").read_text(encoding="utf-8"))


def fastest_threads(configuration: dict[str, Any], channels: int, most: int) -> int:
    """1 or `most` torch threads: the faster of the two for one update of this configuration's network."""
    architecture = configuration["architecture"]
    before = torch.get_num_threads()
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        2,
        deep_supervision=False,
    )
    batch = torch.zeros(configuration["batch_size"], channels, *configuration["patch_size"])
    seconds = {}
    for threads in (1, most):
        torch.set_num_threads(threads)
        network(batch).sum().backward()  # warm up
        start = time.perf_counter()
        network(batch).sum().backward()
        seconds[threads] = time.perf_counter() - start
    torch.set_num_threads(before)
    return min(seconds, key=lambda threads: seconds[threads])

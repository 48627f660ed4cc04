"""A trained run to sample from, on any machine, and its real cases if they are on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdm.config.files import differences
from jdm.config.settings import Config
from jdm.data.raw_dataset import RawDataset, read_dataset
from jdm.data.raw_layout import environment_folder
from jdm.errors import ConfigError
from jdm.system.machine import jdm_version
from jdm.train.checkpoint import Checkpoint, find_run, load_checkpoint


@dataclass(frozen=True)
class Run:
    """A run's folder and its contents."""

    folder: Path
    checkpoint: Checkpoint

    @property
    def config(self) -> Config:
        return self.checkpoint.config

    @property
    def kind(self) -> RawDataset:
        """The real dataset without cases: its name, channels, labels and format."""
        facts, name = self.config.facts, str(self.checkpoint.metadata["dataset"])
        labels = {label: value for value, label in enumerate(facts.labels)}
        return RawDataset(
            Path(name), int(name[7:10]), name, facts.channel_names, labels, facts.file_ending, (), (), {}, {},
            facts.reader,
        )  # fmt: skip

    def real(self) -> RawDataset | None:
        """The real dataset, checked against the run; None if it is not on this machine.

        Raises: ConfigError if a dataset of that name differs from the one trained on; DataError if it is damaged.
        """
        raw, name = environment_folder("nnUNet_raw"), str(self.checkpoint.metadata["dataset"])
        if raw is None or not (raw / name).is_dir():
            return None
        dataset = read_dataset(raw / name)
        check_origin(self.checkpoint, dataset)
        return dataset

    def real_for(self, what: str) -> RawDataset:
        """The real dataset. Raises: ConfigError, naming what needs it, if it is not on this machine."""
        dataset = self.real()
        if dataset is None:
            raise ConfigError(
                f"{what} needs cases of {self.checkpoint.metadata['dataset']}, which is not under $nnUNet_raw; "
                "expected the dataset that the model was trained on; set nnUNet_raw, or choose a mode that needs no "
                "real case"
            )
        return dataset


def open_run(dataset: str, fold: str) -> Run:
    """Open the run of a dataset's fold or, with an empty fold, of a folder. Raises: ConfigError or CheckpointError."""
    folder = find_run(dataset, fold)
    return Run(folder, load_checkpoint(folder))


def check_origin(checkpoint: Checkpoint, dataset: RawDataset) -> None:
    """Refuse a checkpoint of another dataset, showing what differs. Raises: ConfigError."""
    facts = checkpoint.config.facts
    found = {
        "dataset": checkpoint.metadata["dataset"],
        "labels": dict(zip(facts.labels, range(facts.classes), strict=True)),
        "channel_names": list(facts.channel_names),
        "file_ending": facts.file_ending,
    }
    expected = {
        "dataset": dataset.name,
        "labels": dict(dataset.labels),
        "channel_names": list(dataset.channel_names),
        "file_ending": dataset.file_ending,
    }
    lines = differences(found, expected)
    if gone := sorted({*checkpoint.metadata["training_ids"]} - {*dataset.cases}):
        lines.append(f"training cases {gone[:5]} are not in the dataset")
    if lines:
        raise ConfigError(
            f"the checkpoint is of another dataset: {'; '.join(lines)}; train again, or name the checkpoint's dataset"
        )


def origin(checkpoint: Checkpoint, weaker: Checkpoint | None) -> Mapping[str, Any]:
    """Provenance of samples, for records."""
    kept = ("dataset", "fold", "training_ids", "held_out_ids", "step")
    return {
        "jdm_version": jdm_version(),
        "generator": {
            **{key: checkpoint.metadata[key] for key in kept},
            **{key: checkpoint.metadata[key] for key in ("unlabelled",) if key in checkpoint.metadata},
            "checkpoint_sha256": checkpoint.sha256,
        },
        "guide_sha256": None if weaker is None else weaker.sha256,
    }

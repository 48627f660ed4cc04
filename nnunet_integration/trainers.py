"""nnU-Net trainers for synthetic pairs: pretrain on them, finetune on real cases, or mix both.

nnU-Net finds them through `nnUNet_extTrainer` (see `ext/`). Their settings come from the environment
(`nnunet_integration.settings`) and are written to `jdm_run.json` in the output folder.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import nnunet_folder, open_dataset
from jdm.data.splits import train_fraction
from jdm.errors import ConfigError, DataError
from jdm.system.machine import jdm_version
from nnunet_integration import provenance
from nnunet_integration.checkpoints import load_head
from nnunet_integration.cutmix import paired_cutmix
from nnunet_integration.plans import moved_identifier, moved_plans
from nnunet_integration.settings import read_settings


class nnUNetTrainerJDM(nnUNetTrainer):  # noqa: N801
    """Stock nnU-Net with length, learning rate and seed from the environment.

    With `nnUNet_n_proc_DA=0` on a CPU, runs are exactly repeatable, even after a kill and resume, because every epoch
    has its own seed. Base class of the other trainers, and the trainer for baselines on real cases only.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net reads this exact signature)
    ):
        self.settings = read_settings()
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.settings.epochs
        self.num_iterations_per_epoch = self.settings.iterations
        self.num_val_iterations_per_epoch = self.settings.val_iterations
        self.initial_lr = self.settings.learning_rate
        self.save_every = max(1, min(self.save_every, self.num_epochs // 10))
        self.generator: dict[str, Any] | None = None
        self.continued = False
        self.after_epoch: Callable[[], object] | None = None
        """Callback after each epoch, for a progress bar."""
        self.split: tuple[Sequence[str], Sequence[str]] | None = None
        """Training and validation cases in place of the fold's."""

    def do_split(self) -> tuple[Any, Any]:
        if self.split is not None:
            return list(self.split[0]), list(self.split[1])
        training, validation = cast(tuple[list[str], list[str]], super().do_split())
        if self.settings.train_fraction < 1:
            dataset = open_dataset(self.plans_manager.dataset_name)
            training = train_fraction(dataset, training, self.settings.train_fraction)
        return training, validation

    def initialize(self) -> None:
        self._seed(stream=0)
        super().initialize()

    def on_train_start(self) -> None:
        self.generator = self.find_generator()
        self._seed(stream=1)
        super().on_train_start()
        if self.local_rank == 0:
            self._write_run()

    def on_train_epoch_start(self) -> None:
        self._seed(stream=2 + self.current_epoch)
        super().on_train_epoch_start()

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.after_epoch is not None:
            self.after_epoch()

    def save_checkpoint(self, filename: str) -> None:
        """Like nnU-Net's, but the previous checkpoint survives if the process is killed while writing."""
        partial = Path(f"{filename}.partial")
        super().save_checkpoint(str(partial))
        if self.local_rank == 0 and partial.is_file():
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self.continued = True

    def find_generator(self) -> dict[str, Any] | None:
        """The generator of this run's synthetic cases, checked against the evaluation cases."""
        return None

    def check_generator(self, generator: dict[str, Any]) -> None:
        """Raises: DataError if the generator was trained on a validation or test case of this run."""
        # fold "all" has no validation cases of its own, so only the test set is evaluated
        validation = [] if self.fold == "all" else self.do_split()[1]
        name = self.plans_manager.dataset_name
        provenance.check_generator(generator, name, validation, f"{type(self).__name__} on {name}, fold {self.fold}")

    def _seed(self, stream: int) -> None:
        # different seeds: NumPy and torch use the same generator, and would give the same stream for one seed
        entropy = np.random.SeedSequence([self.settings.seed, stream, self.local_rank])
        for_python, for_numpy, for_torch = (int(word) for word in entropy.generate_state(3))
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.manual_seed(for_torch)

    def _write_run(self) -> None:
        from importlib.metadata import version

        run = {
            "trainer": type(self).__name__,
            "dataset": self.plans_manager.dataset_name,
            "fold": self.fold,
            "settings": asdict(self.settings),
            "generator": self.generator,
            "versions": {"jdm": jdm_version(), "nnunetv2": version("nnunetv2"), "torch": torch.__version__},
        }
        file = Path(str(self.output_folder)) / provenance.RUN_FILE
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        partial.replace(file)


class nnUNetTrainerJDMPretrain(nnUNetTrainerJDM):  # noqa: N801
    """Trains on a synthetic dataset (`nnUNetv2_train SYN 2d all`) and skips the final validation."""

    def find_generator(self) -> dict[str, Any]:
        # the dataset trained on, not JDM_SYNTHETIC
        dataset = open_dataset(self.plans_manager.dataset_name)
        self.settings = replace(self.settings, synthetic=dataset.name)
        generator = read_generator(dataset)
        real = str(generator.get("dataset", ""))
        provenance.check_generator(generator, real, [], f"{type(self).__name__} on {dataset.name}")
        return generator

    def do_split(self) -> tuple[Any, Any]:
        ids = sorted(nnUNetTrainer.do_split(self)[0])[: self.settings.synthetic_count]
        return ids, ids

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.print_to_log_file("The synthetic cases are not predicted, because their scores would be meaningless.")


class nnUNetTrainerJDMFinetune(nnUNetTrainerJDM):  # noqa: N801
    """Trains on real cases from pretrained weights (`-pretrained_weights`), by default including the segmentation head.

    Stock nnU-Net reinitialises the head; so does JDM_KEEP_HEAD=0. With JDM_KEEP_HEAD=1, a head that does not fit is an
    error.
    """

    def find_generator(self) -> dict[str, Any]:
        own = Path(str(self.output_folder)) if self.continued else None
        weights = provenance.pretrained_weights(self.settings.pretrained_weights)
        generator = provenance.origin_of_weights(weights, self.settings.synthetic, own)
        self.check_generator(generator)
        if weights is not None:
            self.settings = replace(self.settings, pretrained_weights=str(weights))
        return generator

    def on_train_start(self) -> None:
        super().on_train_start()
        weights = self.settings.pretrained_weights
        if self.continued or weights is None:
            return
        if self.settings.keep_head is False:
            self.print_to_log_file("The segmentation head is reinitialised.")
            return
        problem = load_head(cast(torch.nn.Module, self.network), Path(weights), self.dataset_json["labels"])
        if problem and self.settings.keep_head:
            raise DataError(f"{problem}; unset JDM_KEEP_HEAD to reinitialise the segmentation head")
        self.print_to_log_file(problem or "The segmentation head continues from the pretrained weights.")


class nnUNetTrainerJDMCutMix(nnUNetTrainerJDM):  # noqa: N801
    """Trains on real cases, half of which hold a box of another case of their batch, with its label."""

    def train_step(self, batch: dict) -> dict:
        data, target = paired_cutmix(batch["data"], batch["target"], np.random.default_rng(np.random.randint(2**31)))
        return super().train_step({**batch, "data": data, "target": target})


class nnUNetTrainerJDMMix(nnUNetTrainerJDM):  # noqa: N801
    """Trains on real and synthetic cases together; JDM_SYNTHETIC names the synthetic dataset, JDM_SYNTHETIC_SHARE its
    share."""

    def find_generator(self) -> dict[str, Any]:
        if self.settings.synthetic is None:
            raise ConfigError(
                "environment variable JDM_SYNTHETIC is not set; nnUNetTrainerJDMMix expects the synthetic dataset's "
                "id; type: export JDM_SYNTHETIC=511"
            )
        generator = read_generator(open_dataset(self.settings.synthetic))
        self.check_generator(generator)
        return generator

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        real, validation = super().get_tr_and_val_datasets()
        folder = self._synthetic_folder()
        dataset_class = type(real)
        identifiers = sorted(dataset_class.get_identifiers(str(folder))) if folder.is_dir() else []
        if not identifiers:
            raise DataError(
                f"no preprocessed synthetic cases in {folder}; expected those of JDM_SYNTHETIC="
                f"{self.settings.synthetic}; run jdm-register {self.settings.synthetic} --like "
                f"{self.plans_manager.dataset_name}"
            )
        synthetic = dataset_class(str(folder), identifiers[: self.settings.synthetic_count])
        return MixedDataset(real, synthetic, self.settings.synthetic_share), validation

    def _synthetic_folder(self) -> Path:
        plans_name, real = self.plans_manager.plans_name, self.plans_manager.dataset_name
        identifier = moved_identifier(
            self.configuration_manager.data_identifier, plans_name, moved_plans(plans_name, real)
        )
        synthetic = open_dataset(str(self.settings.synthetic)).name
        return nnunet_folder("nnUNet_preprocessed") / synthetic / identifier


class Cases(Protocol):
    """Interface of a preprocessed dataset for nnU-Net's data loader."""

    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple: ...


class MixedDataset:
    """Two preprocessed datasets as one; the second has a fixed share of the draws.

    nnU-Net's loader draws uniformly from `identifiers`, so repeating them sets the expected share.
    """

    def __init__(self, real: Cases, synthetic: Cases, share: float):
        collisions = sorted(set(real.identifiers) & set(synthetic.identifiers))
        if collisions:
            raise DataError(
                f"real and synthetic cases share the ids {', '.join(collisions[:5])}; expected synthetic ids "
                "to begin with syn_; export the synthetic dataset again"
            )
        times_real, times_synthetic = repetitions(len(real.identifiers), len(synthetic.identifiers), share)
        self.sources = dict.fromkeys(real.identifiers, real) | dict.fromkeys(synthetic.identifiers, synthetic)
        self.identifiers = list(real.identifiers) * times_real + list(synthetic.identifiers) * times_synthetic

    def load_case(self, identifier: str) -> tuple:
        return self.sources[identifier].load_case(identifier)


def repetitions(real: int, synthetic: int, share: float, most: int = 100) -> tuple[int, int]:
    """How often to repeat each real and each synthetic case so that `share` of the list is synthetic.

    Args:
        real, synthetic: numbers of cases, at least 1.
        share: wanted share of synthetic entries, between 0 and 1.
        most: upper limit of the smaller of the two results, to bound the length of the list.
    Returns: two integers >= 1, with odds within 1 % of the wanted ones as far as `most` allows.
    """
    ratio = share / (1 - share) * real / synthetic  # synthetic repetitions per real one
    fraction = Fraction(max(ratio, 1 / ratio)).limit_denominator(most)
    small, large = fraction.denominator, fraction.numerator
    return (small, large) if ratio >= 1 else (large, small)

"""A trained nnU-Net as a judge of images in memory: what it segments, and its features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from jdm.config.settings import Config
from jdm.errors import CheckpointError, DataError
from nnunet_integration import trainers
from nnunet_integration.checkpoints import read_checkpoint
from nnunet_integration.host import FINAL
from nnunet_integration.provenance import read_run
from nnunet_integration.register import chatter_to

PICTURE_SPACING = 999.0
"""nnU-Net takes a picture for the one slice, this thick, of a volume."""


def real_arm(experiment: Path, seed: int) -> Path:
    """Folder of the checkpoint of a finished experiment's arm `real`.

    Raises: DataError if the experiment has none of that seed, or it was trained on synthetic cases too.
    """
    found = sorted((experiment / "runs" / "real" / f"seed_{seed}").glob(f"*/*/fold_*/{FINAL}"))
    if len(found) != 1:
        raise DataError(
            f"{experiment} holds {len(found)} networks of arm real, seed {seed}; expected one, of a finished "
            "jdm-experiment; run jdm-experiment with --arms real, or choose another seed"
        )
    if (generator := read_run(found[0].parent).get("generator")) is not None:
        raise DataError(
            f"{found[0]} was trained on pairs made from {generator.get('dataset')}; expected a network of real cases "
            "only; choose another experiment"
        )
    return found[0].parent


def as_volume(planes: np.ndarray, config: Config) -> tuple[np.ndarray, tuple[float, ...]]:
    """Images (n, channels, *spatial) as nnU-Net reads slices of one case: (channels, z, y, x), and its spacing."""
    axis, spacing = config.data.slice_axis, list(config.facts.spacing)
    spacing.insert(axis or 0, PICTURE_SPACING if axis is None else config.facts.slice_spacing)
    return np.moveaxis(planes, 0, 1 + (axis or 0)), tuple(spacing)


class Segmenter:
    """nnU-Net's own preprocessing and sliding window, without mirroring, over a network that is read as data only.

    The features of an image are the outputs of the encoder's stages averaged over space, and over windows.
    """

    def __init__(self, folder: Path, device: str, log: Path) -> None:
        """Args: folder: fold_F of a JDM trainer, with its final checkpoint. log: file for what nnU-Net prints.

        Raises: CheckpointError if the checkpoint is missing, damaged, or of another trainer.
        """
        # nnUNetPredictor's own loading would unpickle, and so execute, whatever the file holds
        checkpoint = read_checkpoint(folder / FINAL)
        self.log, self._seen = log, list[np.ndarray]()
        plans, dataset_json = (_json(folder.parent / name) for name in ("plans.json", "dataset.json"))
        manager = PlansManager(plans)
        configuration = manager.get_configuration(checkpoint["init_args"]["configuration"])
        network = _trainer(checkpoint["trainer_name"], folder).build_network_architecture(
            manager,
            configuration,
            determine_num_input_channels(manager, configuration, dataset_json),
            manager.get_label_manager(dataset_json).num_segmentation_heads,
            enable_deep_supervision=False,
        )
        network.load_state_dict(checkpoint["network_weights"])
        network.encoder.register_forward_hook(self._keep)
        with chatter_to(log):
            self.predictor = nnUNetPredictor(
                use_mirroring=False,
                perform_everything_on_device=device != "cpu",
                device=torch.device(device),
                allow_tqdm=False,
            )
        self.predictor.manual_initialization(
            network.eval(), manager, configuration, [checkpoint["network_weights"]], dataset_json,
            checkpoint["trainer_name"], None,
        )  # fmt: skip

    def __call__(self, image: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The label and the features of one case.

        Args:
            image: (channels, z, y, x) as nnU-Net reads cases; z is 1 for images.
            spacing: (z, y, x).
        Returns: label (z, y, x); features, float64 (sum of the stages' channels,).
        """
        self._seen.clear()
        with chatter_to(self.log):
            label = self.predictor.predict_single_npy_array(image, {"spacing": list(spacing)})
        return np.asarray(label), np.mean(self._seen, axis=0)

    def _keep(self, _: torch.nn.Module, __: Any, stages: list[torch.Tensor]) -> None:
        means = [stage.double().flatten(2).mean(2) for stage in stages]
        self._seen.extend(torch.cat(means, 1).cpu().numpy())


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); expected nnU-Net's file; train again") from None


def _trainer(name: str, folder: Path) -> Any:
    if not name.startswith("nnUNetTrainerJDM") or not hasattr(trainers, name):
        raise CheckpointError(f"{folder} was trained by {name}; expected a trainer of jdm; choose another folder")
    return getattr(trainers, name)

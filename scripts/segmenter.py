"""A trained nnU-Net as a judge of images in memory: its segmentation and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from jdm.config.settings import Config
from jdm.errors import DataError
from nnunet_integration.checkpoints import read_checkpoint
from nnunet_integration.host import FINAL
from nnunet_integration.provenance import read_run
from nnunet_integration.register import chatter_to
from nnunet_integration.settings import environment, ext_folder

PICTURE_SPACING = 999.0
"""Slice thickness that nnU-Net assigns to a picture, which it treats as a volume of one slice."""


def real_arm(experiment: Path, seed: int) -> Path:
    """Folder of the checkpoint of a finished experiment's arm `real`.

    Raises: DataError if the experiment has none with that seed, or it was also trained on synthetic cases.
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
    """nnU-Net's own preprocessing and sliding window, without mirroring.

    The features of an image are the outputs of the encoder's stages, averaged over space and windows.
    """

    def __init__(self, folder: Path, device: str, log: Path) -> None:
        """Args: folder: fold_F of a JDM trainer, with its final checkpoint. log: file for what nnU-Net prints.

        Raises: CheckpointError if the checkpoint is missing, damaged, or holds more than data.
        """
        self.log, self._seen = log, list[np.ndarray]()
        # nnU-Net unpickles checkpoints, which could execute code; this check ensures that they contain none
        read_checkpoint(folder / FINAL)
        with environment({"nnUNet_extTrainer": str(ext_folder())}), chatter_to(log):
            self.predictor = nnUNetPredictor(
                use_mirroring=False, perform_everything_on_device=device != "cpu", device=torch.device(device),
                allow_tqdm=False,
            )  # fmt: skip
            fold = folder.name.removeprefix("fold_")
            self.predictor.initialize_from_trained_model_folder(str(folder.parent), (fold,), FINAL)
        self.predictor.network.encoder.register_forward_hook(self._keep)

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

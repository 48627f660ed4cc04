"""A trained nnU-Net as a judge of images in memory: its segmentation and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_integration.checkpoints import read_checkpoint
from nnunet_integration.host import FINAL
from nnunet_integration.register import chatter_to
from nnunet_integration.settings import environment, ext_folder


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
            self.predictor: Any = nnUNetPredictor(
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
        found, features = self._predict(image, spacing)
        return np.asarray(found), features

    def probabilities(self, image: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        """As a call, with the softmax, float32 (classes, z, y, x), instead of the label."""
        found, features = self._predict(image, spacing, save_or_return_probabilities=True)
        return np.asarray(found[1]), features

    def _predict(self, image: np.ndarray, spacing: tuple[float, ...], **how: bool) -> tuple[Any, np.ndarray]:
        self._seen.clear()
        with chatter_to(self.log):
            found = self.predictor.predict_single_npy_array(image, {"spacing": list(spacing)}, **how)
        return found, np.mean(self._seen, axis=0)

    def _keep(self, _: torch.nn.Module, __: Any, stages: list[torch.Tensor]) -> None:
        means = [stage.double().flatten(2).mean(2) for stage in stages]
        self._seen.extend(torch.cat(means, 1).cpu().numpy())

"""Building the denoiser of a configuration."""

from __future__ import annotations

import torch
from torch import nn

from jdm.config.settings import Config
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.unet import UNet
from jdm.diffusion.vp import VPDenoiser, VPProcess


def build_denoiser(config: Config, condition_features: int) -> Denoiser | VPDenoiser:
    """A newly initialised denoiser: a preconditioned one with two noise levels, or that of preset thesis with one.

    Args: condition_features: length of the augmentation condition; preset thesis has none.
    """
    thesis = config.preset == "thesis"
    channels = config.image_channels + config.mask_channels
    told = condition_features + config.data.previous_features
    bands = 2 ** sum(config.haar_levels)
    network: nn.Module = UNet(
        bands * channels * (1 + config.data.previous_slice) + config.data.dims * config.data.position,
        # The thesis's network predicts the variance too; the default one, logits of classes.
        2 * channels if thesis else bands * (config.image_channels + config.facts.classes),
        config.network,
        config.levels[config.network.haar_levels :],
        classes=len(config.facts.class_names),
        levels=1 if thesis else 2,
        condition_features=0 if thesis else told,
        bf16=config.train.precision == "bf16",
    )
    if config.data.dims == 2:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if thesis:
        part = config.diffusion
        process = VPProcess(part.steps, part.schedule, prediction=part.prediction, zero_snr=part.zero_terminal_snr)
        return VPDenoiser(network, process, config.image_channels, config.mask_channels)
    words = torch.tensor(config.words, dtype=torch.float64).reshape(config.facts.classes, config.mask_channels)
    return Denoiser(
        network, config.facts.image_mean, config.image_axes, config.image_bands, words,
        config.facts.class_shares, config.haar_levels, config.noise.band_weight,
        previous_at=told - 2 if config.data.previous_slice else None, position=config.data.position,
    )  # fmt: skip

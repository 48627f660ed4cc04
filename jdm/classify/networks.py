"""The classifiers: a small CNN, and torchvision's ResNet-50."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from jdm.errors import ConfigError


def build(network: str, channels: int, classes: int, weights: Path | None) -> nn.Module:
    """A newly initialised network: (B, channels, size, size) -> logits (B, classes).

    Raises: ConfigError if the weights cannot be read or are not those of a ResNet-50.
    """
    if network == "small":
        return SmallCNN(channels, classes)
    from torchvision.models import resnet50

    model = resnet50()
    if weights is not None:
        _load(model, weights)
    if channels != 3:
        stem = model.conv1
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if weights is not None:  # grey is the sum of the colours' filters
            with torch.no_grad():
                model.conv1.weight.copy_(stem.weight.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels)
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model


class SmallCNN(nn.Sequential):
    """Four blocks of a convolution, batch normalisation and pooling, 32 to 256 channels; dropout; one linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for width in (32, 64, 128, 256):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels, classes))


def sha256(path: Path) -> str:
    """Raises: ConfigError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"--weights {path} cannot be read ({error.strerror}); expected a file; correct it") from None


def _load(model: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # torch and safetensors raise many kinds
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--weights {path} is no state dict of torchvision's ResNet-50 ({reason}); expected one; give another file"
        ) from None

"""The joint model as a classifier of images: the class that explains an image best."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.noise import per_channel
from jdm.diffusion.sampling import CaseNoise
from jdm.draw.canvas import CaseCanvas
from jdm.draw.drawer import Drawer
from jdm.draw.given import given_images
from jdm.draw.run import Run
from jdm.draw.seeds import case_seed
from jdm.errors import ConfigError
from jdm.sample.request import ClassifyRequest
from jdm.sample.starts import Start, channel_start
from jdm.system.progress import progress

FILE = "classes.csv"


def prepare(run: Run, request: ClassifyRequest) -> list[Start]:
    """Read and check the images. Raises: DataError if they cannot be used; ConfigError without classes."""
    if not run.config.facts.class_names:
        raise ConfigError("the model knows no classes; expected some; train with --classes")
    images = given_images(run.kind, request.images, run.config.facts.dtype)
    return [channel_start(CaseCanvas(image, run.config), range(run.config.image_channels)) for image in images]


def errors(drawer: Drawer, starts: Sequence[Start], request: ClassifyRequest) -> np.ndarray:
    """Mean weighted denoising error of each image for each class, (images, classes).

    The levels are spread evenly over the quantiles of those in training, and every class gets the same noise, so that
    differences between classes are due to the class. The mask, if the model has one, is unknown: pure noise.
    Source: Li et al. 2023 (arXiv:2303.16203), Algorithm 1, with the training loss's weights.
    """
    config, denoiser = drawer.config, drawer.denoiser
    assert isinstance(denoiser, Denoiser)  # checked with the request
    noise, names, images = config.noise, config.facts.class_names, config.image_channels
    quantiles = (torch.arange(request.samples, dtype=torch.float64) + 0.5) / request.samples
    levels = (noise.log_mean + noise.log_std * torch.special.ndtri(quantiles)).exp().float()
    found = np.zeros((len(starts), len(names)))
    for number, start in enumerate(progress(starts, "images")):
        for plane in start.planes:
            x0 = torch.from_numpy(plane.canvas.x)[None].to(drawer.device)
            places = plane.canvas.coordinates
            beside = None if places is None else places[None]
            fresh = CaseNoise([case_seed(request.seed, number, plane.number)], x0.shape[1:], drawer.device)
            for level in levels:
                sigma = x0.new_tensor([[float(level), noise.sigma_max]])
                x = x0 + per_channel(sigma, images, x0) * fresh()
                for place, name in enumerate(names):
                    with torch.no_grad():
                        made = drawer.denoise(name, guidance=1.0, beside=beside)(x, sigma)
                    error = denoiser.bands((made - x0)[:, :images])
                    weights = denoiser.image_weights(sigma[:, :1], error)
                    found[number, place] += float((weights * error.square()).mean()) / len(levels) / len(start.planes)
    return found


def write_classes(folder: Path, starts: Sequence[Start], found: np.ndarray, names: Sequence[str]) -> None:
    """Write the most probable class of each image and the errors of all classes."""
    with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case", "class", *(f"error {name}" for name in names)))
        for start, label, row in zip(starts, found.argmin(1), found, strict=True):
            writer.writerow((start.case.pair.case_id, names[label], *(f"{value:.6f}" for value in row)))

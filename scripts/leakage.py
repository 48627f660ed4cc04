"""How much augmentation leaks into samples: a small generator of one figure, trained with each kind of augmentation.

The figure is a triangle with its steep side on the left, nearly always of one size, place, angle, brightness and
contrast. Of what is sampled under the condition "not augmented", the share of mirrored figures should be 0, and the
spread of each property that of the training figures.

usage: python scripts/leakage.py OUT [--steps 600] [--samples 200] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import about

from jdm.config.settings import AugmentConfig, NetworkConfig, NoiseConfig
from jdm.data.augmentation import augment
from jdm.data.pairs import condition_features
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.loss import denoising_losses
from jdm.diffusion.noise import draw_sigmas
from jdm.diffusion.sampling import karras_sigmas, sample_heun
from jdm.diffusion.unet import UNet
from jdm.system.files import write_json, write_text

SIDE = 32
BRIGHTNESS = 0.1  # the plan has none, because of what this script found
PROPERTIES = ("log2 size", "row", "column", "angle", "brightness", "contrast")
_SPREAD = np.array([0.03, 0.5, 0.5, 3.0, 0.02, 0.02])
"""Standard deviations of the figures: log2, pixels, pixels, degrees, encoded intensity twice."""
_FIGURES = "0.03 of log2, 0.5 pixels of 32, 3 degrees, 0.02 and 0.02 of the intensity"


def figures(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Encoded pairs (count, 2, SIDE, SIDE)."""
    size, row, column, angle, brightness, contrast = (_SPREAD * rng.standard_normal((count, 6))).T[:, :, None, None]
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    y, x, turn = y[None] - row, x[None] - column, np.deg2rad(angle)
    u, v = (x * np.cos(turn) + y * np.sin(turn)) / 2**size, (y * np.cos(turn) - x * np.sin(turn)) / 2**size
    inside = (u > -4) & (np.abs(v) < 7 * (8 - u) / 12)
    image = -0.3 + brightness + (0.6 + contrast) * inside + 0.03 * rng.standard_normal(inside.shape)
    return torch.from_numpy(np.stack([image, np.where(inside, 0.5, -0.5)], 1)).float()


def measured(x: np.ndarray) -> np.ndarray:
    """Of each pair (n, 2, SIDE, SIDE): the six properties, and the skewness of the mask along the columns, (n, 7)."""
    found = []
    for image, mask in x:
        inside = mask > 0
        rows, columns = np.nonzero(inside)
        if len(rows) < 20:
            continue
        r, c = rows - rows.mean(), columns - columns.mean()
        tilt = np.degrees(0.5 * np.arctan2(2 * (r * c).mean(), (r**2).mean() - (c**2).mean()))
        background = image[~inside].mean()
        found.append([
            0.5 * np.log2(len(rows)), rows.mean(), columns.mean(), tilt, background, image[inside].mean() - background,
            (c**3).mean() / (c**2).mean() ** 1.5,
        ])  # fmt: skip
    return np.array(found)


def trained(settings: AugmentConfig, steps: int, seed: int) -> Denoiser:
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    reference = figures(500, rng)
    image, share = reference[:, 0], float((reference[:, 1] > 0).float().mean())
    network = UNet(2, 3, NetworkConfig(16, (1, 2, 2), 1, (), 2), levels=2, condition_features=condition_features(2))
    words = torch.tensor([[-0.5], [0.5]])
    denoiser = Denoiser(network, [float(image.mean())], [[1.0]], [[float(image.std())] * 16], words, [1 - share, share])
    optimizer = torch.optim.AdamW(denoiser.parameters(), 2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        x0, condition = augment(figures(16, rng), 1, settings, rng)
        sigma, noise = draw_sigmas(NoiseConfig(), 16, generator), torch.randn(x0.shape, generator=generator)
        optimizer.zero_grad()
        denoising_losses(denoiser, x0, sigma, noise, condition).mean().backward()
        optimizer.step()
    return denoiser.eval()


def leak(settings: AugmentConfig, steps: int, samples: int, seed: int) -> dict[str, float]:
    """Share of mirrored figures, and the spread of each property over that of the training figures."""
    denoiser = trained(settings, steps, seed)
    noise = torch.randn(samples, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        made = measured(sample_heun(denoiser, noise, karras_sigmas(18, 0.002, 80.0)).numpy())
    real = measured(figures(2000, np.random.default_rng(seed + 1)).numpy())
    ratios = made[:, :6].std(0) / real[:, :6].std(0)
    return {"mirrored": float((made[:, 6] < 0).mean()), **dict(zip(PROPERTIES, ratios.tolist(), strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--probabilities", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.8])
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"steps": options.steps, "samples": options.samples, "seeds": options.seeds, **about()}
    record["rows"] = []
    for probability in options.probabilities:
        settings = AugmentConfig(probability, mirror_axes=(1,), quarter_turns=False, brightness=BRIGHTNESS)
        began = time.process_time()
        found = [leak(settings, options.steps, options.samples, seed) for seed in options.seeds]
        seconds = round(time.process_time() - began)
        record["rows"].append({"probability": probability, "cpu_seconds": seconds, "by_seed": found})
    write_json(options.out / "leakage.json", record)
    write_text(options.out / "leakage.md", page(record))


def page(record: dict[str, Any]) -> str:
    """The table: means over seeds, with the lowest and highest of them."""
    names = ("mirrored", *PROPERTIES)
    usual = AugmentConfig(brightness=BRIGHTNESS)
    lines = [
        "# What augmentation leaks into samples", "",
        f"| share augmented | {' | '.join(names)} |", "|---|" + "---:|" * len(names),
    ]  # fmt: skip
    for row in record["rows"]:
        numbers = {name: [found[name] for found in row["by_seed"]] for name in names}
        cells = [f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in numbers.values()]
        lines.append(f"| {row['probability']:g} | {' | '.join(cells)} |")
    return "\n".join([
        *lines, "",
        "Share of mirrored figures (training figures: 0), and standard deviation of each property over that of the",
        f"training figures (1: nothing leaks, nothing is lost). Means over n = {len(record['seeds'])} generators of",
        f"{record['steps']} steps, each with {record['samples']} samples under the condition \"not augmented\"; in",
        "brackets the lowest and the highest. The row 0 shows what so short a training gives without augmentation.", "",
        "A sample is augmented in one way, drawn from mirroring, scale (standard deviation "
        f"{usual.scale:g} of log2), rotation ({usual.rotation_degrees:g} degrees),",
        f"translation ({usual.translation:g} of the side), brightness ({usual.brightness:g}) and contrast "
        f"({usual.contrast:g} of log2).",
        f"The figures themselves vary less: {_FIGURES}.", "",
        "| | |", "|---|---|", *(f"| {name} | {record[name]} |" for name in ("command", "commit", "hardware")), "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()

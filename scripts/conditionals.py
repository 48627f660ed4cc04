"""Every way of conditional sampling on one checkpoint: a sheet of pictures and a number each.

python scripts/conditionals.py 4 all --experiment experiment_fold_all --out results/conditionals

The segmenter is the nnU-Net that the experiment trained on real cases only; conditions are the first test cases in the
order of their ids, edits start from the cases held out in training and then from those trained on. Finished parts are
kept in results.json and not done again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from conditional_channels import channels
from conditional_classes import classes
from conditional_edits import inpainting, interpolations, variations
from conditional_parts import comparison, images_to_masks, masks_to_images
from conditional_scene import Scene
from conditional_tables import markdown
from segmenter import Segmenter, real_arm

from jdm.cli import run_command
from jdm.config.samplers import Sampler
from jdm.config.settings import Config
from jdm.data.raw_dataset import open_dataset
from jdm.errors import ConfigError, ExistsError
from jdm.sample.request import SampleRequest
from jdm.system.files import write_json
from jdm.system.machine import describe_run
from jdm.train.checkpoint import differences, load_checkpoint, run_folder

PARTS: dict[str, Callable[[Scene], dict[str, Any]]] = {
    "masks": masks_to_images,
    "images": images_to_masks,
    "inpaint": inpainting,
    "vary": variations,
    "interpolate": interpolations,
    "channels": channels,
    "classes": classes,
    "compare": comparison,
}
PartName = Literal["masks", "images", "inpaint", "vary", "interpolate", "channels", "classes", "compare"]


@dataclass(frozen=True)
class Options:
    """Show and measure every way of conditional sampling on one checkpoint."""

    dataset: Annotated[str, tyro.conf.Positional]
    """Id or name."""
    fold: Annotated[str, tyro.conf.Positional]
    """Fold of the checkpoint."""
    experiment: str = "experiment_fold_all"
    """Finished experiment beside the checkpoint's folder, or a path: its arm real segments."""
    out: Path = Path("results/conditionals")
    parts: tuple[PartName, ...] = tuple(PARTS)  # pyright: ignore[reportAssignmentType]
    """What to do now, of: masks images inpaint vary interpolate channels classes compare. Left out where there are
    none: channels of images with one channel, classes of models trained without."""
    cases: int = 24
    """Test cases whose masks and images are conditions."""
    edits: int = 8
    """Training cases that are inpainted, varied and interpolated."""
    planes: int = 4
    """Slices of each volume, evenly over its foreground; 0: all of them."""
    compare_planes: int = 1
    """The same of the comparison."""
    samples: int = 4
    levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    """Of the variations."""
    sampler: Sampler = "heun-stochastic"
    """Variations and interpolations take heun where this one renews noise."""
    steps: int = 25
    batch_size: int = 32
    seed: int = 0
    """Of sampling."""
    arm_seed: int = 0
    """Of the segmenter's training."""


JUDGED = {"masks", "images", "inpaint", "vary", "compare"}
"""The parts that ask the segmenter."""
TESTED = {"masks", "images", "compare"}
"""Those whose conditions are test cases."""


def main(options: Options) -> None:
    """Do the parts asked for that are not there yet, and write results.json and results.md after each."""
    scene, circumstances = prepared(options)
    content = earlier(options.out, circumstances) | circumstances
    parts: dict[str, Any] = content.setdefault("parts", {})
    for name in options.parts:
        if name not in fitting(scene.config):
            continue
        if name in parts:
            print(f"{name}: kept")
            continue
        begin, cpu = time.perf_counter(), time.process_time()
        found = PARTS[name](scene)
        minutes = {"cpu_minutes": (time.process_time() - cpu) / 60, "minutes": (time.perf_counter() - begin) / 60}
        about = describe_run()
        run = {"command": f"python scripts/{about.command}", "commit": about.commit, "hardware": about.hardware}
        parts[name] = {**found, **minutes, "run": run}
        write_json(options.out / "results.json", content)
        (options.out / "results.md").write_text(markdown(content), encoding="utf-8")
        print(f"{name}: {minutes['cpu_minutes']:.1f} minutes of CPU time")


def fitting(config: Config) -> set[str]:
    """The parts that a model can do."""
    missing = {"channels": config.image_channels == 1, "classes": not config.network.class_names}
    return {name for name in PARTS if not missing.get(name)}


def prepared(options: Options) -> tuple[Scene, dict[str, Any]]:
    """The scene of some options, and what of it the results depend on.

    Raises: ConfigError for too many cases; else as the loading of what is named.
    """
    dataset = open_dataset(options.dataset)
    folder = run_folder(dataset.name, options.fold)
    checkpoint = load_checkpoint(folder)
    experiment = folder.parent / options.experiment
    known = (*checkpoint.metadata["held_out_ids"], *checkpoint.metadata["training_ids"])
    if options.sampler == "ode":
        raise ConfigError("--sampler is ode, which cannot inpaint; expected another one; choose it")
    tests = len(dataset.test_cases) if TESTED & {*options.parts} else options.cases
    for flag, count, most in (("cases", options.cases, tests), ("edits", options.edits, len(known))):
        if not 1 <= count <= most:
            raise ConfigError(f"--{flag} is {count}; expected 1 to {most} of {dataset.name}; correct it")
    options.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    segmenter = None
    if JUDGED & {*options.parts}:
        segmenter = Segmenter(real_arm(experiment, options.arm_seed), device, Path(os.devnull))
    scene = Scene(
        checkpoint,
        dataset,
        segmenter,
        experiment / "predictions" / "real" / f"seed_{options.arm_seed}",
        options.out,
        SampleRequest(
            "vary",
            samples=options.samples,
            sampler=options.sampler,
            steps=options.steps,
            seed=options.seed,
            batch_size=options.batch_size,
        ),
        dataset.test_cases[: options.cases],
        known[: options.edits],
        options.planes,
        options.levels,
        options.compare_planes,
        device,
    )
    settings = {key: value for key, value in asdict(options).items() if key not in ("out", "parts", "experiment")}
    generator = {key: checkpoint.metadata[key] for key in ("dataset", "fold", "step", "training_ids", "held_out_ids")}
    return scene, {
        "generator": {**generator, "sha256": checkpoint.sha256},
        "settings": json.loads(json.dumps(settings)),
        "edited": list(scene.edit_ids),
        "conditions": list(scene.test_ids),
    }


def earlier(out: Path, circumstances: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run with the same checkpoint and settings found. Raises: ExistsError if it was another."""
    file = out / "results.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    changed = differences({key: content.get(key) for key in circumstances}, circumstances)
    if changed:
        raise ExistsError(
            f"{file} is of another run: {'; '.join(changed[:3])}; expected the same; remove it, or give another --out"
        )
    return content


if __name__ == "__main__":
    arguments = tyro.cli(Options)
    run_command(lambda: main(arguments))

"""All modes of conditional sampling on one checkpoint, each with a sheet of pictures and a score.

python scripts/conditionals.py 4 all --experiment experiment_fold_all --out results/conditionals

The segmenter is the experiment's nnU-Net trained on real cases only. Conditions are the first test cases by id; edits
start from held-out cases, then training cases. Finished parts are kept in results.json and not repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro
from conditional_channels import channels
from conditional_classes import classes
from conditional_edits import inpainting, interpolations, variations
from conditional_parts import comparison, images_to_masks, masks_to_images
from conditional_scene import Options, Scene
from conditional_tables import markdown
from segmenter import real_arm
from shared import about, kept

from jdm.cli import run_command
from jdm.config.settings import Config
from jdm.draw.run import open_run
from jdm.errors import ConfigError
from jdm.sample.request import SegmentRequest, way_for
from jdm.system.files import write_json, write_text
from jdm.system.processes import device_name
from nnunet_integration.segmenter import Segmenter

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
JUDGED = {"masks", "images", "inpaint", "vary", "compare"}
"""Parts that use the segmenter."""
TESTED = {"masks", "images", "compare"}
"""Parts whose conditions are test cases."""


def main(options: Options) -> None:
    """Run the requested parts that are missing, and write results.json and results.md after each."""
    scene = scene_of(options)
    found = circumstances(scene)
    content = kept(options.out / "results.json", found) | found
    parts: dict[str, Any] = content.setdefault("parts", {})
    for name in options.parts:
        if name not in fitting(scene.config):
            continue
        if name in parts:
            print(f"{name}: kept")
            continue
        begin, cpu = time.perf_counter(), time.process_time()
        part = PARTS[name](scene)
        minutes = {"cpu_minutes": (time.process_time() - cpu) / 60, "minutes": (time.perf_counter() - begin) / 60}
        parts[name] = {**part, **minutes, "run": about()}
        write_json(options.out / "results.json", content)
        write_text(options.out / "results.md", markdown(content))
        print(f"{name}: {minutes['cpu_minutes']:.1f} minutes of CPU time")


def fitting(config: Config) -> set[str]:
    """The parts that the model supports."""
    missing = {"channels": config.image_channels == 1, "classes": not config.facts.class_names}
    return {name for name in PARTS if not missing.get(name)}


def scene_of(options: Options) -> Scene:
    """The scene for the options. Raises: ConfigError for too many cases; else as loading the named files."""
    run = open_run(options.dataset, options.fold)
    dataset = run.real_for("scripts/conditionals.py")
    metadata, experiment = run.checkpoint.metadata, run.folder.parent / options.experiment
    tests = len(dataset.test_cases) if TESTED & {*options.parts} else options.cases
    known = len(metadata["held_out_ids"]) + len(metadata["training_ids"])
    for flag, count, most in (("cases", options.cases, tests), ("edits", options.edits, known)):
        if not 1 <= count <= most:
            raise ConfigError(f"--{flag} is {count}; expected 1 to {most} of {dataset.name}; correct it")
    options.out.mkdir(parents=True, exist_ok=True)
    segmenter = None
    if JUDGED & {*options.parts}:
        segmenter = Segmenter(real_arm(experiment, options.arm_seed), device_name(), Path(os.devnull))
    return Scene(run, dataset, options, segmenter, experiment / "predictions" / "real" / f"seed_{options.arm_seed}")


def circumstances(scene: Scene) -> dict[str, Any]:
    """Settings that the results depend on."""
    metadata, way = scene.run.checkpoint.metadata, way_for(scene.config, scene.asked(SegmentRequest, images=Path()))
    generator = {key: metadata[key] for key in ("dataset", "fold", "step", "training_ids", "held_out_ids", "sha256")}
    settings = {key: value for key, value in asdict(scene.options).items() if key not in ("out", "parts", "experiment")}
    return {
        "generator": generator,
        "settings": {**settings, "sampler": way.sampler, "steps": way.steps},
        "edited": scene.edit_ids,
        "conditions": scene.test_ids,
    }


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

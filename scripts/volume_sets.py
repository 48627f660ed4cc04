"""Sets of synthetic volumes beside real ones: a sheet in three planes, and how neighbouring slices fit together.

python scripts/volume_sets.py 4 results/hippocampus3d --sets volumes=740 stacks=741
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from pair_sheet import shrink
from shared import about

from jdm.cli import run_command
from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import Pair, RawDataset, open_dataset, read_case
from jdm.errors import ConfigError
from jdm.evaluation.coherence import coherences, kolmogorov
from jdm.evaluation.figures import pair_grid
from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import strict, write_json, write_text

SHOWN = 8
"""Volumes of each set on its sheet."""


def planes(volume: Pair) -> list[Pair]:
    """The three planes through the middle of the foreground, with voxels as wide as they are long."""
    places = np.argwhere(volume.label > 0)
    middle = np.median(places, axis=0).astype(int) if len(places) else np.array(volume.label.shape) // 2
    shown = []
    for axis, index in enumerate(middle.tolist()):
        image, label = volume.image.take(index, axis + 1), volume.label.take(index, axis)
        steps = [step for k, step in enumerate(volume.spacing) if k != axis]
        for side, step in enumerate(steps):
            times = max(1, round(step / min(steps)))
            image, label = image.repeat(times, side + 1), label.repeat(times, side)
        shown.append(Pair(volume.case_id, image, label, (1.0, 1.0)))
    return shown


def sheet(dataset: RawDataset, cases: list[str], out: Path, seed: int) -> None:
    """Random volumes, one a row: each plane as image, and with its mask outlined."""
    chosen = np.random.default_rng(seed).permutation(cases)[:SHOWN].tolist()
    pair_grid([plane for case in chosen for plane in planes(read_case(dataset, case))], out, columns=3)
    shrink(out, 400_000)


def strips(sets: dict[str, list[dict[str, float]]], out: Path) -> None:
    """A dot per volume: gradients and overlaps along each axis."""
    import matplotlib.pyplot as plt

    names = list(next(iter(sets.values()))[0])
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained")
    for name, axis in zip(sorted(names), axes.flat, strict=True):
        for row, found in enumerate(sets.values()):
            values = [each[name] for each in found]
            jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(values))
            axis.plot(values, row + jitter, ".", alpha=0.6)
        axis.set_yticks(range(len(sets)), list(sets))
        axis.set_title(name, fontsize=9)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def page(distances: dict[str, dict[str, float]], counts: dict[str, int], run: dict[str, str]) -> str:
    """The distances as Markdown."""
    header = ("", *distances)
    rows = tuple(
        (name, *(f"{found[name]:.2f}" for found in distances.values())) for name in next(iter(distances.values()))
    )
    return "\n\n".join(
        [
            "# Neighbouring slices",
            "Kolmogorov distance to the training volumes of how much neighbours differ (gradient) and how far the "
            "masks of neighbouring slices overlap (Dice), along each array axis: 0 is equal, 1 is apart. Volumes: "
            + ", ".join(f"{name} {count}" for name, count in counts.items())
            + ". `real, unseen`: real volumes that were not trained on, the floor.",
            table_markdown(Table("Distance to training volumes", header, rows)),
            "![each volume](coherence.png)",
            f"`{run['command']}` at {run['commit']}, {run['hardware']}.",
        ]
    ) + "\n"  # fmt: skip


def main(real: str, out: Path, /, *, sets: tuple[str, ...], seed: int = 0) -> None:
    """Write sheets, coherence.json, .md and .png.

    Args:
        real: Id or name of the real dataset.
        out: Folder to write to.
        sets: Synthetic datasets as NAME=ID.
        seed: Of the choice of volumes.
    """
    if not all("=" in each for each in sets):
        raise ConfigError(f"--sets is {' '.join(sets)}; expected NAME=ID of each; correct it")
    dataset, made = open_dataset(real), {name: open_dataset(i) for name, i in (each.split("=") for each in sets)}
    trained = sorted({case for one in made.values() for case in read_generator(one)["training_ids"]})
    out.mkdir(parents=True, exist_ok=True)
    found = {"real": coherences(dataset, trained), "real, unseen": coherences(dataset, dataset.test_cases, test=True)}
    sheet(dataset, trained, out / "volumes_real.png", seed)
    for name, one in made.items():
        found[name] = coherences(one, one.cases)
        sheet(one, list(one.cases), out / f"volumes_{name}.png", seed)
    distances = {name: kolmogorov(numbers, found["real"]) for name, numbers in found.items() if name != "real"}
    strips(found, out / "coherence.png")
    write_json(out / "coherence.json", strict({**about(), "distances": distances, "volumes": found}))
    write_text(out / "coherence.md", page(distances, {name: len(v) for name, v in found.items()}, about()))


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main))

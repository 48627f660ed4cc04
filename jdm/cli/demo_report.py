"""The demo's image and report: one annotated field of nuclei, half for training and half for testing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.raw_dataset import Pair, RawDataset, read_case, read_dataset
from jdm.errors import ConfigError
from jdm.evaluation import audit, figures
from jdm.evaluation.report import Figure, Section, Table, table_markdown, write_report
from jdm.system.machine import describe_run
from nnunet_integration.report import tables, warning_lines

TRAIN_TILE, TEST_TILE = 64, 128
_SHEET_PAIRS, _SHOWN_TILES, _SHOWN_CASES = 24, 6, 3
_SHEET_SEED = 0


@dataclass(frozen=True)
class Step:
    """One command of the demo, as typed, and how long it took."""

    command: str
    seconds: float


@dataclass(frozen=True)
class Places:
    """Folders with the demo's results."""

    real: Path
    synthetic: Path
    training: Path
    experiment: Path


def read_field() -> tuple[np.ndarray, np.ndarray]:
    """A field of nuclei and its manual annotation, both uint8 (512, 512); the annotation is 0 or 255.

    Source: stardist's test image, from the 2018 Data Science Bowl (Caicedo et al. 2019, Nature Methods 16:1247).
    Raises: ConfigError if stardist is not installed.
    """
    try:
        from stardist.data import test_image_nuclei_2d
    except ImportError:
        raise ConfigError(
            "the demo's image comes with the package stardist, which is not installed; expected the extra 'demo'; "
            "run make demo, or pip install 'jdm[demo]'"
        ) from None
    image, instances = test_image_nuclei_2d(return_mask=True)
    # stored as 16 bits, but holding 8
    return image.astype(np.uint8), np.where(instances > 0, 255, 0).astype(np.uint8)


def write_tiles(folder: Path, image: np.ndarray, mask: np.ndarray) -> None:
    """Cut the left half into training tiles and the right half into test tiles, as PNG files under `folder`.

    Args:
        image, mask: uint8 (H, W); W / 2 and H are multiples of both tile sizes.
    """
    from PIL import Image

    middle = image.shape[1] // 2
    halves = {"train": (slice(None, middle), TRAIN_TILE), "test": (slice(middle, None), TEST_TILE)}
    for split, (columns, side) in halves.items():
        for kind, picture in (("images", image), ("masks", mask)):
            (folder / split / kind).mkdir(parents=True)
            half = picture[:, columns]
            for y in range(0, half.shape[0], side):
                for x in range(0, half.shape[1], side):
                    name = f"{split}_y{y:03d}_x{x:03d}.png"
                    Image.fromarray(half[y : y + side, x : x + side]).save(folder / split / kind / name)


def write_demo_report(path: Path, places: Places, steps: Sequence[Step], setup: Sequence[str]) -> list[str]:
    """Write the HTML report of a finished demo and its figures beside it.

    Args:
        setup: shell lines that precede the commands.
    Returns: the verdict, and the result tables in Markdown.
    """
    real, synthetic = read_dataset(places.real), read_dataset(places.synthetic)
    trained = json.loads((places.training / "checkpoint.json").read_text(encoding="utf-8"))
    results = json.loads((places.experiment / "results.json").read_text(encoding="utf-8"))
    folder = path.parent / "figures"
    folder.mkdir(exist_ok=True)
    sections = [
        _results_section(results, places.experiment),
        _samples_section(real, synthetic, trained, folder),
        _nearest_section(real, synthetic, trained, folder),
        _curves_section(trained, places.training),
        _run_section(steps, setup),
    ]
    hardware = results["hardware"]
    machine = ", ".join([f"{hardware['cpu']}, {hardware['cores']} cores", *hardware["gpu"]])
    run = replace(describe_run(), hardware=machine)
    write_report(path, sections, verdict=results["verdict"], title="jdm demo: half a field of nuclei", run=run)
    return [f"{results['verdict']}\n", *map(table_markdown, tables(results))]


def _results_section(results: Mapping[str, Any], experiment: Path) -> Section:
    pictures = sorted((experiment / "pictures").glob("*.png"))[:_SHOWN_CASES]
    return Section(
        "Results on the test half",
        (
            "nnU-Net was trained on the left half of the field, on synthetic pairs, or on both, and scored on the "
            "right half, which was not used to train nnU-Net or the generator.",
        ),
        tuple(tables(results)),
        tuple(Figure(p, f"Test tile {p.stem}: image, reference, prediction of every arm", p.stem) for p in pictures),
        (
            f"All {results['images']} test tiles ({TEST_TILE} px) come from one field of one microscope, and the "
            "networks are small and trained briefly. This shows that the pipeline works, not how much synthetic pairs "
            "help elsewhere. Nuclei on the middle line lie in both halves.",
            *warning_lines(results),
        ),
    )


def _samples_section(real: RawDataset, synthetic: RawDataset, trained: Mapping[str, Any], folder: Path) -> Section:
    rng = np.random.default_rng(_SHEET_SEED)
    drawn = rng.choice(synthetic.cases, min(_SHEET_PAIRS, len(synthetic.cases)), replace=False)
    sheets = {"real.png": (real, real.cases), "synthetic.png": (synthetic, sorted(drawn.tolist()))}
    for name, (dataset, cases) in sheets.items():
        figures.pair_grid([read_case(dataset, case) for case in cases], folder / name, columns=4)
    return Section(
        "The pairs",
        (f"{len(synthetic.cases)} synthetic pairs were made from {len(trained['training_ids'])} training tiles.",),
        (),
        (
            Figure(folder / "synthetic.png", "Sheet of synthetic images and masks",
                   f"{len(drawn)} synthetic pairs, drawn at random and not selected: image, and image with mask."),
            Figure(folder / "real.png", "Sheet of real images and masks",
                   f"All {len(real.cases)} tiles of the annotated half."),
        ),
    )  # fmt: skip


def _nearest_section(real: RawDataset, synthetic: RawDataset, trained: Mapping[str, Any], folder: Path) -> Section:
    training = [read_case(real, case) for case in trained["training_ids"]]
    held_out = [read_case(real, case) for case in trained["held_out_ids"]]
    made = [read_case(synthetic, case) for case in synthetic.cases]
    found = audit.audit(_stack(made), _stack(training), _stack(held_out))
    shown = training[:: max(1, len(training) // _SHOWN_TILES)][:_SHOWN_TILES]
    near = audit.nearest_pairs(_stack(shown), _stack(made))
    matches = [
        figures.Match(_turned(made[index], bool(flipped), int(turns)), tile, f"{tile.case_id}, {distance:.3f}")
        for tile, index, distance, turns, flipped in zip(
            shown, near.index, near.distance, near.turns, near.flipped, strict=True
        )
    ]
    figures.nearest_sheet(matches, folder / "nearest.png", ("nearest synthetic pair", "training tile"))
    caption = (
        f"Right: {len(matches)} evenly spaced training tiles. Left: the synthetic pair nearest to each, flipped and "
        "rotated to match, with the root mean square difference of image (0 to 1) and mask (0 or 1)."
    )
    return Section(
        "Are they copies?",
        (
            "A copy would be much nearer to one training tile than to all others. Held-out tiles, which cannot be "
            "copies, are measured the same way.",
        ),
        (_audit_table(found),),
        (Figure(folder / "nearest.png", "Training tiles beside the synthetic pairs nearest to them", caption),),
    )


def _audit_table(found: audit.Audit) -> Table:
    shares = [("synthetic", found.synthetic), *([("held out", found.held_out)] if found.held_out else [])]
    rows = [
        (name, str(s.n), str(s.copies), f"{100 * s.below_ratio:.0f} %", f"{100 * s.authentic:.0f} %",
         f"{s.median_distance:.3f}", f"{s.smallest_distance:.3f}")
        for name, s in shares
    ]  # fmt: skip
    header = ("pairs", "n", "exact copies", "ratio below 1/3", "authentic", "median distance", "smallest distance")
    return Table("Distance to the nearest training tile, over flips and turns", header, tuple(rows))


def _stack(pairs: Sequence[Pair]) -> np.ndarray:
    """(n, 2, H, W): image from 0 to 1, mask 0 or 1."""
    return np.stack([np.concatenate([pair.image / 255, pair.label[None] > 0]) for pair in pairs])


def _turned(pair: Pair, flipped: bool, turns: int) -> Pair:
    """The pair mirrored along its last axis, then rotated counter-clockwise by quarter turns."""
    image, label = (array[..., ::-1] if flipped else array for array in (pair.image, pair.label))
    return replace(pair, image=np.rot90(image, turns, (-2, -1)), label=np.rot90(label, turns))


def _curves_section(trained: Mapping[str, Any], training: Path) -> Section:
    text = (
        f"The exported weights are those of step {trained['step']}, at which the smoothed loss on "
        f"{len(trained['held_out_ids'])} held-out tiles was lowest."
    )
    return Section("The generator's training", (text,), (), (Figure(training / "curves.png", "Loss curves", ""),))


def _run_section(steps: Sequence[Step], setup: Sequence[str]) -> Section:
    rows = tuple((step.command, f"{step.seconds / 60:.1f}") for step in steps)
    minutes = sum(step.seconds for step in steps) / 60
    table = Table(f"{minutes:.1f} minutes in all", ("command", "minutes"), rows)
    return Section("Commands", ("Run these lines before each command:", *setup), (table,))

"""One table of settings on one footing: every row trained for the same minutes on the same data, then judged.

The rows are in scripts/ablation.toml. For every dataset, row and seed: train, export, train nnU-Net on the pairs alone
and score it on the test set (beside nnU-Net trained on real cases for as many updates), segment the test set by the
model itself, and compare the pairs with real crops. Every part is kept under jdm_results: a killed call goes on where
it was, and more rows, datasets or seeds are added to the table.

python scripts/ablation.py --datasets monuseg --rows default "no wavelets" --minutes 40 --out results
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import tyro
from ablation_scores import pair_scores
from ablation_table import table
from shared import about

from jdm.cli import run_command
from jdm.data.raw_dataset import RawDataset, open_dataset
from jdm.data.raw_layout import results_folder
from jdm.errors import ConfigError, JdmError
from jdm.system.files import write_json, write_text

ROWS = Path(__file__).with_suffix(".toml")
_FIRST_ID = 600
"""Synthetic datasets get the first free id from here on."""


@dataclass(frozen=True)
class Options:
    """Compare settings of training and export on one footing. A killed call continues."""

    out: Path
    """Folder for ablations.json and ablations.md."""
    datasets: tuple[str, ...] = ("hippocampus", "monuseg", "neopolyp")
    rows: tuple[str, ...] = ()
    """Names in the file of rows. Default: all."""
    seeds: tuple[int, ...] = (0,)
    minutes: float = 20
    """Of training the generator, for every row."""
    file: Path = ROWS
    """TOML file of datasets and rows."""
    work: Path | None = None
    """Folder for what is trained. Default: ablation under jdm_results."""


@dataclass(frozen=True)
class Cell:
    """One setting trained on one dataset with one seed."""

    dataset: str
    row: str
    seed: int
    data: Mapping[str, Any]
    """Of the dataset, from the file."""
    setting: Mapping[str, Any]
    """Of the row, from the file."""
    of: Cell | None
    """Whose generator it takes; None: it trains its own."""
    folder: Path
    """jdm_results of this cell."""

    @property
    def result(self) -> Path:
        return self.folder / "cell.json"

    @property
    def run(self) -> Path:
        """Folder of the generator's run."""
        return self.folder / open_dataset(str(self.data["id"])).name / f"fold_{self.data['fold']}"

    def words(self, part: str) -> list[str]:
        """Flags of the dataset and the row for one command."""
        return shlex.split(self.data.get(part, "")) + shlex.split(self.setting.get(part, ""))


def main(options: Options) -> None:
    """Run what is missing, then write the table of all that is there."""
    content = tomllib.loads(options.file.read_text(encoding="utf-8"))
    work = (options.work or results_folder() / "ablation").resolve()
    for name, known in (
        *((n, content["datasets"]) for n in options.datasets),
        *((n, content["rows"]) for n in options.rows),
    ):
        if name not in known:
            raise ConfigError(f"{name} is not in {options.file}; expected one of {', '.join(known)}; correct it")
    for dataset in options.datasets:
        for seed in options.seeds:
            for row in options.rows or content["rows"]:
                cell = _cell(content, work, options, dataset, row, seed)
                if not cell.result.is_file():
                    write_json(cell.result, _measured(cell, work, options.minutes))
                write(options.out, work)


def _cell(content: Mapping[str, Any], work: Path, options: Options, dataset: str, row: str, seed: int) -> Cell:
    setting = content["rows"][row]
    of = _cell(content, work, options, dataset, setting["of"], seed) if "of" in setting else None
    folder = work / f"{options.minutes:g}_minutes" / dataset / row.replace("/", "_") / f"seed_{seed}"
    return Cell(dataset, row, seed, content["datasets"][dataset], setting, of, folder)


def _measured(cell: Cell, work: Path, minutes: float) -> dict[str, Any]:
    """Train, export, and judge one cell."""
    real = open_dataset(str(cell.data["id"]))
    generator = cell.of or cell
    _train(generator, minutes)
    synthetic = _exported(cell, generator, real, work)
    alone = _experiment(cell, synthetic, "synthetic", cell.folder / f"experiment_{cell.seed}")
    by_real = work / "real" / cell.dataset / f"seed_{cell.seed}"
    reference = _experiment(cell, synthetic, "real", by_real)
    return {
        "dataset": cell.dataset, "row": cell.row, "seed": cell.seed, "minutes": minutes,
        "train": cell.words("train"), "export": cell.words("export"),
        "synthetic_dice": alone["dice"]["mean"], "real_dice": reference["dice"]["mean"],
        "test_images": alone["images"],
        "segmenter_dice": _segmented(generator, real),
        **pair_scores(generator.run, synthetic, real, by_real, cell.seed),
        **about(),
    }  # fmt: skip


def _train(cell: Cell, minutes: float) -> None:
    if (cell.folder / "trained").is_file():
        return
    begun = (cell.run / "plan.toml").is_file()
    words = ["--resume"] if begun else [*cell.words("train"), "--train.seed", str(cell.seed)]
    _run(cell, "jdm-train", str(cell.data["id"]), str(cell.data["fold"]), "--budget-minutes", f"{minutes:g}", *words)
    write_text(cell.folder / "trained", "")


def _exported(cell: Cell, generator: Cell, real: RawDataset, work: Path) -> RawDataset:
    """The cell's synthetic dataset, exported or finished."""
    file = work / "ids.json"
    ids: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    key = str(cell.folder.relative_to(work))
    if key not in ids:
        taken = {*ids.values(), *(int(path.name[7:10]) for path in real.folder.parent.glob("Dataset[0-9][0-9][0-9]_*"))}
        ids[key] = next(number for number in range(_FIRST_ID, 1000) if number not in taken)
        write_json(file, ids)
    found = list(real.folder.parent.glob(f"Dataset{ids[key]}_*"))
    if not found:
        _run(
            generator, "jdm-export", str(cell.data["id"]), str(cell.data["fold"]), "--id", str(ids[key]), "--name",
            f"Ablation{ids[key]}", "--anyway", "--seed", str(cell.seed), *cell.words("export"),
        )  # fmt: skip
    return open_dataset(str(ids[key]))


def _experiment(cell: Cell, synthetic: RawDataset, arm: str, out: Path) -> dict[str, Any]:
    """One arm of an experiment with one seed: its entry of results.json, and the number of scored images."""
    if not (out / "results.json").is_file():
        words = ["--fold", str(cell.data["fold"]), "--arms", arm, "--seeds", str(cell.seed), "--out", str(out)]
        name = _synthetic_of(out) or synthetic.name
        _run(
            cell,
            "jdm-experiment",
            str(cell.data["id"]),
            "--synthetic",
            name,
            *words,
            *shlex.split(cell.data["experiment"]),
        )
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {**results["arms"][arm], "images": results["images"]}


def _synthetic_of(out: Path) -> str | None:
    """Name of the synthetic dataset with which an experiment began, of which arm `real` needs none."""
    file = out / "experiment.json"
    return json.loads(file.read_text(encoding="utf-8")).get("synthetic") if file.is_file() else None


def _segmented(generator: Cell, real: RawDataset) -> float:
    """Mean Dice of the model's own segmentations of the test images, over foreground classes."""
    out, references = generator.folder / "segmented", real.folder / "labelsTs"
    if not (out / "evaluation" / "evaluation.json").is_file():
        fold, id = str(generator.data["fold"]), str(generator.data["id"])
        _run(
            generator,
            "jdm-sample",
            "segment",
            id,
            fold,
            str(real.folder / "imagesTs"),
            "--samples",
            "1",
            "--out",
            str(out),
            "--overwrite",
        )
        _run(
            generator, "jdm-evaluate", "--predictions", str(out / "labels"), "--references", str(references),
            "--out", str(out / "evaluation"), "--dataset", id, "--no-hd95",
        )  # fmt: skip
    return json.loads((out / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["mean_dice"]


def _run(cell: Cell, *words: str) -> None:
    """Run a command of jdm on the cell's results. Raises: JdmError if it fails."""
    print("+", shlex.join(words), flush=True)
    finished = subprocess.run(words, env={**os.environ, "jdm_results": str(cell.folder)}, check=False)
    if finished.returncode:
        raise JdmError(f"{words[0]} ended with status {finished.returncode} for {cell.row}; run again to go on")


def write(out: Path, work: Path) -> None:
    """ablations.json and ablations.md, of all cells that are finished."""
    cells: Sequence[dict[str, Any]] = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(work.glob("*/*/*/seed_*/cell.json"))
    ]
    write_json(out / "ablations.json", {"cells": cells})
    write_text(out / "ablations.md", table(cells))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

"""One table of settings on one footing: every row trained for the same CPU minutes on the same data, then judged.

For every dataset, row and seed: train; export; train nnU-Net on the pairs alone and score it on the test set, beside
nnU-Net trained on real cases for as many updates; segment the test set by the model itself; compare the pairs with real
crops. What is finished is kept in --folder and never repeated: a killed call goes on where it was, more rows, datasets
or seeds are added to the table, and several calls may share the work. The rows are in scripts/ablation.toml, the
datasets are made by scripts/ablation_data.sh.

python scripts/ablation.py --datasets monuseg --rows default "no wavelets" --minutes 40
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import tyro
from ablation_scores import pair_scores
from ablation_table import page, summaries
from shared import about, kept

from jdm.cli import run_command
from jdm.data.groups import read_groups
from jdm.data.raw_dataset import RawDataset, open_dataset
from jdm.data.raw_layout import used_ids
from jdm.errors import ConfigError, JdmError
from jdm.evaluation.metrics import evaluate_folders
from jdm.system.files import write_json, write_text
from jdm.system.locks import locked
from jdm.train.checkpoint import METADATA, has_resume_state

_ROWS = Path(__file__).with_suffix(".toml")
_IDS = range(600, 1000)
"""Ids of the synthetic datasets."""


@dataclass(frozen=True)
class Options:
    """Compare settings of training and export on one footing. A killed call continues."""

    minutes: float
    """CPU minutes of training for every generator."""
    datasets: tuple[str, ...] = ()
    """Names in the file. Default: all."""
    rows: tuple[str, ...] = ()
    """Names in the file. Default: all."""
    seeds: tuple[int, ...] = (0,)
    """Of the generator, its pairs and nnU-Net."""
    folder: Path = Path("ablation")
    """For all that is trained and made; the exported pairs go to $nnUNet_raw."""
    out: Path = Path("results")
    """Where ablations.md and ablations.json are written."""
    file: Path = _ROWS
    """TOML file of datasets and rows."""


@dataclass(frozen=True)
class Cell:
    """One row on one dataset with one seed."""

    dataset: str
    row: str
    seed: int
    minutes: float
    words: Mapping[str, list[str]]
    """Flags for `train`, `export` and `experiment`."""
    id: str
    """Of the real dataset."""
    fold: str
    of: Cell | None
    """Whose generator is used; None: its own."""
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / f"{self.minutes:g}_minutes" / self.dataset / self.row.replace("/", "_") / f"seed_{self.seed}"

    @property
    def result(self) -> Path:
        return self.folder / "cell.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What must be equal for a finished cell to count."""
        names = {"dataset": self.dataset, "row": self.row, "seed": self.seed, "minutes": self.minutes}
        return {**names, "flags": dict(self.words), "of": None if self.of is None else self.of.row}

    def run(self, command: str, *words: object) -> None:
        """Run a command of jdm, with this cell's runs and checkpoints. Raises: JdmError with its last line."""
        program, one_thread = Path(sys.executable).with_name(command), {"OMP_NUM_THREADS": "1"}
        environment = {**one_thread, "OMP_WAIT_POLICY": "passive", **os.environ, "jdm_results": str(self.folder)}
        print("+", command, shlex.join(map(str, words)), file=sys.stderr, flush=True)
        line = ""
        with subprocess.Popen(
            [str(program), *map(str, words)], env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                sys.stderr.write(line)
        if process.returncode:
            raise JdmError(line.strip() or f"{command} ended with status {process.returncode}")


def main(options: Options) -> None:
    """Run what is missing, then write the table of all that is there. Raises: JdmError naming the cells that failed."""
    failed = []
    for cell in cells(options):
        if kept(cell.result, cell.settings):
            continue
        cell.folder.mkdir(parents=True, exist_ok=True)
        with locked(cell.folder / ".lock", wait=False) as free:
            if not free:  # another call is at it
                continue
            try:
                write_json(cell.result, {**cell.settings, **about(), **measured(cell)})
                (cell.folder / "failed.json").unlink(missing_ok=True)
            except JdmError as error:
                write_json(cell.folder / "failed.json", {**cell.settings, "reason": str(error)})
                failed.append(f"{cell.dataset}, {cell.row}, seed {cell.seed}: {error}")
        write(options)
    write(options)
    if failed:
        raise JdmError("; ".join(failed))


def cells(options: Options) -> Iterator[Cell]:
    """Raises: ConfigError for a name that is not in the file."""
    content = tomllib.loads(options.file.read_text(encoding="utf-8"))
    chosen = {}
    for kind, names in (("datasets", options.datasets), ("rows", options.rows)):
        chosen[kind] = names or tuple(content[kind])
        if unknown := [name for name in chosen[kind] if name not in content[kind]]:
            raise ConfigError(
                f"--{kind} has {unknown[0]!r}; expected one of {', '.join(map(repr, content[kind]))}; correct it, or "
                f"add it to {options.file}"
            )

    def cell(dataset: str, row: str, seed: int) -> Cell:
        data, setting = content["datasets"][dataset], content["rows"][row]
        words = {
            part: shlex.split(f"{data.get(part, '')} {setting.get(part, '')}")
            for part in ("train", "export", "experiment")
        }
        of = cell(dataset, setting["of"], seed) if "of" in setting else None
        id, fold, root = str(data["id"]), str(data["fold"]), options.folder.resolve()
        return Cell(dataset, row, seed, options.minutes, words, id, fold, of, root)

    for seed in options.seeds:
        for dataset in chosen["datasets"]:
            for row in chosen["rows"]:
                yield cell(dataset, row, seed)


def measured(cell: Cell) -> dict[str, Any]:
    """Train, export and judge one cell: scores of the test set by arm, numbers about the pairs, and the generator's
    commit."""
    real, generator = open_dataset(cell.id), cell.of or cell
    run = train(generator, real)
    synthetic = export(cell, generator, real)
    by_real = cell.root / "real" / cell.dataset / f"seed_{cell.seed}"
    scores = {
        "synthetic": nnunet_scores(cell, synthetic, "synthetic", cell.folder / "experiment"),
        "real": nnunet_scores(cell, synthetic, "real", by_real),
        "segmenter": own_scores(generator, real),
    }
    return {
        "scores": scores,
        "groups": read_groups(real, test=True),
        "pairs": pair_scores(run, synthetic, real, by_real, cell.seed),
        "commit": json.loads((run / METADATA).read_text(encoding="utf-8"))["commit"],
    }


def train(cell: Cell, real: RawDataset) -> Path:
    """The folder of the cell's run, trained or finished."""
    run, done = cell.folder / real.name / f"fold_{cell.fold}", cell.folder / "trained.json"
    with locked(cell.folder.parent / f".{cell.folder.name}.train.lock"):  # two rows may use one generator
        if not kept(done, {"train": cell.words["train"]}):
            new = [*cell.words["train"], "--train.seed", cell.seed, "--train.clock", "cpu"]
            again = ["--resume"] if has_resume_state(run) else new
            cell.run("jdm-train", cell.id, cell.fold, "--budget-minutes", f"{cell.minutes:g}", *again)
            write_json(done, {"train": cell.words["train"]})
    return run


def export(cell: Cell, generator: Cell, real: RawDataset) -> RawDataset:
    """The cell's synthetic dataset, exported or finished, under the first free id."""
    file, key = cell.root / "ids.json", str(cell.folder.relative_to(cell.root))
    with locked(file.with_suffix(".lock")):
        ids = kept(file, {})
        if key not in ids:
            ids[key] = next(number for number in _IDS if number not in {*ids.values(), *used_ids()})
            write_json(file, ids)
    name = f"{real.name.partition('_')[2]}Ablation{ids[key]}"
    generator.run(
        "jdm-export", cell.id, cell.fold, "--id", ids[key], "--name", name, "--anyway", "--seed", cell.seed,
        *cell.words["export"],
    )  # fmt: skip
    return open_dataset(ids[key])


def nnunet_scores(cell: Cell, synthetic: RawDataset, arm: str, out: Path) -> dict[str, Any]:
    """Scores of one arm with the cell's seed. All rows share the arm `real`, which uses the first one's pairs only to
    start an experiment."""
    file = out / "scores" / f"{arm}_seed_{cell.seed}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(f"{out.name}.lock")):
        if not file.is_file():
            begun = out / "experiment.json"
            name = json.loads(begun.read_text(encoding="utf-8"))["synthetic"] if begun.is_file() else synthetic.name
            cell.run(
                "jdm-experiment", cell.id, "--synthetic", name, "--fold", cell.fold, "--arms", arm,
                "--seeds", cell.seed, "--out", out, *cell.words["experiment"],
            )  # fmt: skip
    return json.loads(file.read_text(encoding="utf-8"))


def own_scores(generator: Cell, real: RawDataset) -> dict[str, Any]:
    """Scores of the model's own segmentations of the test images."""
    file, out = generator.folder / "segmenter.json", generator.folder / "segmented"
    with locked(file.with_suffix(".lock")):
        if not file.is_file():
            generator.run(
                "jdm-sample", "segment", generator.id, generator.fold, real.folder / "imagesTs", "--samples", 1,
                "--out", out, "--overwrite",
            )  # fmt: skip
            references = real.folder / "labelsTs"
            found = evaluate_folders(out / "labels", references, "nnunet", labels=real.labels, distances=False)
            write_json(file, found.to_dict())
    return json.loads(file.read_text(encoding="utf-8"))


def write(options: Options) -> None:
    """ablations.json and ablations.md, of all cells that are finished or failed."""
    finished, failed = (
        [json.loads(file.read_text(encoding="utf-8")) for file in sorted(options.folder.glob(f"*/*/*/seed_*/{name}"))]
        for name in ("cell.json", "failed.json")
    )
    rows = summaries(finished)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "ablations.json", {"rows": rows, "failed": failed})
    write_text(options.out / "ablations.md", page(rows, failed))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

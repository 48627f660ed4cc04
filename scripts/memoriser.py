"""A generator that has memorised its training images, and whether the audit catches it.

Trains on few crops of a dataset of pictures for long, without augmentation and with the last weights, not those of the
least held-out loss; exports with its copies; and audits, beside crops of other images that were not trained on.

python scripts/memoriser.py 11 --id 791 --minutes 20 --out results/audit/memoriser
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from shared import about

import jdm
from jdm.cli import run_command
from jdm.cli.audit import AuditArguments, run
from jdm.data.raw_dataset import (
    RawDataset,
    dataset_name,
    nnunet_folder,
    open_dataset,
    read_case,
    read_dataset,
    write_case,
    write_json_like,
)
from jdm.evaluation.figures import pair_grid
from jdm.evaluation.set_audit import FLAGGED
from jdm.system.files import write_json
from jdm.train.checkpoint import WEIGHTS, run_folder


@dataclass(frozen=True)
class Options:
    """Train a memoriser and audit it."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A dataset of pictures with at least --trained + 2 cases."""
    id: int
    """Id of the dataset of crops; its pairs have the next one."""
    minutes: float = 20.0
    """CPU minutes of training."""
    trained: int = 8
    side: int = 64
    pairs: int = 24
    out: Path = Path("results/audit/memoriser")


def main(options: Options) -> None:
    """Make what is missing, and write audit.md, sheet.png and memoriser.json."""
    real = crops(options)
    if not (run_folder(real.name, "0") / WEIGHTS).is_file():
        settings = {"train": {"select": "last", "clock": "cpu"}, "augment": {"probability": 0.0}}
        jdm.train(jdm.TrainRequest(real.name, "0", budget_minutes=options.minutes, resume=True, settings=settings))
    name = dataset_name(options.id + 1, real.name.split("_", 1)[1] + "_syn")
    if not (nnunet_folder("nnUNet_raw") / name / "provenance.json").is_file():
        copies = {"keep_copies": True, "anyway": True, "margin": 100.0}
        jdm.export(jdm.ExportRequest(real.name, "0", id=options.id + 1, count=options.pairs, **copies))
    options.out.mkdir(parents=True, exist_ok=True)
    run(AuditArguments(name, real.name, out=options.out))
    write_numbers(options, open_dataset(name), real)


def crops(options: Options) -> RawDataset:
    """The central crops of all cases as a dataset of their own, in whose fold 0 the first ones are trained on."""
    source = open_dataset(options.dataset)
    folder = nnunet_folder("nnUNet_raw") / dataset_name(options.id, "Memoriser")
    if not (folder / "splits_final.json").is_file():
        for case in source.cases:
            pair = read_case(source, case)
            middle = tuple(slice((n - options.side) // 2, (n + options.side) // 2) for n in pair.label.shape)
            cut = dataclasses.replace(pair, image=pair.image[:, *middle], label=pair.label[middle])
            write_case(folder, cut, source.file_ending)
        write_json_like(folder, source, len(source.cases))
        trained, others = list(source.cases[: options.trained]), list(source.cases[options.trained :])
        write_json(folder / "splits_final.json", [{"train": trained, "val": others}])
    return read_dataset(folder)


def write_numbers(options: Options, made: RawDataset, real: RawDataset) -> None:
    """What was caught, and a sheet of pairs, each followed by the training image it is nearest to."""
    audit = json.loads((options.out / "audit.json").read_text(encoding="utf-8"))
    verdicts = audit["verdicts"]
    close = [each["case_id"] for each in verdicts if each["distance"] < 0.5]
    control = audit["copies"]["held_out"]
    numbers = {
        **about(), "pairs": len(verdicts), "copies": len(audit["copied"]), "near": len(close),
        "near_not_caught": sorted({*close} - {*audit["copied"]}), "held_out": audit["planes"]["held_out"],
        "held_out_flagged": control["copies"], "held_out_interval": control["copies_interval"],
        "held_out_as_stated": control["copies_interval"][0] <= FLAGGED, "membership": audit["membership"],
        "trained": options.trained, "cpu_minutes": options.minutes,
    }  # fmt: skip
    write_json(options.out / "memoriser.json", numbers)
    chosen = np.random.default_rng(0).permutation(len(verdicts))[:8]
    shown = [(read_case(made, verdicts[n]["case_id"]), read_case(real, verdicts[n]["nearest"])) for n in chosen]
    pair_grid([pair for both in shown for pair in both], options.out / "sheet.png", columns=2)


if __name__ == "__main__":
    chosen_options = tyro.cli(Options, description=__doc__)
    run_command(lambda: main(chosen_options))

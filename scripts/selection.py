"""Does it help nnU-Net to leave out or to select synthetic pairs? Four exports of one run and of equal size.

For each arm (none, gate, gate+hard, gate+diverse): export, then train nnU-Net on the pairs alone and on real and
synthetic cases together, and score it on the test set. The same command goes on where a killed one was.

python scripts/selection.py 11 0 --count 100 --first-id 781 --out results/selection
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import tyro
from shared import about

import jdm
from jdm.cli import run_command
from jdm.data.groups import read_groups
from jdm.data.raw_dataset import nnunet_folder, open_dataset
from jdm.errors import ExistsError
from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import write_json, write_text
from nnunet_integration.arms import ArmName, ExperimentOptions
from nnunet_integration.comparison import read_cells
from nnunet_integration.experiment import run_experiment

WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "gate": {"gate": 0.05},
    "gate+hard": {"gate": 0.05, "select": "hard", "keep": 0.5},
    "gate+diverse": {"gate": 0.05, "select": "diverse", "keep": 0.5},
}
TRAININGS: tuple[ArmName, ...] = ("synthetic", "mix")


@dataclass(frozen=True)
class Options:
    """Compare ways to choose synthetic pairs."""

    dataset: Annotated[str, tyro.conf.Positional]
    fold: Annotated[str, tyro.conf.Positional]
    count: int
    """Pairs of each export."""
    first_id: int
    """Id of the first export; the others follow."""
    out: Path = Path("results/selection")
    """Folder of DATASET.md and DATASET.json."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """nnU-Net trainings of each arm."""
    iterations: int | None = None
    """Updates of nnU-Net; default as in jdm-experiment."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    only: tuple[str, ...] = field(default_factory=lambda: tuple(WAYS))
    """Arms to run now."""


def main(options: Options) -> None:
    """Run what is missing, then write the table of all arms that are complete."""
    real = open_dataset(options.dataset)
    rows, scores = dict[str, Any](), dict[Any, Any]()
    for number, (name, choice) in enumerate(WAYS.items()):
        if name not in options.only:
            continue
        made = open_dataset(exported(options, options.first_id + number, choice))
        facts = json.loads((made.folder / "provenance.json").read_text(encoding="utf-8"))
        folder = options.out / "runs" / real.name / name
        arms: tuple[ArmName, ...] = TRAININGS if scores else ("real", *TRAININGS)
        run_experiment(
            ExperimentOptions(
                options.dataset, (made.name,), (options.fold,), arms, options.seeds, options.iterations,
                device=options.device, out=folder,
            )
        )  # fmt: skip
        rows[name] = {"pairs": len(made.cases), "seed": facts["seed"], "choice": facts.get("choice")}
        for arm in arms:
            files = {seed: folder / "scores" / f"{arm}_seed_{seed}.json" for seed in options.seeds}
            key = arm if arm == "real" else f"{name}, {arm}"
            scores[key] = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items()}
        labelled = any(files.label is not None for files in real.test_files.values())
        cells = read_cells(scores, read_groups(real, labelled))
        write_results(options, real.name, rows, cells)


def exported(options: Options, number: int, choice: dict[str, Any]) -> str:
    """Name of the arm's dataset, exported unless it is there. Raises: ExistsError if another one has its id."""
    request = jdm.ExportRequest(options.dataset, options.fold, id=number, count=options.count, **choice)
    found = sorted(nnunet_folder("nnUNet_raw").glob(f"Dataset{number:03d}_*/provenance.json"))
    if not found:
        return jdm.export(request).folder.name
    facts = json.loads(found[0].read_text(encoding="utf-8"))
    wanted = {"count": options.count, "gate": None, "select": None, "keep": 0.5, **choice}
    if other := [key for key, value in wanted.items() if facts.get(key) != value]:
        raise ExistsError(
            f"{found[0].parent.name} was exported with another {', '.join(other)}; expected this arm's; remove it, or "
            "choose another --first-id"
        )
    return found[0].parent.name


def write_results(options: Options, name: str, rows: dict[str, Any], cells: Any) -> None:
    """The table and its numbers, so far."""
    tests, lines, numbers = (len(WAYS) - 1) * len(TRAININGS), [], {}
    for arm in cells.scores:
        way, _, training = arm.partition(", ")
        mean = cells.mean(arm, "dice", cells.present)
        against = None
        if training and way != "none" and f"none, {training}" in cells.scores:
            against = cells.difference((arm, f"none, {training}"), "dice", cells.present, tests)
        choice = (rows.get(way) or {}).get("choice") or {}
        drawn = f"{choice['kept']} of {choice['passed']} of {choice['candidates']}" if choice else ""
        numbers[arm] = {"dice": mean, "minus_none": against}
        lines.append((arm, drawn, shown(mean), "" if against is None else shown(against, "+")))
    table = Table("", ("pairs, training", "kept of passed of drawn", "Dice", "minus none"), tuple(lines))
    circumstances = {**about(), "count": options.count, "seeds": list(options.seeds), "images": len(set(cells.images))}
    write_json(options.out / f"{name}.json", {**circumstances, "exports": rows, "arms": numbers})
    text = (
        f"# Selection of pairs of {name}\n\n{table_markdown(table)}\nMean Dice over cells (an image and a class) and "
        f"{len(options.seeds)} seeds, n = {circumstances['images']} images; in brackets 95 % intervals over patients "
        f"or images. {options.count} pairs in each export. `{circumstances['command']}`, commit "
        f"{circumstances['commit'][:10]}, {circumstances['hardware']}.\n"
    )
    write_text(options.out / f"{name}.md", text)


def shown(found: dict[str, Any], sign: str = "") -> str:
    return f"{found['mean']:{sign}.3f} [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    run_command(lambda: main(chosen))

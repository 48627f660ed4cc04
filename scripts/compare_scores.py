"""Arms of several experiments with one test set in one table: Dice, and each minus the first, paired over images.

python scripts/compare_scores.py 4 scores.md real=volumes/experiment:real volumes=volumes/experiment:synthetic

The folders are those that jdm-experiment wrote with labelled imagesTs; every arm needs the same seeds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import tyro
from shared import about

from jdm.cli import run_command
from jdm.data.groups import read_groups
from jdm.data.raw_dataset import open_dataset
from jdm.errors import ConfigError
from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import write_json, write_text
from nnunet_integration.comparison import read_cells


def main(
    real: tyro.conf.Positional[str], out: tyro.conf.Positional[Path], arms: tyro.conf.Positional[tuple[str, ...]]
) -> None:
    """Write the table, and its numbers as JSON beside it.

    Args:
        real: Id or name of the real dataset.
        out: Markdown file to write.
        arms: NAME=FOLDER:ARM of each.
    """
    dataset, found = open_dataset(real), {}
    for text in arms:
        parts = re.fullmatch("([^=]+)=(.+):([^:]+)", text)
        if parts is None:
            raise ConfigError(f"{text!r}: expected NAME=FOLDER:ARM, such as real=experiment_fold_0:real; correct it")
        files = {int(f.stem.rpartition("_")[2]): f for f in Path(parts[2]).glob(f"scores/{parts[3]}_seed_*.json")}
        if not files:
            raise ConfigError(
                f"{parts[2]}: has no scores of {parts[3]}; expected a finished experiment; correct the path"
            )
        found[parts[1]] = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in sorted(files.items())}
    cells = read_cells(found, read_groups(dataset, test=True))
    first, rows, numbers = next(iter(found)), [], {}
    for name in found:
        mean = cells.mean(name, "dice", cells.present)
        minus = None if name == first else cells.difference((name, first), "dice", cells.present, 1)
        numbers[name] = {"dice": mean, "minus_first": minus}
        rows.append((name, _shown(mean, ".4f"), "" if minus is None else _shown(minus, "+.4f")))
    count = f"{len(set(cells.images))} images, {len(found[first])} seeds; 95 % intervals over images"
    write_json(out.with_suffix(".json"), {**about(), "arms": numbers})
    table = table_markdown(Table("Dice", ("trained on", "Dice", f"minus {first}"), tuple(rows)))
    write_text(out, "\n\n".join([table, f"{count}.", "`{command}` at {commit}, {hardware}.".format(**about())]) + "\n")
    print(table)


def _shown(numbers: dict[str, float], form: str) -> str:
    return f"{numbers['mean']:{form}} [{numbers['low']:{form}}, {numbers['high']:{form}}]"


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, description=__doc__))

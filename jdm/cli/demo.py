"""`jdm-demo`: the four commands on one annotated field of nuclei, and a report of the results."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from jdm.cli import run_command

REAL, SYNTHETIC = (1, "Dataset001_Nuclei"), (501, "Dataset501_Nuclei_syn")
_EPOCHS = 10


@dataclass(frozen=True)
class DemoOptions:
    """Convert, train, export and evaluate on one field of nuclei: train on the left half, test on the right half.

    Prints each command before running it. Needs the extra "demo". All files go below --out.
    """

    out: Path = Path("demo_run")
    """Folder for everything the demo makes."""
    budget_minutes: float = 5.0
    """Minutes of training for the generator."""
    ratio: float = 5.0
    """Synthetic pairs per training tile."""
    iterations: int = 120
    """Updates on real tiles, and updates on synthetic tiles, in each arm of the comparison."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the comparison; each takes the same time."""
    overwrite: bool = False
    """Discard an earlier demo in --out."""


@dataclass(frozen=True)
class Step:
    """One command of the demo, as typed, and how long it took."""

    command: str
    seconds: float


def main() -> None:
    """Entry point of `jdm-demo`."""
    import tyro

    options = tyro.cli(DemoOptions, prog="jdm-demo")
    run_command(lambda: run(options))


def run(options: DemoOptions) -> None:
    """Make the pictures, run the commands, write the report, print table and path."""
    from jdm.cli.demo_field import read_field, write_tiles
    from jdm.report.demo import STEPS
    from jdm.report.folder import report_folder
    from jdm.system.files import write_json

    image, mask = read_field()
    out = claim(options.out.resolve(), options.overwrite)
    write_tiles(out / "pictures", image, mask)
    folders = {name: out / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "jdm_results")}
    for folder in folders.values():
        folder.mkdir()
    setup = [f"cd {shlex.quote(str(out))}", *(f"export {name}=$PWD/{name}" for name in folders)]
    print("\n".join(f"$ {line}" for line in setup))
    variables = {name: str(folder) for name, folder in folders.items()}
    steps = [call(command, out, variables) for command in commands(options)]
    write_json(out / STEPS, {"setup": setup, "steps": [asdict(step) for step in steps]})
    print("", *_tables(folders["jdm_results"]), f"Report: {report_folder(out)}", sep="\n")


def _tables(results: Path) -> list[str]:
    """The verdict and the tables of the demo's experiment, in Markdown."""
    from jdm.evaluation.tables import table_markdown
    from jdm.report.experiment import RESULTS
    from jdm.report.read import read_object
    from nnunet_integration.report import tables

    found = read_object(results / REAL[1] / "experiment_fold_all" / RESULTS)
    return [f"{found['verdict']}\n", *map(table_markdown, tables(found))]


def commands(options: DemoOptions) -> list[list[str]]:
    """The four commands, as typed inside --out."""
    real, synthetic = str(REAL[0]), str(SYNTHETIC[0])
    return [
        ["jdm-convert", "pairs", "--id", real, "--name", "Nuclei",
         "--images", "pictures/train/images", "--masks", "pictures/train/masks",
         "--test-images", "pictures/test/images", "--test-masks", "pictures/test/masks",
         "--labels", "0=background", "255=nuclei"],
        ["jdm-train", real, "all", "--budget-minutes", f"{options.budget_minutes:g}"],
        # --anyway: the report shows the pairs even after a very short training
        ["jdm-export", real, "all", "--ratio", str(options.ratio), "--id", synthetic, "--anyway"],
        ["jdm-experiment", real, "--synthetic", synthetic, "--fold", "all",
         "--iterations", str(options.iterations), "--epochs", str(min(_EPOCHS, options.iterations)),
         "--seeds", *map(str, options.seeds)],
    ]  # fmt: skip


def claim(out: Path, overwrite: bool) -> Path:
    """Make `out` an empty folder marked as a demo's.

    Raises: ExistsError if it is not empty, unless it holds an earlier demo and `overwrite` is given.
    """
    from jdm.errors import ExistsError
    from jdm.report.folder import DEMO

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not (out / DEMO).is_file():
            raise ExistsError(
                f"{out} exists and was not made by jdm-demo; expected a new or empty folder; choose another --out"
            )
        if not overwrite:
            raise ExistsError(f"{out} holds a demo already; expected none; choose another --out, or add --overwrite")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / DEMO).write_text("Made by jdm-demo; open report.html.\n", encoding="utf-8")
    return out


def call(command: list[str], folder: Path, variables: dict[str, str]) -> Step:
    """Print a command and run it in `folder`, with nnU-Net's folders set for it alone.

    Raises: JdmError if it fails, after it has printed its own message.
    """
    from jdm.errors import JdmError

    print(f"\n$ {shlex.join(command)}", flush=True)
    program = Path(sys.executable).with_name(command[0])
    start = time.monotonic()
    done = subprocess.run(
        [str(program) if program.exists() else command[0], *command[1:]],
        cwd=folder,
        env={"OMP_WAIT_POLICY": "passive", **os.environ, **variables},
        check=False,
    )
    if done.returncode:
        raise JdmError(f"{command[0]} ended with status {done.returncode}; expected 0; its message is above")
    return Step(shlex.join(command), time.monotonic() - start)

"""The thesis's experiments on one dataset, as a chain of jdm's commands, and its tables with the published numbers.

Used by benchmark_nuclei.py and benchmark_polyp.py. A killed run goes on where it stopped when the command is repeated.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import tyro
from shared import about

from jdm.data.raw_dataset import RawDataset, open_dataset
from jdm.data.raw_layout import results_folder
from jdm.errors import JdmError
from jdm.evaluation.metrics import evaluate_folders
from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import write_json, write_text

CONVENTIONS = ("thesis", "pranet")
ARMS = ("real", "real-long", "synthetic", "pretrain-finetune")
_PUBLISHED = Path(__file__).with_name("published.json")
_PANELS = 12


@dataclass(frozen=True)
class Options:
    """How much of the thesis's experiments to run."""

    out: Path
    """Folder for the tables and figures."""
    id: int
    """Id of the real dataset; id + 500 and id + 600 are the synthetic ones."""
    ratios: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X ...")] = (1.0, 2.5, 5.0, 10.0)
    """Amounts of synthetic pairs, in amounts of real ones."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (0, 1, 2)
    budget_minutes: float = 60.0
    """Minutes of training the generator."""
    iterations: int = 2000
    """Updates of nnU-Net on real cases, and as many on synthetic ones."""
    preset: str = "default"
    """thesis: the thesis's network, process and steps of training (no budget). Meant for a GPU."""
    quick: bool = False
    """A few minutes of training and updates, two amounts, one seed: whether everything runs, not what it gives."""

    def settled(self) -> Options:
        if not self.quick:
            return self
        return Options(self.out, self.id, (0.5, 1.0), self.seeds[:1], 2.0, 40, self.preset, True)


@dataclass(frozen=True)
class Benchmark:
    """A dataset of the thesis, and where its numbers are."""

    title: str
    convert: Sequence[str]
    """jdm-convert's arguments without the id."""
    tests: Mapping[str, str]
    """Test sets by the beginning of their cases' ids."""
    alone: Sequence[str] = ()
    """Tables of published.json on synthetic pairs alone."""
    pretrained: Sequence[str] = ()
    """Tables of published.json on pretraining with them."""
    train: Sequence[str] = ()
    """Further flags of jdm-train."""
    export: Sequence[str] = ()
    experiment: Sequence[str] = ()
    done: list[str] = field(default_factory=list)
    """Commands that were run."""

    def run(self, options: Options) -> None:
        """Convert, train, export, compare, and write results.md, results.json and figures to the folder `out`."""
        options = options.settled()
        real = self._dataset(options.id, ["jdm-convert", *self.convert, "--id", str(options.id)])
        most, made = max(options.ratios), str(options.id + 500)
        limit = [] if options.preset == "thesis" else ["--budget-minutes", f"{options.budget_minutes:g}"]
        self._call("jdm-train", str(options.id), "0", "--preset", options.preset, *limit, *self.train, "--resume")
        anyway = ["--anyway"] if options.quick else []
        self._call("jdm-export", str(options.id), "0", "--ratio", f"{most:g}", "--id", made, *self.export, *anyway)
        ratios, seeds = (map(str, values) for values in (options.ratios, options.seeds))
        self._call(
            "jdm-experiment", str(options.id), "--synthetic", made, "--arms", *ARMS, "--ratios", *ratios,
            "--seeds", *seeds, "--iterations", str(options.iterations), *self.experiment,
        )  # fmt: skip
        masks = ["--given-masks", "real", "--name", f"{real.name.split('_', 1)[1]}_given", "--no-audit", *anyway]
        given = str(options.id + 600)
        self._call("jdm-export", str(options.id), "0", "--count", str(_PANELS), "--id", given, *self.export, *masks)
        for dataset, name in ((made, "pairs"), (given, "given_masks")):
            sheet = [
                str(Path(__file__).with_name("pair_sheet.py")),
                dataset,
                str(_PANELS),
                str(options.out / f"{name}.png"),
            ]
            subprocess.run([sys.executable, *sheet, "0", "--crop", "256"], check=True, stdout=subprocess.DEVNULL)
        self._write(options, real)

    def _dataset(self, number: int, command: list[str]) -> RawDataset:
        try:
            return open_dataset(number)
        except JdmError:
            self._call(*command)
        return open_dataset(number)

    def _call(self, *command: str) -> None:
        print("$", *command, flush=True)
        self.done.append(" ".join(command))
        program = Path(sys.executable).with_name(command[0])
        status = subprocess.run([str(program), *command[1:]], check=False).returncode
        if status:
            raise SystemExit(status)

    def _write(self, options: Options, real: RawDataset) -> None:
        folder = results_folder() / real.name / "experiment_fold_0"
        ours = scores(folder, options, self.tests, real)
        published = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
        pages = [f"# {self.title}", "", _note(options), ""]
        for numbers, arm, what in (
            (self.alone, "synthetic", "Synthetic pairs alone"),
            (self.pretrained, "pretrain-finetune", "Pretrained on synthetic pairs, finetuned on real ones"),
        ):
            theirs = merged([published["tables"][number]["rows"] for number in numbers])
            pages += [table_markdown(table(what, theirs, ours, arm, options, list(self.tests))), ""]
            curves(options.out / f"{arm}.png", theirs, ours, arm, options, list(self.tests))
        pages += ["nnU-Net's own report, by its convention and with intervals: [experiment.md](experiment.md).", ""]
        pages += [f"Published: {published['source']}.", *(f"{note}" for note in published["notes"]), ""]
        pages += ["```", *self.done, "```", ""]
        shutil.copyfile(folder / "results.md", options.out / "experiment.md")
        for picture in sorted((folder / "pictures").glob("*.png"))[:2]:
            shutil.copyfile(picture, options.out / f"test_{picture.name}")
        write_json(options.out / "results.json", {**about(), "commands": self.done, "scores": ours})
        circumstances = about()
        pages.append(f"`{circumstances['command']}` at commit {circumstances['commit']}, {circumstances['hardware']}.")
        write_text(options.out / "results.md", "\n".join(pages) + "\n")


def _note(options: Options) -> str:
    kind = "A quick run, which shows that everything works and nothing else. " if options.quick else ""
    return (
        f"{kind}mDice and mIoU in %, foreground against background, means over images and over {len(options.seeds)} "
        "seed(s), at the images' own size. `thesis`: masks are compared as they are; `pranet`: at 256 thresholds. "
        "The published numbers are of networks trained for hundreds of epochs on images resized to 256 or 512 pixels."
    )


Scores = dict[str, dict[str, dict[str, dict[str, float]]]]
"""mDice and mIoU in per cent by row (arm and amount), test set and convention."""


def scores(folder: Path, options: Options, tests: Mapping[str, str], real: RawDataset) -> Scores:
    """Score the stored predictions of an experiment by each convention, test set by test set."""
    found: Scores = {}
    for ratio in options.ratios:
        for arm in ARMS:
            place = folder / "predictions" / f"ratio_{ratio:g}" / arm
            if place.is_dir():
                row = arm if arm.startswith("real") else f"{arm} {ratio:g}"
                found[row] = _means(place, folder / "references", options, tests, real)
    return found


def _means(
    place: Path, references: Path, options: Options, tests: Mapping[str, str], real: RawDataset
) -> dict[str, dict[str, dict[str, float]]]:
    values: dict[tuple[str, str, str], list[float]] = {}
    for seed in options.seeds:
        for convention in CONVENTIONS:
            evaluation = evaluate_folders(
                place / f"seed_{seed}", references, convention, labels=real.labels, distances=False
            )
            for case in evaluation.cases:
                for name, start in tests.items():
                    if case.case_id.startswith(start):
                        values.setdefault((name, convention, "mDice"), []).append(case.dice)
                        values.setdefault((name, convention, "mIoU"), []).append(case.iou)
    return {
        name: {
            convention: {
                measure: round(100 * float(np.mean(values[name, convention, measure])), 2)
                for measure in ("mDice", "mIoU")
            }
            for convention in CONVENTIONS
        }
        for name in tests
    }


def merged(tables: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Rows of tables on several test sets, joined by name."""
    rows: dict[str, dict[str, Any]] = {}
    for found in tables:
        for name, row in found.items():
            rows.setdefault(name, {}).update(row)
    return rows


def table(
    title: str, theirs: Mapping[str, Any], ours: Scores, arm: str, options: Options, tests: Sequence[str]
) -> Table:
    """Published rows, then ours by each convention; columns mDice / mIoU per test set."""
    rows = [(f"published: {name}", *(_cell(row.get(test)) for test in tests)) for name, row in theirs.items()]
    wanted = {"real": "nnU-Net", "real-long": "nnU-Net, as many updates as pretraining and finetuning"}
    wanted |= {f"{arm} {ratio:g}": f"{100 * ratio:g} %" for ratio in options.ratios}
    for name, shown in wanted.items():
        for convention in CONVENTIONS if name in ours else ():
            cells = (_cell(ours[name].get(test, {}).get(convention)) for test in tests)
            rows.append((f"ours ({convention}): {shown}", *cells))
    return Table(title, ("", *(f"{test}, mDice / mIoU" for test in tests)), tuple(rows))


def _cell(found: Mapping[str, float] | None) -> str:
    return "" if not found else f"{found['mDice']:.2f} / {found['mIoU']:.2f}"


def curves(
    out: Path, theirs: Mapping[str, Any], ours: Scores, arm: str, options: Options, tests: Sequence[str]
) -> None:
    """mDice against the amount of synthetic pairs, ours and published, with the lines of real data (Figs 5.4, 5.5)."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tests), figsize=(4 * len(tests), 3), squeeze=False, layout="constrained")
    for axis, test in zip(axes[0], tests, strict=True):
        amounts = [100 * ratio for ratio in options.ratios]
        axis.plot(amounts, [ours[f"{arm} {r:g}"][test]["thesis"]["mDice"] for r in options.ratios], "o-", label="ours")
        axis.axhline(ours["real"][test]["thesis"]["mDice"], ls="--", label="ours, real data")
        points = [
            (float(name.rstrip(" %").split()[-1]), row[test]["mDice"])
            for name, row in theirs.items()
            if name.endswith("%") and test in row
        ]
        real = [row[test]["mDice"] for name, row in theirs.items() if name in ("real", "nnU-Net") and test in row]
        if points:
            axis.plot(*zip(*points, strict=True), "s-", color="grey", label="published")
        if real:
            axis.axhline(real[0], ls="--", color="grey", label="published, real data")
        axis.set(title=test, xlabel="synthetic pairs, % of the real ones", ylabel="mDice, %")
    axes[0][0].legend(fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    plt.close(figure)

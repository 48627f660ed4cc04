"""Quality against network evaluations for every sampler: the numbers of results/steps_vs_quality.

Pairs are judged by the network of the arm `real` of a finished jdm-experiment: kernel distance of its features (KID),
agreement of its segmentation with the pair's mask, distance of foreground shares. The starting noises are the same for
all samplers, and degenerate pairs are not drawn again. What is measured is kept under jdm_results, so that an
interrupted run goes on, and more samplers or evaluations can be added.

python scripts/steps_vs_quality.py 4 all --out results/steps_vs_quality
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import numpy as np
import tyro
from segmenter import as_volume, real_arm
from shared import about, counted, first_draws, kept
from step_quality import Judged, real_scores, sampler_scores, steps_by_evaluations
from step_report import draw_steps, fewest_evaluations, step_table
from tqdm import tqdm

from jdm.cli import run_command
from jdm.config.samplers import Sampler
from jdm.config.settings import Config
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset
from jdm.data.splits import fold_split
from jdm.draw.run import Run, open_run
from jdm.errors import ConfigError, DataError
from jdm.evaluation.metrics import count
from jdm.export.amount import Order, order_of
from jdm.export.pairs import PairFactory
from jdm.export.request import ExportRequest
from jdm.plan.survey import class_shares
from jdm.system.files import write_json, write_text
from nnunet_integration.segmenter import Segmenter

Pairs = Iterator[tuple[int, np.ndarray, np.ndarray]]
"""Number of the case, image (channels, *axes), label (*axes)."""


@dataclass(frozen=True)
class Options:
    """Measure what samplers give for their network evaluations."""

    dataset: Annotated[str, tyro.conf.Positional]
    """Id or name of the real dataset."""
    fold: Annotated[str, tyro.conf.Positional]
    """Fold of the checkpoint."""
    out: Path
    """Folder for results.json, results.md and steps_vs_quality.png."""
    pairs: int = 128
    """Synthetic pairs per sampler and number of steps."""
    evaluations: tuple[int, ...] = (5, 10, 15, 20, 35, 50, 100, 250, 1000)
    """Network evaluations per pair; each sampler takes the most steps that need no more."""
    samplers: tuple[Sampler, ...] = get_args(Sampler)
    """Those that do not serve the checkpoint are left out."""
    batch_size: int = 32
    real_images: int = 600
    """Real images of each kind, at most."""
    seed: int = 0
    experiment: Path | None = None
    """Folder of the experiment whose real-trained network judges, where it is not the usual one."""
    experiment_seed: int = 0
    work: Path | None = None
    """Folder for what is measured. Default: steps_vs_quality_fold_F in the dataset's folder under jdm_results."""
    device: str = "cpu"


def main(options: Options) -> None:
    """Measure what is missing, then write the results of all that is there."""
    run = open_run(options.dataset, options.fold)
    dataset, checkpoint = run.real_for("scripts/steps_vs_quality.py"), run.checkpoint
    arm = real_arm(options.experiment or run.folder.parent / f"experiment_{run.folder.name}", options.experiment_seed)
    work = options.work or run.folder.parent / f"steps_vs_quality_{run.folder.name}"
    settings = {
        "checkpoint_sha256": checkpoint.sha256, "checkpoint_step": checkpoint.metadata["step"],
        "judge": arm.parent.name, "judge_seed": options.experiment_seed, "pairs": options.pairs,
        "batch_size": options.batch_size,
        "real_images": options.real_images, "seed": options.seed, "canvas_size": run.config.data.patch_size,
    }  # fmt: skip
    kept(work / "settings.json", settings)
    write_json(work / "settings.json", settings)
    judge = Judge(run.config, Segmenter(arm, options.device, work / "nnunet.log"))
    training, other = real_images(judge, run, dataset, options, work)
    for order in orders(run, options):
        measure(judge, PairFactory(run, order, options.device), work)
    write(options.out, work, settings, dataset, training, other)


@dataclass(frozen=True)
class Judge:
    """The real-trained network, on images and slices as jdm's plan has them."""

    config: Config
    segmenter: Segmenter

    def __call__(self, pairs: Pairs) -> Judged:
        """What it says about each pair, every image normalised by itself."""
        classes = self.config.facts.classes
        features, overlap, shares, cases = [], [], [], []
        for case, image, label in pairs:
            predicted, found = self.segmenter(*as_volume(image[None], self.config))
            predicted = predicted.reshape(label.shape)
            features.append(found)
            overlap.append([count(predicted == k, label == k)[:3] for k in range(1, classes)])
            shares.append(class_shares(label, classes)[1:])
            cases.append(case)
        return Judged(*(np.array(values) for values in (features, overlap, shares, cases)))


def real_images(judge: Judge, run: Run, dataset: RawDataset, options: Options, work: Path) -> tuple[Judged, Judged]:
    """The judged training images, and other real ones: of the test set, or held out where it has no labels."""
    metadata = run.checkpoint.metadata
    test = [case for case, files in sorted(dataset.test_files.items()) if files.label is not None]
    fold: int | str = options.fold if options.fold == "all" else int(options.fold)
    held_out = sorted({*metadata["held_out_ids"], *fold_split(dataset, fold)[1]} - {*metadata["training_ids"]})
    if not (test or held_out):
        raise DataError(f"{dataset.name} has no labelled image beside the training ones; expected some; add labelsTs")
    found = []
    for name, ids, of_test in (("training", metadata["training_ids"], False), ("other", test or held_out, bool(test))):
        file = work / f"{name}.npz"
        if not file.is_file():
            pairs = PairDataset(dataset, ids, run.config, test=of_test)
            judge(stored(pairs, options.real_images, name)).save(file)
        found.append(Judged.load(file))
    return found[0], found[1]


def stored(pairs: PairDataset, most: int, name: str) -> Pairs:
    """Real pairs as a perfect sample is stored: cropped to the sample's size and clipped to the codec's range."""
    rng, size = np.random.default_rng(0), pairs.config.data.patch_size
    ids = list(dict.fromkeys(item.case_id for item in pairs.items))
    for index in tqdm(np.sort(rng.permutation(len(pairs))[:most]), desc=f"{name} images", disable=None):
        fitting = tuple(min(side, whole) for side, whole in zip(size, pairs.item_shape(index), strict=True))
        image, label = pairs.codec.decode(pairs.codec.encode(*pairs.crop(index, fitting, rng)))
        yield ids.index(pairs.items[index].case_id), image, label


def orders(run: Run, options: Options) -> list[Order]:
    """What is to be sampled, cheapest first, each number of steps of a sampler once; at the size of training, without
    windows."""
    found = {}
    for sampler in options.samplers:
        request = ExportRequest(
            str(run.folder), id=1, count=options.pairs, canvas_size=run.config.data.patch_size, sampler=sampler,
            seed=options.seed, batch_size=options.batch_size,
        )  # fmt: skip
        try:
            usual = order_of(run.checkpoint, request)
        except ConfigError as refusal:
            print(f"{sampler} is left out: {refusal}", flush=True)
            continue
        for number, steps in steps_by_evaluations(run.config, usual, options.evaluations).items():
            order = order_of(run.checkpoint, replace(request, steps=steps))
            found.setdefault((sampler, steps), (number, order))
    return [order for _, order in sorted(found.values(), key=lambda pair: pair[0])]


def measure(judge: Judge, factory: PairFactory, work: Path) -> None:
    """Sample and judge the pairs of an order, unless that is done."""
    way, pairs = factory.order.way, factory.order.count
    name = f"{way.sampler}_{way.steps:04d}"
    if (work / f"{name}.json").is_file():
        return
    print(name, flush=True)
    calls, started = counted(factory.drawer.denoiser), time.process_time()
    drawn = first_draws(factory)
    seconds = time.process_time() - started
    judge((number, *pair) for number, pair in enumerate(drawn)).save(work / f"{name}.npz")
    cost = {"evaluations": round(sum(calls) / pairs, 2), "seconds_per_pair": round(seconds / pairs, 4)}
    write_json(work / f"{name}.json", {"sampler": way.sampler, "steps": way.steps, **cost, **about()})


def write(out: Path, work: Path, settings: dict, dataset: RawDataset, training: Judged, other: Judged) -> None:
    """results.json, results.md and the plot, of everything measured in `work`."""
    facts = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(work.glob("*_[0-9][0-9][0-9][0-9].json"))]
    took = ("sampler", "steps", "evaluations", "seconds_per_pair")
    rows = [
        ({key: one[key] for key in took}, Judged.load(work / f"{one['sampler']}_{one['steps']:04d}.npz"))
        for one in facts
    ]
    if not rows:
        raise ConfigError("nothing was measured; expected a sampler and evaluations it can do; raise --evaluations")
    names = [name for name, value in sorted(dataset.labels.items(), key=lambda label: label[1]) if value > 0]
    scores = sampler_scores(rows, training, other, names)
    real = real_scores(training, other, settings["pairs"])
    content = {
        "command": about()["command"],
        "commit": sorted({one["commit"] for one in facts}),
        "hardware": sorted({one["hardware"] for one in facts}),
        "dataset": dataset.name,
        **settings,
        "images": {
            name: {
                "images": len(judged), "cases": len(np.unique(judged.cases)),
                "mean_share": dict(zip(names, judged.shares.mean(0).tolist(), strict=True)),
            }
            for name, judged in (("training", training), ("other", other))
        },
        "real": {name: {m: e._asdict() for m, e in metrics.items()} for name, metrics in real.items()},
        "fewest_evaluations": fewest_evaluations(scores),
        "rows": scores,
    }  # fmt: skip
    write_json(out / "results.json", content)
    write_text(out / "results.md", text(content, step_table(scores, real)))
    draw_steps(scores, real, out / "steps_vs_quality.png")


def text(content: dict, table: str) -> str:
    """The page: what was compared, the table, and how to read it."""
    images, best = content["images"], content["fewest_evaluations"]
    chosen = (
        f"Fewest evaluations that tie with the best in all three: {best['sampler']}, {best['steps']} steps, "
        f"{best['evaluations']:g} evaluations."
        if best
        else "No row ties with the best in all three."
    )
    return f"""# Quality against network evaluations: {content["dataset"]}

![three plots over network evaluations per pair](steps_vs_quality.png)

{table}
{content["pairs"]} pairs per row, the same starting noises in all; step {content["checkpoint_step"]} of the generator.
Intervals of 95 %, resampled over pairs; \\* cannot be told from the best row (paired). {chosen}

- Kernel distance: squared MMD, unbiased, kernel (x.y/d + 1)^3 (as in KID), of the spatial means of the encoder of an
  nnU-Net trained on real cases only, standardised by the training images, to {images["other"]["images"]} other real
  images of {images["other"]["cases"]} cases.
- Agreement: Dice of that network's segmentation and the pair's mask, all pairs pooled, mean over classes.
- Share distance: Wasserstein-1 distance of the share of pixels (%) per image, mean over foreground classes, to the same
  other images.
- Training images: sets of as many of the generator's own {images["training"]["images"]} training images. Other real
  images: sets from one half of the other cases against the other half. Their intervals are ranges over 200 sets.

| | |
|---|---|
| command | `{content["command"]}` |
| commit | {", ".join(content["commit"])} |
| hardware | {", ".join(content["hardware"])} |
"""


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

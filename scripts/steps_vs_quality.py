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
from typing import Annotated, get_args, get_type_hints

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import numpy as np
import tyro
from export_evaluations import counted, steps_by_evaluations
from jdm.plan.foreground import foreground_shares
from segmenter import Segmenter, real_arm
from step_quality import Judged, Measured, real_scores, sampler_scores
from step_report import draw_steps, fewest_evaluations, step_table
from tqdm import tqdm

from jdm.cli import run_command
from jdm.config.settings import Config
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset, open_dataset
from jdm.data.splits import fold_split
from jdm.errors import ConfigError, DataError
from jdm.evaluation.metrics import count
from jdm.export.pairs import PairFactory, case_seed, stored_pair
from jdm.export.request import ExportRequest, check_request
from jdm.system.files import write_json
from jdm.system.machine import describe_run
from jdm.train.checkpoint import Checkpoint, differences, load_checkpoint, run_folder

Pairs = Iterator[tuple[int, np.ndarray, np.ndarray]]
"""Number of the case, image (channels, *axes), label (*axes)."""
SAMPLERS: tuple[str, ...] = get_args(get_type_hints(ExportRequest)["sampler"])


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
    most: int = 1000
    """Leave out larger numbers of evaluations."""
    samplers: tuple[str, ...] = SAMPLERS
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
    dataset = open_dataset(options.dataset)
    run = run_folder(dataset.name, options.fold)
    checkpoint = load_checkpoint(run)
    arm = real_arm(options.experiment or run.parent / f"experiment_fold_{options.fold}", options.experiment_seed)
    work = options.work or run.parent / f"steps_vs_quality_fold_{options.fold}"
    settings = {
        "checkpoint_sha256": checkpoint.sha256, "checkpoint_step": checkpoint.metadata["step"],
        "judge": arm.parent.name, "judge_seed": options.experiment_seed, "pairs": options.pairs,
        "batch_size": options.batch_size,
        "real_images": options.real_images, "seed": options.seed, "canvas_size": list(canvas(checkpoint.config)),
    }  # fmt: skip
    claim(work, settings)
    judge = Judge(checkpoint.config, Segmenter(arm, options.device, work / "nnunet.log"))
    training, other = real_images(judge, checkpoint, dataset, options, work)
    for request in requests(checkpoint, options):
        measure(judge, checkpoint, dataset, request, work, options)
    write(options.out, work, settings, dataset, training, other)


def claim(work: Path, settings: dict) -> None:
    """Raises: ConfigError if `work` holds what was measured with other settings."""
    file = work / "settings.json"
    if file.is_file() and (lines := differences(settings, json.loads(file.read_text(encoding="utf-8")))):
        raise ConfigError(f"{work} was measured with other settings: {'; '.join(lines)}; choose another --work")
    write_json(file, settings)


def canvas(config: Config) -> tuple[int, ...]:
    """Size of a sample: that of training, without windows."""
    return config.data.patch_size


@dataclass(frozen=True)
class Judge:
    """The real-trained network, on images and slices as jdm's plan has them."""

    config: Config
    segmenter: Segmenter

    def __call__(self, pairs: Pairs) -> Judged:
        """What it says about each pair, every image normalised by itself."""
        classes = self.config.codec.classes
        features, overlap, shares, cases = [], [], [], []
        for case, image, label in pairs:
            predicted, found = self.segmenter(*self._volume(image))
            predicted = predicted.reshape(label.shape)
            features.append(found)
            overlap.append([count(predicted == k, label == k)[:3] for k in range(1, classes)])
            shares.append(foreground_shares(label, classes)[1:])
            cases.append(case)
        return Judged(*(np.array(values) for values in (features, overlap, shares, cases)))

    def _volume(self, image: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
        """The image as nnU-Net reads one of its dataset: (channels, z, y, x) and spacing."""
        data = self.config.data
        if data.dims == 3:
            return image, data.spacing
        if data.slice_axis is None:
            return image[:, None], (999.0, *data.spacing)
        axis = data.slice_axis
        spacing = (*data.spacing[:axis], data.slice_spacing, *data.spacing[axis:])
        return np.expand_dims(image, axis + 1), spacing


def real_images(
    judge: Judge, checkpoint: Checkpoint, dataset: RawDataset, options: Options, work: Path
) -> tuple[Judged, Judged]:
    """The judged training images, and other real ones: of the test set, or held out where it has no labels."""
    metadata = checkpoint.metadata
    test = [case for case, files in sorted(dataset.test_files.items()) if files.label is not None]
    fold: int | str = options.fold if options.fold == "all" else int(options.fold)
    held_out = sorted({*metadata["held_out_ids"], *fold_split(dataset, fold)[1]} - {*metadata["training_ids"]})
    if not (test or held_out):
        raise DataError(f"{dataset.name} has no labelled image beside the training ones; expected some; add labelsTs")
    found = []
    for name, ids, of_test in (
        ("training", list(metadata["training_ids"]), False),
        ("other", test or held_out, bool(test)),
    ):
        file = work / f"{name}.npz"
        if not file.is_file():
            pairs = PairDataset(dataset, ids, checkpoint.config, test=of_test)
            judge(stored(pairs, options.real_images, name)).save(file)
        found.append(Judged.load(file))
    return found[0], found[1]


def stored(pairs: PairDataset, most: int, name: str) -> Pairs:
    """Real pairs as a perfect sample is stored: cropped to the sample's size and clipped to the codec's range."""
    rng, size = np.random.default_rng(0), canvas(pairs.config)
    ids = list(dict.fromkeys(item.case_id for item in pairs.items))
    for index in tqdm(np.sort(rng.permutation(len(pairs))[:most]), desc=f"{name} images", disable=None):
        fitting = tuple(min(side, whole) for side, whole in zip(size, pairs.item_shape(index), strict=True))
        image, label = stored_pair(pairs.codec, pairs.codec.encode(*pairs.crop(index, fitting, rng)))
        yield ids.index(pairs.items[index].case_id), image, label


def requests(checkpoint: Checkpoint, options: Options) -> list[ExportRequest]:
    """What is asked for, cheapest first, each number of steps of a sampler once."""
    config, found = checkpoint.config, {}
    if unknown := [name for name in options.samplers if name not in SAMPLERS]:
        raise ConfigError(f"--samplers has {', '.join(unknown)}; expected some of {', '.join(SAMPLERS)}; correct it")
    for sampler in options.samplers:
        request = ExportRequest(
            1, "steps", options.pairs, canvas(config), sampler=sampler, seed=options.seed, batch_size=options.batch_size
        )
        try:
            check_request(config, request)
        except ConfigError as refusal:
            print(f"{sampler} is left out: {refusal}", flush=True)
            continue
        wanted = [number for number in options.evaluations if number <= options.most]
        most_steps = config.diffusion.steps if sampler == "ancestral" else 1000
        for number, steps in steps_by_evaluations(checkpoint, request, wanted, most_steps).items():
            found.setdefault((sampler, steps), (number, replace(request, steps=steps)))
    return [request for _, request in sorted(found.values(), key=lambda pair: pair[0])]


def measure(
    judge: Judge, checkpoint: Checkpoint, dataset: RawDataset, request: ExportRequest, work: Path, options: Options
) -> None:
    """Sample and judge the pairs of a request, unless that is done."""
    name = f"{request.sampler}_{request.steps:04d}"
    if (work / f"{name}.json").is_file():
        return
    factory = PairFactory(checkpoint, dataset, request, options.device)
    calls, samples, seconds = counted(factory.drawer.denoiser), [], 0.0
    for first in tqdm(range(0, request.count, request.batch_size), desc=name, unit="batch", disable=None):
        numbers = range(first, min(first + request.batch_size, request.count))
        started = time.process_time()
        samples.extend(factory.sample([case_seed(request.seed, number, 0) for number in numbers]))
        seconds += time.process_time() - started
    pairs = ((number, *factory.decoded(number, sample)) for number, sample in enumerate(samples))
    judge(pairs).save(work / f"{name}.npz")
    about = describe_run()
    cost = {"evaluations": round(sum(calls) / request.count, 2), "seconds": seconds / request.count}
    facts = {"sampler": request.sampler, "steps": request.steps, **cost}
    write_json(work / f"{name}.json", {**facts, "commit": about.commit, "hardware": about.hardware})


def write(out: Path, work: Path, settings: dict, dataset: RawDataset, training: Judged, other: Judged) -> None:
    """results.json, results.md and the plot, of everything measured in `work`."""
    facts = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(work.glob("*_[0-9][0-9][0-9][0-9].json"))]
    rows = [
        Measured(
            one["sampler"], one["steps"], one["evaluations"], one["seconds"],
            Judged.load(work / f"{one['sampler']}_{one['steps']:04d}.npz"),
        )
        for one in facts
    ]  # fmt: skip
    if not rows:
        raise ConfigError("nothing was measured; expected a sampler and evaluations it can do; raise --most")
    names = [name for name, value in sorted(dataset.labels.items(), key=lambda label: label[1]) if value > 0]
    scores = sampler_scores(rows, training, other, names)
    real = real_scores(training, other, settings["pairs"])
    about = describe_run()
    content = {
        "command": f"python scripts/{about.command}",
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
    (out / "results.md").write_text(text(content, step_table(scores, real)), encoding="utf-8")
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
    options = tyro.cli(Options)
    run_command(lambda: main(options))

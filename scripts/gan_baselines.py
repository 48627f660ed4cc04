"""GANs as baselines: train one on a dataset of images with classes, and write its images as a synthetic dataset.

python scripts/gan_baselines.py dcgan 751 --fold all --id 761 --minutes 4 --count 200
python scripts/gan_baselines.py stylegan2 751 --fold all --id 762 --minutes 4 --count 200

The minutes are those of the process's CPU time, as of `jdm-train --train.clock cpu`. dcgan trains a network for each
class, with an equal share of the minutes; stylegan2 trains one for all classes. The dataset lists the training cases,
so that jdm-classify and jdm-audit take it as an export. A killed run continues when the command is repeated.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from gan_dcgan import DCGAN
from gan_stylegan2 import StyleGAN2
from torch import Tensor

from jdm.classify.images import Images, read_images
from jdm.cli import run_command
from jdm.config.files import differences
from jdm.data.classes import FILE_NAME, class_names, classes_csv, read_all_classes
from jdm.data.raster import Raster
from jdm.data.raw_dataset import (
    RawDataset,
    dataset_name,
    open_dataset,
    read_image,
    used_ids,
    write_image,
    write_json_like,
)
from jdm.data.raw_layout import PARTIAL, nnunet_folder
from jdm.data.splits import fold_split
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.export.amount import balanced
from jdm.system.files import replaced, write_json, write_text
from jdm.system.locks import held
from jdm.system.machine import describe_run
from jdm.train.checkpoint import run_folder

SIZE = 64
"""Pixels a side of the images."""
_SAVE_EVERY = 20.0
"""CPU seconds between checkpoints."""


@dataclass(frozen=True)
class Options:
    """What is trained, for how long, and how much of it is written."""

    gan: tyro.conf.Positional[Literal["dcgan", "stylegan2"]]
    real: tyro.conf.Positional[str]
    """Id or name of the real dataset; it has classes.csv."""
    id: Annotated[int, tyro.conf.arg(metavar="INT")]
    """Of the new dataset."""
    fold: str = "0"
    """Whose training cases are trained on."""
    minutes: float = 4.0
    """CPU minutes."""
    count: int = 200
    """Images, shared out so that real plus synthetic counts of the classes are balanced."""
    width: int = 64
    """Channels, of which both networks' layers have multiples; 64 is the study's DCGAN."""
    batch_size: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Training:
    """What a GAN is trained on."""

    real: RawDataset
    images: Images
    """In -1 to 1."""
    names: tuple[str, ...]
    """Classes."""
    low: Tensor
    """(1, channels, 1, 1): the stored value that is -1 here."""
    high: Tensor
    dtype: np.dtype[Any]

    def stored(self, x: Tensor) -> np.ndarray:
        """Images as the dataset stores them."""
        values = (self.low + (x.clamp(-1, 1) + 1) / 2 * (self.high - self.low)).numpy()
        return (np.rint(values) if self.dtype.kind in "iu" else values).astype(self.dtype)


def main(options: Options) -> None:
    """Train, continuing what an earlier call left, and write the dataset."""
    training = read_training(options)
    target = nnunet_folder("nnUNet_raw") / dataset_name(options.id, f"{training.real.name[11:]}_{options.gan}")
    if others := [str(path) for path in used_ids().get(options.id, [])]:
        raise ExistsError(f"dataset id {options.id} is taken by {', '.join(others)}; choose another --id")
    folder = run_folder(training.real.name, options.fold).with_name(f"{options.gan}_fold_{options.fold}")
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock", folder):
        _claim(folder, options, training.images)
        _write(options, target, training, *_made(options, folder, training))
    print(target)


def read_training(options: Options) -> Training:
    """The fold's training images that have a class. Raises: JdmError for options or a dataset that cannot be used."""
    for flag, found, least in (
        ("minutes", options.minutes, 0.01), ("count", options.count, 1), ("width", options.width, 4),
        ("batch-size", options.batch_size, 2),
    ):  # fmt: skip
        if found < least:
            raise ConfigError(f"--{flag} is {found}; expected at least {least}; correct it")
    real = open_dataset(options.real)
    if not (real.folder / FILE_NAME).is_file():
        raise DataError(f"{real.name} has no {FILE_NAME}; expected the class of each case in it; add it")
    classes = read_all_classes(real.folder / FILE_NAME, real)
    cases = [case for case in fold_split(real, options.fold)[0] if classes[case]]
    names = class_names(classes, cases, real.folder / FILE_NAME)
    found = read_images(real, {case: classes[case] for case in cases}, names, SIZE, test=False)
    low, high = found.x.amin((0, 2, 3), keepdim=True), found.x.amax((0, 2, 3), keepdim=True)
    if bool((low == high).any()):
        raise DataError(
            f"{real.name}: a channel of all training images is constant; expected contrast; check the files"
        )
    scaled = Images(found.cases, 2 * (found.x - low) / (high - low) - 1, found.y)
    return Training(real, scaled, names, low, high, read_image(real, cases[0])[0].dtype)


def _claim(folder: Path, options: Options, images: Images) -> None:
    """Raises: ExistsError if the folder holds a training with other settings."""
    file, free = folder / "settings.json", ("id", "count", "real")
    settings = {key: value for key, value in asdict(options).items() if key not in free}
    settings["training_ids"] = list(images.cases)
    if not file.is_file():
        write_json(file, settings)
    elif lines := differences(json.loads(file.read_text(encoding="utf-8")), settings):
        raise ExistsError(f"{folder} holds a GAN of other settings: {'; '.join(lines[:3])}; give those, or remove it")


def _made(options: Options, folder: Path, training: Training) -> tuple[Tensor, Tensor, dict[str, int]]:
    """The synthetic images in -1 to 1, their classes, and the updates of each network."""
    images, names = training.images, training.names
    counts = balanced({name: int((images.y == n).sum()) for n, name in enumerate(names)}, options.count)
    wanted = torch.tensor([n for n, name in enumerate(names) for _ in range(counts[name])])
    if options.gan == "stylegan2":
        gan, number = train(StyleGAN2, images, len(names), folder / "all.pt", options, options.minutes)
        torch.manual_seed(options.seed)
        return torch.cat([gan.sample(part) for part in wanted.split(64)]), wanted, {"all": number}
    parts, updates = [], {}
    for n, name in enumerate(names):
        own = images.subset([case for case, y in zip(images.cases, images.y.tolist(), strict=True) if y == n])
        gan, updates[name] = train(DCGAN, own, 1, folder / f"{n}.pt", options, options.minutes / len(names))
        torch.manual_seed(options.seed)
        for first in range(
            0, counts[name], options.batch_size
        ):  # batches as large as in training, for their statistics
            drawn = gan.sample(torch.zeros(options.batch_size, dtype=torch.long))
            parts.append(drawn[: counts[name] - first])
    return torch.cat(parts), wanted, updates


def train(
    kind: type[DCGAN] | type[StyleGAN2], images: Images, classes: int, file: Path, options: Options, minutes: float
) -> tuple[DCGAN | StyleGAN2, int]:
    """Train a GAN until its CPU minutes are spent, saving it to `file` on the way. Returns: it, and its updates.

    The minutes spent before a kill count up to the last save.
    """
    torch.manual_seed(options.seed)
    gan = kind(images.x.shape[1], classes, options.width)
    spent, updates, losses = 0.0, 0, {}
    if file.is_file():
        saved = torch.load(file, weights_only=True)
        gan.load(saved["gan"])
        torch.set_rng_state(saved["random"])
        spent, updates = saved["seconds"], saved["updates"]
    start = saved_at = time.process_time()
    before = spent
    while spent < 60 * minutes:
        chosen = torch.randint(0, len(images.x), (options.batch_size,))
        losses = gan.update(images.x[chosen], images.y[chosen] if classes > 1 else torch.zeros_like(chosen))
        if not all(np.isfinite(list(losses.values()))):
            raise DataError(
                f"the {options.gan} has the losses {losses} after {updates} updates; change --seed or --width"
            )
        updates, now = updates + 1, time.process_time()
        spent = before + now - start
        if now - saved_at > _SAVE_EVERY or spent >= 60 * minutes:
            with replaced(file) as temporary:
                state = {"gan": gan.state(), "random": torch.get_rng_state(), "seconds": spent, "updates": updates}
                torch.save(state, temporary)
            saved_at = now
            told = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"{file.stem}: {updates} updates, {spent / 60:.1f} of {minutes:g} minutes, {told}", file=sys.stderr)
    return gan, updates


def _write(options: Options, target: Path, training: Training, x: Tensor, y: Tensor, updates: dict[str, int]) -> None:
    """Write the dataset hidden, and rename it when it is complete."""
    partial = target.with_name(PARTIAL + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    seen: Counter[int] = Counter()
    records = []
    for image, label in zip(training.stored(x), y.tolist(), strict=True):
        case, seen[label] = f"{options.gan}_{label}_{seen[label]:04d}", seen[label] + 1
        write_image(partial / "imagesTr", case, Raster(image, (1.0, 1.0)), training.real.file_ending)
        records.append({"case_id": case, "class": training.names[label], "seed": options.seed})
    write_text(partial / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_text(partial / FILE_NAME, classes_csv({record["case_id"]: record["class"] for record in records}))
    write_json_like(partial, training.real, len(records))
    write_json(partial / "provenance.json", _provenance(options, training, updates))
    partial.rename(target)


def _provenance(options: Options, training: Training, updates: dict[str, int]) -> dict[str, Any]:
    """As an export's, so far as jdm-classify, jdm-audit and the trainers read it."""
    run = describe_run()
    return {
        "generator": {
            "dataset": training.real.name, "fold": options.fold, "training_ids": list(training.images.cases),
            "held_out_ids": [], "step": sum(updates.values()),
        },
        "gan": {**asdict(options), "updates": updates, "size": SIZE, "commit": run.commit, "hardware": run.hardware},
        "judged": False, "audited": False, "redrawn": 0,
    }  # fmt: skip


if __name__ == "__main__":
    found = tyro.cli(Options, description=__doc__)
    run_command(lambda: main(found))

"""Miniature sources for the tests of the converters, and what users do with the lines that they get."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from dataset_conversion.options import PairsOptions

LABELS = ("0=background", "255=nuclei")


def picture(seed: int = 0, shape: tuple[int, ...] = (6, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def mask(shape: tuple[int, int] = (6, 8), value: int = 255) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[1:4, 2:5] = value
    return array


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def make_source(tmp_path: Path) -> PairsOptions:
    """Three clean pairs and one test pair."""
    for i, stem in enumerate(("a", "b", "c")):
        save(tmp_path / f"in/images/{stem}.png", picture(i))
        save(tmp_path / f"in/masks/{stem}.png", mask())
    save(tmp_path / "in/test_images/t.png", picture(9))
    save(tmp_path / "in/test_masks/t.png", mask())
    return PairsOptions(
        tmp_path / "in/images", tmp_path / "in/masks", 11, "Mini", LABELS,
        tmp_path / "in/test_images", tmp_path / "in/test_masks",
    )  # fmt: skip


def record(folder: Path) -> dict:
    return json.loads((folder / "conversion.json").read_text())


def notes(folder: Path, status: str) -> dict[str, str]:
    return {e["case"]: "; ".join(e["notes"]) for e in record(folder)["entries"] if e["status"] == status}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, as a user types it."""
    command = [sys.executable, "-c", "from jdm.cli.convert import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def advised(options: PairsOptions, line: str) -> PairsOptions:
    """The options with the --labels and --threshold that an error line names."""
    words = shlex.split(line[line.rindex("--labels") :])
    labels = []
    for word in words[1:]:
        if not re.fullmatch(r"\d+=\S.*", word):
            break
        labels.append(word)
    threshold = float(words[words.index("--threshold") + 1]) if "--threshold" in words else None
    return replace(options, labels=tuple(labels), threshold=threshold)


def type_command(line: str) -> None:
    """Type the command at the end of an error line; `python` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = line[line.index("python -c ") :]
    subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path})


def zipped(folder: Path) -> Path:
    """A zip file beside `folder` that holds it, as sites pack datasets."""
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def jpeg_pair(folder: Path, stem: str, seed: int, images: str = "images", masks: str = "masks") -> np.ndarray:
    """An image and an RGB JPEG mask with ringing borders, as in Kvasir-SEG; the mask before it was stored."""
    truth = np.zeros((40, 48), np.uint8)
    truth[9:27, 11:38] = 255
    save(folder / images / f"{stem}.jpg", picture(seed, (40, 48, 3)))
    save(folder / masks / f"{stem}.jpg", np.stack([truth] * 3, -1), quality=75)
    return (truth > 0).astype(np.uint8)

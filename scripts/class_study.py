"""Generators of images with a class side by side: distances, likeness by class, and a sheet of random images.

python scripts/class_study.py 751 results/classes/covid DCGAN=761 StyleGAN2-ADA=762 jdm=763

Distances are those of `jdm-audit`: of pixels reduced to 16 a side, against the training cases, with the floor of one
half of these against the other and the row of real images that no generator saw. The sheet shows 24 random images of
each class and set; --no-real leaves real ones out, where they may not be shown to others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image
from shared import about

from jdm.cli import run_command
from jdm.data.classes import FILE_NAME, read_all_classes
from jdm.data.raw_dataset import RawDataset, open_dataset, read_image
from jdm.errors import ConfigError
from jdm.evaluation.set_audit import SetAudit, audit_set
from jdm.system.files import write_json, write_text

_SHOWN, _SIDE = 24, 32
_COLUMNS = ("kernel", "frechet", "precision", "recall", "coverage")
_LEGEND = """kernel: squared kernel distance (unbiased, may be negative) of standardised pixels, 16 a side; frechet: of
the same; precision, recall and coverage: 5 neighbours. copies: of training images, by `jdm-audit`."""


def main(
    real: tyro.conf.Positional[str], out: tyro.conf.Positional[Path], sets: tyro.conf.Positional[tuple[str, ...]], /,
    show_real: Annotated[bool, tyro.conf.arg(name="real")] = True, seed: int = 0,
) -> None:  # fmt: skip
    """Write generators.md and .json, and images.png.

    Args:
        real: Id or name of the real dataset.
        out: Folder to write.
        sets: NAME=ID of each synthetic dataset.
        show_real: Show real images too.
        seed: Of the choice of images.
    """
    if wrong := [text for text in sets if "=" not in text]:
        raise ConfigError(f"{wrong[0]!r}: expected NAME=ID of a synthetic dataset, such as DCGAN=761")
    dataset = open_dataset(real)
    made = {text.partition("=")[0]: open_dataset(text.partition("=")[2]) for text in sets}
    audits = {name: audit_set(each, dataset) for name, each in made.items()}
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "generators.md", page(audits))
    write_json(out / "generators.json", {**about(), "sets": {n: _numbers(a) for n, a in audits.items()}})
    shown = {**({"real": dataset} if show_real else {}), **made}
    sheet(shown, seed).save(out / "images.png", optimize=True)
    print(page(audits))


def page(audits: dict[str, SetAudit]) -> str:
    """Both tables as Markdown."""
    first = next(iter(audits.values()))
    rows = {name: (len({v.case_id for v in audit.verdicts}), audit) for name, audit in audits.items()}
    lines = ["| set | images | copies | " + " | ".join(_COLUMNS) + " |", "|---|" + "---:|" * (2 + len(_COLUMNS))]
    for name, (count, audit) in rows.items():
        lines.append(_row(name, count, str(len(audit.copied)), audit.distribution["synthetic"]))
    controls = {"held_out": "real, not trained on", "floor": "floor: half of the training images"}
    for key, name in controls.items():
        if key in first.distribution:
            lines.append(_row(name, round(first.distribution[key].get("n") or 0), "", first.distribution[key]))
    text = [f"# Generators of {first.real}", "\n".join(lines)]
    if not all(audit.distribution["synthetic"].get("frechet_reliable") for audit in audits.values()):
        text.append("With fewer images than features the Frechet distance is biased; compare it within a size.")
    text.append(_LEGEND)
    if first.resemblance_by_class:
        text += ["## Likeness by class: mean squared error / SSIM of random pairs", groups(audits)]
    text.append("Command: `{command}`, commit {commit}, {hardware}.".format(**about()))
    return "\n\n".join(text) + "\n"


def groups(audits: dict[str, SetAudit]) -> str:
    """Markdown: a row per pair of groups, a column per set."""
    lines = [f"| groups | {' | '.join(audits)} |", "|---|" + "---:|" * len(audits)]
    for pair in sorted({pair for audit in audits.values() for pair in audit.resemblance_by_class}):
        found = [audit.resemblance_by_class.get(pair, {}) for audit in audits.values()]
        cells = [f"{e['mean_squared_error']:.3f} / {e['structural_similarity']:.2f}" if e else "" for e in found]
        lines.append(f"| {pair} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(shown: dict[str, RawDataset], seed: int) -> Image.Image:
    """Rows of random images, for each class one row per set in their order."""
    rng = np.random.default_rng(seed)
    classes = {name: read_all_classes(each.folder / FILE_NAME, each) for name, each in shown.items()}
    rows = []
    for label in sorted({label for found in classes.values() for label in found.values()} - {""}):
        for name, each in shown.items():
            cases = [case for case in each.cases if classes[name][case] == label]
            if not cases:
                continue
            chosen = rng.permutation(cases)[:_SHOWN].tolist()
            tiles = [_tile(read_image(each, case)[0]) for case in chosen]
            tiles += [np.full((_SIDE, _SIDE), 255, np.uint8)] * (_SHOWN - len(tiles))
            rows.append(np.concatenate(tiles, 1))
        rows.append(np.full((6, rows[-1].shape[1]), 255, np.uint8))
    return Image.fromarray(np.concatenate(rows[:-1], 0))


def _tile(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float64).mean(0)
    small = Image.fromarray(np.rint(grey * (255 / np.iinfo(image.dtype).max)).astype(np.uint8))
    return np.asarray(small.resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _row(name: str, count: int, copies: str, numbers: dict[str, float | None]) -> str:
    values = [numbers.get(column) for column in _COLUMNS]
    return f"| {name} | {count} | {copies} | {' | '.join('' if v is None else f'{v:.3g}' for v in values)} |"


def _numbers(audit: SetAudit) -> dict[str, Any]:
    return {
        "distribution": audit.distribution, "copied": len(audit.copied), "three_sample": audit.three_sample,
        "resemblance_by_class": audit.resemblance_by_class,
    }  # fmt: skip


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, description=__doc__))

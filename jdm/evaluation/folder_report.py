"""The report of any folder that jdm wrote: report.html and report.json.

It says what the folder's own Markdown says, the verdict first, and shows the pictures that belong to it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdm.data.raw_dataset import Pair, RawDataset, read_case, read_dataset, slice_axis
from jdm.errors import ConfigError, DataError
from jdm.evaluation.figures import central, outlines, plane, to_rgb
from jdm.evaluation.markdown import read_markdown
from jdm.evaluation.report import Figure, Section, Table, write_report, write_twin
from jdm.system.machine import describe_run

PAGES = ("results.md", "audit.md", "evaluation.md")
"""Pages of commands, one of which a folder with results has."""
_SHOWN, _SIDE, _MOST = 12, 192, 256
"""Pairs of each kind, least pixels of their longer side, and most pixels a side that are shown of larger ones."""


def report_folder(folder: Path, out: Path | None = None, real: RawDataset | None = None) -> Path:
    """Write the report of a folder of results, a synthetic dataset or a training run.

    Args:
        out: folder to write to; None: the folder itself.
        real: show real cases of this dataset beside synthetic ones; the report then holds images of patients.
    Returns: report.html; report.json lies beside it.
    Raises: DataError if the folder holds none of these, or something in it is damaged.
    """
    page = next((folder / name for name in PAGES if (folder / name).is_file()), None)
    trained = (folder / "checkpoint.json").is_file()
    if page is None and not trained and not (folder / "provenance.json").is_file():
        raise DataError(
            f"{folder}: holds no results; expected a folder with one of {', '.join(PAGES)}, a dataset of jdm-export "
            "or a run of jdm-train; give the folder that the command named at its end"
        )
    title, verdict, sections = ("", "", []) if page is None else read_markdown(_text(page), folder)
    if trained:
        verdict, found = _run(folder)
        sections = found
    if (folder / "provenance.json").is_file():
        sections = [*_pairs(folder, real), *sections, _provenance(_json(folder / "provenance.json"))]
        verdict = verdict or "These pairs were not audited: nothing says whether they are copies; run jdm-audit."
    sections += _pictures(folder)
    sections.append(_again(folder, page))
    target = folder if out is None else out
    title = title or f"jdm: {folder.resolve().name}"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be made ({error.strerror}); expected a folder; give another --out"
        ) from None
    write_report(target / "report.html", sections, verdict=verdict, title=title, run=describe_run())
    write_twin(target / "report.json", sections, verdict=verdict, title=title)
    return target / "report.html"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected jdm's page; run the command again") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); expected jdm's record; run the command again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no record; expected jdm's; run the command again")
    return found


def _run(folder: Path) -> tuple[str, list[Section]]:
    """A training run: how long, and its samples."""
    facts = _json(folder / "checkpoint.json")
    rows = []
    for name in ("dataset", "fold", "step", "minutes", "training_ids"):
        value = facts.get(name)
        rows.append((name.replace("_ids", " cases"), str(len(value) if isinstance(value, list) else value)))
    samples = sorted((folder / "samples").glob("step_*.png"))[-1:]
    shown = [Figure(path, f"Sheet of samples after {path.stem.replace('_', ' ')}s", path.stem) for path in samples]
    verdict = f"A generator trained on {rows[-1][1]} cases of {facts.get('dataset')} for {facts.get('step')} steps."
    return verdict, [Section("Training", (), (Table("The run", ("what", "value"), tuple(rows)),), tuple(shown))]


def _pairs(folder: Path, real: RawDataset | None) -> list[Section]:
    """Synthetic pairs at random; and, where asked for, real ones and the nearest training cases."""
    made = read_dataset(folder)
    sections = [_shown("Synthetic pairs", made, made.cases, "drawn at random, not selected")]
    if real is not None:
        sections.append(_shown("Real pairs", real, real.cases, "drawn at random, not selected"))
        if (folder / "audit.json").is_file():
            sections += _nearest(_json(folder / "audit.json"), made, real)
    return sections


def _shown(title: str, dataset: RawDataset, cases: Sequence[str], how: str) -> Section:
    drawn = np.random.default_rng(0).choice(len(cases), min(_SHOWN, len(cases)), replace=False)
    names = [str(cases[n]) for n in sorted(drawn.tolist())]
    pictures = tuple(_picture(read_case(dataset, name), f"{title}: {name}", name) for name in names)
    return Section(title, (f"{len(names)} of {len(cases)} of {dataset.name}, {how}.",), (), pictures)


def _nearest(audit: dict[str, Any], made: RawDataset, real: RawDataset) -> list[Section]:
    """The pairs that are nearest to one training case, for how near they are to others."""
    verdicts = [v for v in audit.get("verdicts", []) if v["case_id"] in made.cases and v["nearest"] in real.cases]
    ratio = {id(v): v["distance"] / max(v["second"] or 0, 1e-6) for v in verdicts}
    nearest: dict[str, dict[str, Any]] = {}
    for found in sorted(verdicts, key=lambda v: (not v["copy"], ratio[id(v)])):
        nearest.setdefault(found["case_id"], found)
    figures = []
    for case, found in list(nearest.items())[: _SHOWN // 2]:
        what = "copy" if found["copy"] else f"ratio {ratio[id(found)]:.2f}"
        figures.append(_picture(read_case(made, case), f"Synthetic pair {case}", f"{case} ({what})"))
        figures.append(
            _picture(read_case(real, found["nearest"]), f"Training case {found['nearest']}", found["nearest"])
        )
    text = "Pairs nearest to one training case compared with others, each before that case; of volumes one slice."
    return [Section("Nearest training cases", (text,), (), tuple(figures))] if figures else []


def _picture(pair: Pair, alt: str, caption: str) -> Figure:
    """The central part of a pair with outlines that can be switched; small ones are enlarged by whole factors."""
    across = slice_axis([pair.label.shape], pair.spacing) if pair.label.ndim == 3 else None
    image, label = central(plane(pair.image, pair.label, across=across), _MOST)
    grown = np.ones((max(1, round(_SIDE / max(label.shape))),) * 2, np.uint8)
    picture, mask = np.kron(to_rgb(image), grown[..., None]), np.kron(label, grown)
    return Figure(_png(picture), alt, caption, _png(outlines(mask)))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _provenance(found: dict[str, Any]) -> Section:
    rows = []
    for name, value in {**found.get("generator", {}), **found}.items():
        if isinstance(value, list):
            rows.append((name, f"{len(value)} entries"))
        elif not isinstance(value, dict):
            rows.append((name, str(value)))
    return Section("Provenance", (), (Table("How the pairs were made", ("what", "value"), tuple(rows)),))


def _pictures(folder: Path) -> list[Section]:
    """Pictures that commands leave beside their pages."""
    loose = [folder / name for name in ("curves.png", "confusion.png")]
    cases = sorted((folder / "pictures").glob("*.png"))
    sections = []
    if shown := [Figure(path, f"{path.stem.capitalize()} of this folder") for path in loose if path.is_file()]:
        sections.append(Section("Curves", figures=tuple(shown)))
    if shown := [Figure(p, f"Case {p.stem}: image, reference, prediction of every arm", p.stem) for p in cases]:
        sections.append(Section("Predictions", figures=tuple(shown)))
    return sections


def _again(folder: Path, page: Path | None) -> Section:
    """The commands that made the folder, as far as it says so, and this report's."""
    records = [folder / name for name in ("results.json", "provenance.json", "evaluation.json")]
    made = [_json(path).get("command") for path in records if path.is_file()]
    commands = [command for command in made if isinstance(command, str)]
    return Section("Commands", commands=(*commands, f"jdm-report {folder.name}"))

"""One generator per class: split a dataset by class, and join what the generators make to one synthetic dataset.

python scripts/model_per_class.py split 751 --ids 801 802 803 804     # then jdm-train and jdm-export of each
python scripts/model_per_class.py join 751 --ids 811 812 813 814 --id 768

The parts hold the training cases of one class each, in the order of the classes' names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jdm.cli import run_command
from jdm.data.classes import FILE_NAME, class_names, classes_csv, read_classes
from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import dataset_name, nnunet_folder, open_dataset, used_ids, write_json_like
from jdm.data.raw_layout import PARTIAL, RawDataset
from jdm.errors import ConfigError, ExistsError
from jdm.system.files import write_json, write_text

_Id = Annotated[int, tyro.conf.arg(metavar="INT")]


def main(
    what: tyro.conf.Positional[Literal["split", "join"]], real: tyro.conf.Positional[str], ids: tuple[int, ...],
    id: _Id = 0,
) -> None:  # fmt: skip
    """Split a dataset, or join the exports of its parts.

    Args:
        what: split or join.
        real: Id or name of the real dataset, which has classes.csv.
        ids: One for each class: of the parts to write, or of their exports.
        id: join: of the new dataset.
    """
    dataset = open_dataset(real)
    classes = read_classes(dataset.folder / FILE_NAME, dataset)
    names = class_names(classes, dataset.cases, dataset.folder / FILE_NAME)
    if len(ids) != len(names):
        raise ConfigError(f"--ids: found {len(ids)}; expected {len(names)}, one for each of {', '.join(names)}")
    if what == "join":
        print(_join(dataset, names, [open_dataset(each) for each in ids], id))
        return
    for name, number in zip(names, ids, strict=True):
        print(_part(dataset, [case for case in dataset.cases if classes[case] == name], number, name))


def _part(dataset: RawDataset, cases: list[str], id: int, name: str) -> Path:
    partial, target = _new(id, f"{dataset.name[11:]}_{name}")
    for case in cases:
        for image in dataset.training_files[case].images:
            shutil.copy2(image, partial / "imagesTr")
    write_json_like(partial, dataset, len(cases))
    return partial.rename(target)


def _join(dataset: RawDataset, names: tuple[str, ...], made: list[RawDataset], id: int) -> Path:
    partial, target = _new(id, f"{dataset.name[11:]}_per_class")
    classes: dict[str, str] = {}
    generators: list[dict[str, Any]] = []
    for name, part in zip(names, made, strict=True):
        generators.append(read_generator(part))
        for number, case in enumerate(part.cases):
            joined = f"{name}_{number:04d}"
            classes[joined] = name
            for image in part.training_files[case].images:
                shutil.copy2(image, partial / "imagesTr" / image.name.replace(case, joined, 1))
    write_text(partial / FILE_NAME, classes_csv(classes))
    records = [{"case_id": case, "class": name} for case, name in classes.items()]
    write_text(partial / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_json_like(partial, dataset, len(classes))
    trained = sorted({case for generator in generators for case in generator["training_ids"]})
    origin = {"dataset": dataset.name, "fold": "all", "training_ids": trained, "held_out_ids": [], "step": 0}
    write_json(partial / "provenance.json", {"generator": origin, "generators": generators, "judged": False})
    return partial.rename(target)


def _new(id: int, name: str) -> tuple[Path, Path]:
    """A hidden folder with imagesTr, and its name when it is complete."""
    target = nnunet_folder("nnUNet_raw") / dataset_name(id, name)
    if others := [str(path) for path in used_ids().get(id, [])]:
        raise ExistsError(f"dataset id {id} is taken by {', '.join(others)}; expected a free one; choose another")
    partial = target.with_name(PARTIAL + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "imagesTr").mkdir(parents=True)
    return partial, target


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, description=__doc__))

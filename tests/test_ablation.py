"""scripts/ablation.py: settings on one footing, from training to the table, on tiny networks and real nnU-Net."""

import dataclasses
import json
import os

import pytest
import tyro
from nnunet_blobs import write_blobs
from test_end_to_end import TINY_NETWORK

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import ablation
from ablation import Options, main
from ablation_table import page, summaries

from jdm.cli.train import parse
from jdm.errors import ConfigError, ExistsError, JdmError
from jdm.export.request import ExportRequest
from nnunet_integration.arms import ExperimentOptions

SHORT = "--train.steps 40 --train.batch-size 2 --train.learning-rate 5e-3 --train.warmup-steps 1"
FILE = f"""
[datasets.blobs]
id = 11
fold = "0"
train = "{TINY_NETWORK} {SHORT}"
export = "--count 6 --steps 6 --margin 100"
experiment = "--iterations 4 --epochs 2 --batch-size 2 --network-features 8 8 16 --patch-size 32 32 --threads 1"

[rows.default]

[rows."fewer steps"]
of = "default"
export = "--sampler heun"

[rows.broken]
train = "--train.batch-size 0"
"""


@pytest.fixture
def options(nnunet_folders, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ids = [[f"{kind}{i:02d}" for i in range(count)] for kind, count in (("r", 8), ("t", 3))]
    write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset011_Blobs", *ids)
    (tmp_path / "rows.toml").write_text(FILE, encoding="utf-8")
    return Options(
        minutes=1, folder=tmp_path / "work", out=tmp_path / "out", file=tmp_path / "rows.toml",
        rows=("default", "fewer steps"),
    )  # fmt: skip


@pytest.mark.slow
def test_settings_are_compared_once_each_and_a_failed_one_is_named(options, monkeypatch):
    done = []
    run = ablation.Cell.run
    monkeypatch.setattr(ablation.Cell, "run", lambda cell, *words: (done.append(words[0]), run(cell, *words)))
    with pytest.raises(JdmError, match=r"broken.*batch_size"):
        main(dataclasses.replace(options, rows=("default", "broken")))
    assert done == ["jdm-train", "jdm-export", "jdm-experiment", "jdm-experiment", "jdm-sample", "jdm-train"]
    done.clear()
    main(options)  # takes the generator and the reference of the first call
    assert done == ["jdm-export", "jdm-experiment"]
    main(options)
    assert done == ["jdm-export", "jdm-experiment"]

    found = json.loads((options.out / "ablations.json").read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in found["rows"]}
    assert rows.keys() == {"default", "fewer steps"} and [failed["row"] for failed in found["failed"]] == ["broken"]
    first, second = rows["default"], rows["fewer steps"]
    assert first["segmenter"] == second["segmenter"] and first["test"] == second["test"] and first["images"] == 3
    assert (first["run"]["evaluations"], second["run"]["evaluations"]) == (11, 11)
    for row in rows.values():
        change = row["minus_real"]
        assert change["mean"] == pytest.approx(row["synthetic"]["mean"] - row["real"]["mean"])
        assert row["made"]["nearest"] > 0 and 0 < row["made"]["share"] < 1
    text = (options.out / "ablations.md").read_text(encoding="utf-8")
    assert all(f"| {name} | 1 |" in text for name in rows) and "- blobs, 1 minutes, broken, seed 0" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1

    changed = FILE.replace("--sampler heun", "--sampler ddim")
    options.file.write_text(changed, encoding="utf-8")
    with pytest.raises(ExistsError, match=r"cell\.json.*ddim"):
        main(options)


def test_unknown_names_are_refused_with_the_known_ones(options):
    with pytest.raises(ConfigError, match=r"'nothing'.*'default', 'fewer steps', 'broken'"):
        main(dataclasses.replace(options, rows=("nothing",)))
    with pytest.raises(ConfigError, match=r"'nuclei'.*'blobs'"):
        main(dataclasses.replace(options, datasets=("nuclei",)))
    assert not options.folder.exists() and not options.out.exists()


def test_every_flag_of_the_file_is_one_of_its_command():
    found = list(ablation.cells(Options(minutes=1)))
    assert len({(cell.dataset, cell.row) for cell in found}) == len(found) >= 36
    for cell in found:
        parse([cell.id, cell.fold, *cell.words["train"]])
        tyro.cli(ExportRequest, args=[cell.id, cell.fold, "--id", "600", *cell.words["export"]])
        tyro.cli(ExperimentOptions, args=[cell.id, "--synthetic", "600", *cell.words["experiment"]])


def cell(row: str, seed: int, dice: list[float]) -> dict:
    """A finished cell whose synthetic arm has these scores on images a, b, c; real ones have 0.5 on each."""

    def evaluation(values):
        cases = [
            {"case_id": case, "label": "blob", "dice": value, "iou": value, "n_ref": 9, "n_pred": 9, "voxel_size": 1.0}
            for case, value in zip("abc", values, strict=True)
        ]
        return {"cases": cases, "classes": [{"label": "blob"}]}

    looks = dict.fromkeys(("share", "count", "area", "roughness", "specks", "quadrants", "spread"), 1.0)
    looks |= {"n": 9, "cases": 9, "agreement": 0.5, "nearest": 1.0, "below_ratio": 0.0}
    return {
        "dataset": "blobs", "row": row, "seed": seed, "minutes": 1, "of": None, "flags": {},
        "scores": {"synthetic": evaluation(dice), "real": evaluation([0.5] * 3), "segmenter": evaluation([0.6] * 3)},
        "groups": {case: f"case {case}" for case in "abc"},
        "pairs": {"run": {"steps": 10 + seed, "evaluations": 3},
                  "made": {**looks, "kernel_distance": None, "n": 9 + seed},
                  "test": looks},
        "commit": "0" * 12, "hardware": "one core", "command": "python scripts/ablation.py",
    }  # fmt: skip


def test_a_row_averages_its_seeds_and_the_best_row_leads():
    rows = summaries([
        cell("worse", 0, [0.4, 0.5, 0.6]), cell("better", 0, [0.5, 0.6, 0.7]), cell("better", 1, [0.7, 0.8, 0.9]),
    ])  # fmt: skip
    assert [(row["row"], row["seeds"]) for row in rows] == [("better", [0, 1]), ("worse", [0])]
    assert rows[0]["minus_real"]["mean"] == pytest.approx(0.2) and rows[1]["minus_real"]["mean"] == pytest.approx(0)
    assert rows[1]["minus_real"]["low"] < 0 < rows[1]["minus_real"]["high"]
    assert rows[0]["run"]["steps"] == 10.5 and rows[0]["segmenter_minus_real"]["mean"] == pytest.approx(0.1)
    text = page(rows, [])
    assert "(n = 9 to 10)" in text and "(n = 3)" in text and text.index("| better |") < text.index("| worse |")

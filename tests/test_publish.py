"""scripts/publish.py: what results/ holds of a synthetic dataset, from the run that it says it comes from."""

import json
import math

import numpy as np
import pytest
from publish import main, seam_ratio
from small_runs import tiny_run, write_pictures

import jdm
from jdm.errors import DataError


def test_seams_are_steps_across_the_borders_of_windows() -> None:
    ramp = np.indices((16, 16)).sum(0)[None] * 1.0
    assert seam_ratio(ramp, (8, 8), 0.0) == pytest.approx(1)
    ramp[:, 8:] += 1  # a step of 2 instead of 1 along one of two axes
    assert seam_ratio(ramp, (8, 8), 0.0) == pytest.approx(1.5)
    assert math.isnan(seam_ratio(ramp, (16, 16), 0.0))


def test_a_synthetic_dataset_is_published_from_its_own_run(nnunet_folders, tmp_path) -> None:
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    patches = {"data": {"whole": False, "patch_size": (8, 8), "canvas_size": (16, 24)}, "train": {"steps": 2}}
    run = tiny_run(real, **patches)
    jdm.export(jdm.ExportRequest(real.name, "all", id=22, count=3, steps=2, anyway=True, margin=100.0))
    experiment = run.folder.parent / "experiment_fold_all"
    (experiment / "pictures").mkdir(parents=True)
    for file in (experiment / "results.json", experiment / "results.md", run.folder / "curves.png"):
        file.write_text(file.name)
    main("22", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generator.json").read_text())["pairs"] == 3
    copies, seams = (json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("copies", "seams"))
    assert copies["synthetic"]["n"] == copies["held_out"]["n"] == 300 and copies["held_out"]["copies"] == 0
    assert seams["pairs"] == 3 and seams["ratio"]["image"]["low"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "results.json",
        "results.md",
        "plan.toml",
        "curves.png",
    }
    tiny_run(real, **patches, noise={"log_mean": -1.0})
    with pytest.raises(DataError, match=r"Dataset022_Stripes_syn .*fold_all"):
        main("22", tmp_path / "out")

"""The demo: its tiles, its report, its refusals, and all of it with tiny settings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nnunet_scores import scored_images, summary
from PIL import Image

from jdm.cli.demo import MARK, DemoOptions, call, claim, commands
from jdm.cli.demo_report import Places, Step, read_field, write_demo_report, write_tiles
from jdm.data.raw_dataset import Pair, write_case, write_dataset_json
from jdm.errors import ConfigError, ExistsError, JdmError


def test_field_is_annotated_and_tiles_put_it_together_again(tmp_path: Path) -> None:
    image, mask = read_field()
    assert image.shape == mask.shape == (512, 512)
    assert set(np.unique(mask)) == {0, 255} and image[mask > 0].mean() > 2 * image[mask == 0].mean()
    write_tiles(tmp_path, image, mask)
    for kind, picture in (("images", image), ("masks", mask)):
        again = np.zeros_like(picture)
        for split, left in (("train", 0), ("test", 256)):
            for file in (tmp_path / split / kind).glob("*.png"):
                tile = np.array(Image.open(file))
                y, x = (int(part[1:]) for part in file.stem.split("_")[1:])
                again[y : y + len(tile), left + x : left + x + tile.shape[1]] += tile
        assert np.array_equal(again, picture)


def test_missing_stardist_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stardist.data", None)
    with pytest.raises(ConfigError, match=r"extra 'demo'; .*pip install"):
        read_field()


def test_only_an_earlier_demo_is_discarded(tmp_path: Path) -> None:
    demo = claim(tmp_path / "a" / "demo", overwrite=False)
    (demo / "leftover").touch()
    with pytest.raises(ExistsError, match="holds a demo already"):
        claim(demo, overwrite=False)
    assert [file.name for file in claim(demo, overwrite=True).iterdir()] == [MARK]
    other = tmp_path / "other"
    other.mkdir()
    claim(other, overwrite=False)
    (other / MARK).rename(other / "thesis.tex")
    with pytest.raises(ExistsError, match=r"other.*--out"):
        claim(other, overwrite=True)
    assert (other / "thesis.tex").is_file()


def test_options_reach_the_commands() -> None:
    convert, train, export, experiment = commands(DemoOptions(budget_minutes=2.5, iterations=3, seeds=(4, 5), ratio=2))
    assert train[-2:] == ["--budget-minutes", "2.5"] and export[export.index("--ratio") + 1] == "2"
    assert experiment[-6:] == ["3", "--epochs", "3", "--seeds", "4", "5"]
    assert convert[0] == "jdm-convert"


def test_failing_command_is_named_with_its_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JdmError, match="jdm-train ended with status 2"):
        call(["jdm-train", "7", "0"], tmp_path, {"nnUNet_raw": str(tmp_path)})
    shown = capfd.readouterr()
    assert "$ jdm-train 7 0" in shown.out and re.fullmatch("jdm-train: error: dataset '7'.*\n", shown.err)


def finished_run(folder: Path) -> Places:
    """Small stand-ins for what the four commands leave; synthetic pair 0 is training tile 2 turned by a quarter."""
    rng = np.random.default_rng(0)
    places = Places(*(folder / name for name in ("Dataset001_A", "Dataset501_A_syn", "training", "experiment")))
    images = rng.integers(0, 256, (5, 1, 64, 64), dtype=np.uint8)
    labels = (images[:, 0] > 128).astype(np.uint8)
    pairs = [Pair(f"tile_{i}", images[i], labels[i], (1.0, 1.0)) for i in range(5)]
    copy = Pair("syn_0", np.rot90(images[2], 1, (1, 2)), np.rot90(labels[2]), (1.0, 1.0))
    made = [copy, Pair("syn_1", 255 - images[0], 1 - labels[0], (1.0, 1.0))]
    for dataset, cases in ((places.real, pairs), (places.synthetic, made)):
        dataset.mkdir()
        for pair in cases:
            write_case(dataset, pair, ".png")
        names = {"background": 0, "nuclei": 1}
        write_dataset_json(dataset, channel_names=["grey"], labels=names, file_ending=".png", num_training=len(cases))
    places.training.mkdir()
    (places.experiment / "pictures").mkdir(parents=True)
    for file in (places.training / "curves.png", places.experiment / "pictures" / "t.png"):
        Image.new("L", (8, 8)).save(file)
    trained = {"step": 70, "training_ids": [f"tile_{i}" for i in range(4)], "held_out_ids": ["tile_4"]}
    (places.training / "checkpoint.json").write_text(json.dumps(trained))
    results = summary({"real": scored_images(8, "nuclei", 0.7), "mix": scored_images(8, "nuclei", 0.01, 0.0)})
    results["hardware"] = {"cpu": "a processor", "cores": 2, "gpu": ["a GPU"]}
    (places.experiment / "results.json").write_text(json.dumps(results))
    return places


def test_report_shows_results_copies_and_commands(tmp_path: Path) -> None:
    steps = [Step("jdm-train 1 all --budget-minutes 4", 90.0)]
    verdict, arms, differences = write_demo_report(
        tmp_path / "report.html", finished_run(tmp_path), steps, ["export A=$PWD/A"]
    )
    assert verdict.startswith("Cannot tell") and "mix did not learn" in verdict
    assert "| real | real cases only | 5 | 0 | 0 % | 0.7000 [" in arms and "| mix minus real | -0.6900 [" in differences
    text = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    for words in (
        'verdict">Cannot tell whether synthetic pairs help',
        "8 images",
        "jdm-train 1 all --budget-minutes 4",
        "1.5 minutes",
        "a GPU",
        "A=$PWD/A",
        "Not learned (mean Dice below 0.05): mix: nuclei.",
    ):
        assert words in text
    synthetic = re.search(r"synthetic</th><td>2</td><td>(\d+)</td>", text)
    assert synthetic and synthetic[1] == "1"  # the turned tile is found out as a copy
    assert text.count("data:image/png") == 5 and 'src="http' not in text


def test_nearest_pair_is_shown_in_the_orientation_of_its_tile(tmp_path: Path) -> None:
    places = finished_run(tmp_path)
    write_demo_report(tmp_path / "report.html", places, [], [])
    sheet = np.array(Image.open(tmp_path / "figures" / "nearest.png").convert("L"))
    # rows of 12 px of text, 128 px of picture and a gap of 4; the third is the copied tile
    top = 4 + 2 * (len(sheet) - 4) // 4 + (len(sheet) - 4) // 4 - 4 - 128
    left, right = sheet[top : top + 128, 4:132], sheet[top : top + 128, 4 + 2 * 132 : 4 + 2 * 132 + 128]
    assert np.array_equal(left, right)


def test_the_whole_demo_with_tiny_settings(tmp_path: Path) -> None:
    words = [f"--out={tmp_path / 'demo'}", "--budget-minutes=0.1", "--iterations=1", "--ratio=0.2"]
    mine = {**os.environ, "nnUNet_raw": str(tmp_path / "mine"), "OMP_NUM_THREADS": "1"}
    program = Path(sys.executable).with_name("jdm-demo")
    done = subprocess.run([program, *words], env=mine, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "mine").exists()
    for arm in ("real", "synthetic", "pretrain-finetune", "mix", "real-long"):
        assert f"| {arm} |" in done.stdout
    report = tmp_path / "demo" / "report.html"
    assert done.stdout.rstrip().endswith(f"Report: {report}") and report.stat().st_size > 100_000
    again = subprocess.run([program, *words], env=mine, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and again.stderr.count("\n") == 1

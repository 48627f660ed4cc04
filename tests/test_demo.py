"""The demo: its tiles, its refusals, and all of it with tiny settings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdm.cli.demo import DemoOptions, call, claim, commands
from jdm.cli.demo_field import read_field, write_tiles
from jdm.errors import ConfigError, ExistsError, JdmError
from jdm.report.folder import DEMO


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
    assert [file.name for file in claim(demo, overwrite=True).iterdir()] == [DEMO]
    other = tmp_path / "other"
    other.mkdir()
    claim(other, overwrite=False)
    (other / DEMO).rename(other / "thesis.tex")
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

"""The four commands, as a user types them, on crops of real pathology; and what they say when something is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from small_runs import write_pictures

from jdm.data.raw_dataset import open_dataset
from jdm.data.splits import fold_split, train_fraction
from jdm.train.checkpoint import load_checkpoint

COMMANDS = Path(sys.executable).parent
TINY_NETWORK = (
    "--network.base-channels 8 --network.channel-multipliers 1 1 --network.blocks-per-level 1 "
    "--network.attention-factors 2 --network.attention-heads 2"
)
SHORT = "--train.steps 4 --train.batch-size 2 --train.validate-every 2"


def type_(line: str) -> subprocess.CompletedProcess[str]:
    """Run a command line and return what it printed."""
    name, *arguments = line.split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}
    return subprocess.run(
        [str(COMMANDS / name), *arguments], env=environment, capture_output=True, text=True, timeout=400
    )


def must(line: str) -> str:
    done = type_(line)
    assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    return done.stdout


def refused(line: str) -> str:
    """The last line on stderr of a command that must fail with status 2, which alone is an error."""
    done = type_(line)
    assert done.returncode == 2, f"{line}\n{done.stdout}\n{done.stderr}"
    *notes, error = done.stderr.strip().splitlines()
    assert error.startswith(f"{line.split()[0]}: error: ") and "error" not in "".join(notes), done.stderr
    return error


def crop_monuseg(source: Path, target: Path, part: str, count: int) -> None:
    """64 x 64 crops of the middle of the first fields."""
    for kind in ("images", "masks"):
        (target / part / kind).mkdir(parents=True)
        for path in sorted((source / part / kind).iterdir())[:count]:
            with Image.open(path) as image:
                image.crop((468, 468, 532, 532)).save(target / part / kind / path.name)


def test_four_commands_lead_from_pictures_to_a_table(shared_data, nnunet_folders, tmp_path):
    fields = tmp_path / "fields"
    crop_monuseg(shared_data / "monuseg", fields, "train", 6)
    crop_monuseg(shared_data / "monuseg", fields, "test", 2)
    must(
        f"jdm-convert pairs --images {fields}/train/images --masks {fields}/train/masks --id 11 --name MoNuSeg "
        f"--labels 0=background 255=nuclei --test-images {fields}/test/images --test-masks {fields}/test/masks"
    )
    real = nnunet_folders["nnUNet_raw"] / "Dataset011_MoNuSeg"
    assert json.loads((real / "dataset.json").read_text())["numTraining"] == 6
    trained = type_(f"jdm-train 11 0 {TINY_NETWORK} {SHORT}")
    assert trained.returncode == 0, trained.stderr
    assert re.search(r"note: 4 steps are few.*--train\.steps --overwrite", trained.stderr)
    printed = trained.stdout
    run = nnunet_folders["jdm_results"] / real.name / "fold_0"
    assert str(run) in printed and "next: jdm-export 11 0" in printed
    assert {f.name for f in run.iterdir()} >= {
        "plan.toml", "fingerprint.json", "checkpoint.safetensors", "log.csv", "curves.png"
    }  # fmt: skip

    printed = must("jdm-export 11 0 --id 511 --ratio 1.0 --steps 3 --margin 100 --batch-size 4 --anyway")
    assert f"next: jdm-experiment {real.name} --synthetic 511 --fold 0" in printed
    synthetic = nnunet_folders["nnUNet_raw"] / "Dataset511_MoNuSeg_syn"
    trained_on = json.loads((synthetic / "provenance.json").read_text())["generator"]["training_ids"]
    images = sorted((synthetic / "imagesTr").iterdir())
    assert len(images) == len(trained_on) == 4  # of six, the fold's two validation cases were never seen
    with Image.open(images[0]) as image:
        assert image.size == (64, 64) and image.mode == "RGB"
    must(
        "jdm-experiment 11 --synthetic 511 --fold 0 --arms real pretrain-finetune ensemble-jdm --seeds 0 "
        "--iterations 4 --epochs 2 --batch-size 2 --network-features 8 16 32 --threads 1 --device cpu"
    )
    results = nnunet_folders["jdm_results"] / real.name / "experiment_fold_0"
    table = (results / "results.md").read_text(encoding="utf-8")
    assert all(f"| {arm} |" in table for arm in ("real", "pretrain-finetune", "ensemble-jdm"))
    found = json.loads((results / "results.json").read_text(encoding="utf-8"))
    assert found["images"] == 2 and 0 <= found["arms"]["real"]["dice"]["mean"] <= 1


def test_each_command_refuses_in_one_line_and_with_status_2(nnunet_folders, tmp_path):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "a.png")
    told = refused(
        f"jdm-convert pairs --images {tmp_path}/images --masks {tmp_path}/masks --id 30 --name New "
        "--labels 0=background 255=x --strict"
    )
    assert "a" in told and not (nnunet_folders["nnUNet_raw"] / "Dataset030_New").exists()
    assert real.name in refused("jdm-train 99 0")
    assert "train.step" in refused("jdm-train 21 0 --train.steps 0")
    assert "train first" in refused("jdm-export 21 0 --id 521 --ratio 1.0")
    assert "99" in refused("jdm-experiment 21 --synthetic 99 --fold 0")
    assert [f.name for f in nnunet_folders["nnUNet_raw"].iterdir()] == [real.name]


def test_a_run_is_not_discarded_by_accident_and_its_plan_can_be_read_before_and_used_again(nnunet_folders, tmp_path):
    write_pictures(nnunet_folders["nnUNet_raw"])
    table = must(f"jdm-train 21 all {TINY_NETWORK} {SHORT} --dry-run")
    assert re.search(r"^train\.steps +4 +given", table, re.M) and re.search(r"^network\.base_channels +8 ", table, re.M)
    assert not list(nnunet_folders["jdm_results"].iterdir())
    must(f"jdm-train 21 all {TINY_NETWORK} {SHORT}")
    run = nnunet_folders["jdm_results"] / "Dataset021_Stripes" / "fold_all"
    before, plan = (run / "checkpoint.safetensors").read_bytes(), (run / "plan.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(plan.replace("steps = 4", "steps = 2"), encoding="utf-8")
    told = refused(f"jdm-train 21 all --plan {path}")
    assert "--resume" in told and "--overwrite" in told
    assert (run / "checkpoint.safetensors").read_bytes() == before
    printed, part = must(f"jdm-train 21 1 --plan {path} --train-fraction 0.5"), run.with_name("fold_1_of_0.5")
    assert "next: jdm-export 21 1_of_0.5" in printed
    real, trained = open_dataset(21), load_checkpoint(part).metadata["training_ids"]
    assert trained == train_fraction(real, fold_split(real, 1)[0], 0.5)
    again = (part / "plan.toml").read_text(encoding="utf-8")
    assert "steps = 2 # given" in again and "base_channels = 8 # given" in again
    path.write_text(plan.replace("steps = 4", "stepps = 4"), encoding="utf-8")
    told = refused(f"jdm-train 21 2 --plan {path}")
    assert "stepps" in told and "steps" in told

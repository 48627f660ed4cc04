"""A study: lengths until a plateau, amounts, folds, external test sets, shards and kills."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunet_blobs import write_blobs, write_provenance, write_real_and_synthetic
from nnunet_scores import evaluation, resolved, scored_images

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

from jdm.data.splits import fold_split, train_fraction
from jdm.errors import ConfigError, DataError
from jdm.report.folder import report_folder
from nnunet_integration.amounts import ratio_counts
from nnunet_integration.arms import ALL_ARMS, ExperimentOptions
from nnunet_integration.comparison import Entry, summarise_together
from nnunet_integration.cutmix import paired_cutmix
from nnunet_integration.experiment import run_experiment
from nnunet_integration.preparation import prepare
from nnunet_integration.study import RISE, checked, plateau
from nnunet_integration.trainings import Point, doubled, needed_trainings, networks, updates

OPTIONS = ExperimentOptions(
    real="11", synthetic=("511",), seeds=(0,), iterations=2, epochs=2, batch_size=2, network_features=(8, 16, 32),
    threads=1, device="cpu",
)  # fmt: skip


@pytest.fixture
def datasets(nnunet_folders):
    real, synthetic = write_real_and_synthetic(nnunet_folders["nnUNet_raw"])
    add_to_provenance(synthetic, real_amount=4)
    return real, synthetic


def add_to_provenance(synthetic, **entries) -> None:
    file = synthetic.folder / "provenance.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}), encoding="utf-8")


# ---------------------------------------------------------------- rules


@given(st.integers(1, 50).map(lambda n: 2 * n), st.floats(0.05, 0.95))
def test_all_arms_have_equal_totals_at_a_length(epochs, share):
    settings = resolved(iterations_per_epoch=7, synthetic_share=share)
    arms = [arm for arm in ALL_ARMS if arm != "real-long"]
    for arm in arms:
        assert sum(updates(settings, arm, Point(epochs))) == pytest.approx(7 * epochs)
    assert updates(settings, "pretrain-finetune", Point(epochs)) == (7 * epochs / 2, 7 * epochs / 2)
    # the pretraining of a length is the synthetic arm of half of it, and so are the parts of an ensemble real's
    shorter = {arm: networks(settings, arm, Point(epochs)) for arm in ("synthetic", "real")}
    needed = needed_trainings(settings, arms, Point(2 * epochs))
    assert {*shorter["synthetic"], *shorter["real"]} <= {*needed}
    # amounts change what trains on synthetic cases, and nothing else
    same = {t.name for t in needed} & {t.name for t in needed_trainings(settings, arms, Point(2 * epochs, 2.5))}
    assert same == {t.name for t in needed if t.share == 0 and t.after is None}


@given(st.lists(st.floats(0.06, 1), min_size=2, max_size=6))
def test_the_plateau_is_the_first_length_that_gained_too_little(dice):
    found = plateau(dict(zip([2**n for n in range(len(dice))], dice, strict=True)))
    gains = {2 ** (n + 1): b - a for n, (a, b) in enumerate(pairwise(dice))}
    assert found == next((length for length, gain in gains.items() if gain < RISE), None)


def test_a_network_that_has_learned_nothing_is_on_no_plateau():
    assert plateau({1: 0.0, 2: 0.0, 4: 0.3, 8: 0.301}) == 8
    assert plateau({1: None, 2: None}) is None


def test_lengths_double_up_to_the_bound():
    options = replace(OPTIONS, until_plateau=True, iterations=4)
    assert doubled(options, 2, 2) == [2, 4, 8, 16, 32]
    assert doubled(replace(options, most_iterations=15), 2, 2) == [2, 4]
    with pytest.raises(ConfigError, match="--most-iterations"):
        doubled(replace(options, most_iterations=7), 2, 2)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"most_iterations": 8}, "--until-plateau"),
        ({"until_plateau": True, "arms": ("mix",)}, "--arms"),
        ({"until_plateau": True, "pretrain_iterations": 3}, "--pretrain-iterations"),
        ({"until_plateau": True, "epochs": 1}, "--epochs"),
        ({"fold": ("0", "1")}, "--synthetic"),
        ({"shard": "2/2"}, "--shard"),
        ({"seeds": (0, 0)}, "--seeds"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes, flag):
    with pytest.raises(ConfigError, match=flag):
        checked(replace(OPTIONS, **changes))


def test_a_ratio_beyond_the_export_is_refused_before_anything_is_planned(datasets, nnunet_folders):
    _, synthetic = datasets
    assert ratio_counts((1, 2.5, 4), synthetic) == {1: 4, 2.5: 10, 4: 16}
    with pytest.raises(ConfigError, match=r"4\.5.*18.*16.*ratio of 4;"):
        run_experiment(replace(OPTIONS, ratios=(1, 4.5)))
    add_to_provenance(synthetic, real_amount=None)
    with pytest.raises(DataError, match="real_amount"):
        run_experiment(replace(OPTIONS, ratios=(1,)))
    assert list(nnunet_folders["nnUNet_preprocessed"].iterdir()) == []


def test_fractions_are_nested_and_of_whole_patients(datasets):
    real, synthetic = datasets
    record = [{"split": "train", "case": case, "group": f"p{n // 2}"} for n, case in enumerate(real.cases)]
    (real.folder / "conversion.json").write_text(json.dumps({"entries": record}), encoding="utf-8")
    before: set[str] = set()
    for fraction in (0.01, 0.25, 0.5, 0.6, 1.0):
        kept = train_fraction(real, real.cases, fraction)
        assert before <= {*kept} and len(kept) >= fraction * 8 and len(kept) % 2 == 0
        before = {*kept}
    assert kept == list(real.cases)
    with pytest.raises(ConfigError, match="--train-fraction"):
        train_fraction(real, real.cases, 0)
    training = fold_split(real, 0)[0]
    part = train_fraction(real, training, 0.5)
    with pytest.raises(DataError, match=r"Dataset511.*--train-fraction 0\.5"):
        prepare(replace(OPTIONS, train_fraction=0.5))
    write_provenance(synthetic, real, part)
    assert list(prepare(replace(OPTIONS, train_fraction=0.5)).training_ids) == part


def test_cutmix_moves_images_and_labels_together():
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 2, 16, 12)
    labels = [images[:, :1], images[:, :1, ::2, ::2]]
    mixed, (full, half) = paired_cutmix(images, labels, np.random.default_rng(1))
    torch.testing.assert_close(mixed[:, :1], full)
    assert sum(len(case.unique()) == 2 for case in mixed) >= 1 and all(len(case.unique()) <= 2 for case in mixed)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(6.0))  # the batch itself is left alone
    shares = [[(part != part.new_tensor(n)).float().mean() for n, part in enumerate(some)] for some in (full, half)]
    torch.testing.assert_close(torch.tensor(shares[0]), torch.tensor(shares[1]), atol=0.15, rtol=0)
    alone, label = paired_cutmix(images[:1], images[:1, :1], np.random.default_rng(0))
    assert torch.equal(alone, images[:1]) and torch.equal(label, images[:1, :1])


def test_holm_is_over_all_comparisons_of_a_study():
    arms = {"real": 0.7, "mix": 0.72}
    facts = {arm: {"updates_real": 1, "updates_synthetic": 0, "padding_share": 0.0} for arm in arms}

    def entry(images: int) -> Entry:
        scores = {arm: {0: evaluation(scored_images(images, "a", d, 0.05 * d))} for arm, d in arms.items()}
        return Entry(facts, scores, {f"i{i:02d}": f"i{i:02d}" for i in range(images)})

    alone = [summarise_together(resolved(), [entry(n)])[0] for n in (8, 12)]
    together = summarise_together(resolved(), [entry(8), entry(12)])
    p = [found["differences"][0]["dice"]["p"] for found in alone]
    adjusted = [found["differences"][0]["dice"]["p_holm"] for found in together]
    assert sorted(adjusted) == pytest.approx([2 * min(p), max(2 * min(p), max(p))])
    for before, after in zip(alone, together, strict=True):
        assert after["differences"][0]["dice"]["detectable"] > before["differences"][0]["dice"]["detectable"]


# ---------------------------------------------------------------- with nnU-Net

STUDY = ["--until-plateau", "--most-iterations", "4", "--ratios", "2", "4", "--arms", "real", "mix", "real-cutmix",
         "ensemble-2"]  # fmt: skip
PLAIN = ["jdm-experiment", "11", "--synthetic", "511", "--seeds", "0", "--iterations", "2", "--epochs", "2",
         "--batch-size", "2", "--network-features", "8", "16", "32", "--threads", "1", "--device", "cpu"]  # fmt: skip


def numbers(folder) -> dict:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {key: value for key, value in results.items() if key not in ("command", "trainings", "commit")}


@pytest.mark.slow
def test_a_study_killed_and_resumed_in_shards_ends_with_equal_numbers(datasets, nnunet_folders, tmp_path):
    other = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset012_Other", ["r0"], ["a", "b", "c"])
    plain = tmp_path / "elsewhere"
    shutil.copytree(other.folder / "imagesTs", plain / "images")
    shutil.copytree(other.folder / "labelsTs", plain / "labels")
    options = replace(
        OPTIONS, until_plateau=True, most_iterations=4, ratios=(2, 4), out=tmp_path / "whole",
        arms=("real", "mix", "real-cutmix", "ensemble-2"), test=(f"near={other.folder}", f"far={plain}"),
    )  # fmt: skip
    folder, results = run_experiment(options)
    assert results is not None
    check_study(folder, results)

    command = [*PLAIN, *STUDY, "--test", *options.test, "--out", str(tmp_path / "parts")]
    call = [sys.executable, "-c", "from jdm.cli.experiment import main; main()", *command[1:]]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as killed:
        until = time.monotonic() + 300
        while not [*(tmp_path / "parts" / "runs").glob("*/*/*/*/*/checkpoint_*.pth")] and time.monotonic() < until:
            assert killed.poll() is None, killed.stdout
            time.sleep(0.02)
        killed.kill()
    assert not (tmp_path / "parts" / "results.json").exists()
    with subprocess.Popen([*call, "--shard", "1/2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as second:
        run_experiment(replace(options, out=tmp_path / "parts", shard="0/2"))
        assert second.wait(300) == 0
    assert numbers(tmp_path / "parts") == numbers(folder)
    trainings = {path.parent.name: path for path in (tmp_path / "parts" / "runs").glob("*/seed_*/training.json")}
    assert trainings and {p.name for p in (folder / "runs").iterdir()} == {
        p.name for p in (tmp_path / "parts" / "runs").iterdir()
    }


def check_study(folder, results) -> None:
    study, [short, long] = results["study"], results["study"]["lengths"]["curve"]
    assert (short["updates"], long["updates"]) == (2, 4) and list(long["arms"]) == list(results["arms"])
    assert all(sum(v for k, v in facts.items() if "updates" in k) == 4 for facts in long["arms"].values())
    assert study["lengths"]["judged_on"] == "validation cases of fold 0" and not study["lengths"]["judged_on_scored"]
    assert results["arms"]["real"] == long["arms"]["real"]
    assert [(entry["ratio"], entry["cases"]) for entry in study["ratios"]] == [(2, 8), (4, 16)]
    assert study["ratios"][0]["arms"]["real"] == study["ratios"][1]["arms"]["real"]
    assert study["ratios"][0]["arms"]["mix"] != study["ratios"][1]["arms"]["mix"]
    assert study["tests"]["near"]["arms"] == study["tests"]["far"]["arms"] and study["tests"]["near"]["images"] == 3
    assert all(words in results["verdict"] for words in ("4 updates in total", "On near: ", "2 times: mix minus real"))
    page = report_folder(folder)
    twin = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))
    titles = [section["title"] for section in twin["sections"]]
    assert {"Longer training", "More synthetic cases", "Test cases"} <= {*titles}


def test_folds_are_pooled_and_each_case_is_scored_by_networks_that_did_not_see_it(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    real = write_blobs(raw / "Dataset011_Blobs", [f"r{i}" for i in range(6)])
    for fold in (0, 1):
        synthetic = write_blobs(raw / f"Dataset51{fold}_Blobs_syn", ["syn_0", "syn_1"])
        write_provenance(synthetic, real, fold_split(real, fold)[0], fold)
    options = replace(OPTIONS, synthetic=("510", "511"), fold=("0", "1"), arms=("real", "mix"))
    with pytest.raises(DataError, match=r"fold 1 of Dataset011_Blobs.*to be evaluated"):
        run_experiment(replace(options, fold=("1", "0")))
    folder, results = run_experiment(options)
    assert results is not None and folder.name == "experiment_folds_0_1"
    held_out = [fold_split(real, fold)[1] for fold in (0, 1)]
    assert results["images"] == sum(map(len, held_out)) == results["data"]["test_cases"]
    for fold, ids in enumerate(held_out):
        scores = json.loads((folder / f"fold_{fold}" / "scores" / "real_seed_0.json").read_text(encoding="utf-8"))
        assert sorted(case["case_id"] for case in scores["cases"]) == sorted(ids)
    report_folder(folder)


def test_a_fraction_is_what_nnunet_trains_on(datasets):
    real, synthetic = datasets
    training = fold_split(real, 0)[0]
    part = train_fraction(real, training, 0.5)
    write_provenance(synthetic, real, part)
    folder, results = run_experiment(replace(OPTIONS, train_fraction=0.5, arms=("real",)))
    assert results is not None and folder.name == "experiment_fold_0_of_0.5"
    assert results["data"]["training_cases"] == len(part) < len(training)
    [run] = folder.glob("runs/real/seed_0/*/*/fold_0/jdm_run.json")
    assert json.loads(run.read_text(encoding="utf-8"))["settings"]["train_fraction"] == 0.5

"""Classifiers with and without synthetic images: scores, arms, resumption, leaks."""

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from jdm.classify.arms import phases, train
from jdm.classify.images import Images, augmented
from jdm.classify.networks import build
from jdm.classify.report import report, verdict
from jdm.classify.request import ARMS, USUAL, ClassifyOptions
from jdm.classify.run import classify
from jdm.classify.scores import auc, by_class, calibration_error, confusion, intervals, scores
from jdm.cli.classify import main
from jdm.data.classes import FILE_NAME, classes_csv
from jdm.data.raster import Raster
from jdm.data.raw_dataset import open_dataset, write_dataset_json, write_image
from jdm.data.splits import fold_split
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.report.classified import classify_report
from jdm.system.files import strict, write_json

QUICK = {"iterations": 12, "seeds": (0,), "size": 16, "batch_size": 8}


def write(raw, name: str, count: int, seed: int, test: int = 0, trained: list[str] | None = None) -> None:
    """Dark and bright images, by turns; with `trained`, synthetic ones."""
    folder, rng, classes = raw / name, np.random.default_rng(seed), {}
    for part, number in (("Tr", count), ("Ts", test)):
        for n in range(number):
            label = ("bright", "dark")[n % 2]
            image = rng.normal(70 if label == "dark" else 180, 25, (1, 16, 16)).clip(0, 255).astype(np.uint8)
            case = f"{part}_{label}_{n:02d}"
            write_image(folder / f"images{part}", case, Raster(image, (1.0, 1.0)), ".png")
            classes[case] = label
    write_dataset_json(folder, channel_names=["grey"], labels={"background": 0}, file_ending=".png", num_training=count)
    (folder / FILE_NAME).write_text(classes_csv(classes))
    if trained is not None:
        origin = {"dataset": "Dataset071_Real", "training_ids": trained}
        (folder / "provenance.json").write_text(json.dumps({"generator": origin}))


@pytest.fixture
def both(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    write(raw, "Dataset071_Real", 20, seed=0, test=10)
    write(raw, "Dataset571_Syn", 12, seed=1, trained=fold_split(open_dataset(71), "0")[0])
    return raw


def test_every_arm_learns_what_is_easy_and_the_report_says_so(both, monkeypatch, capsys):
    words = ["jdm-classify", "71", "--synthetic", "571", "--iterations", "40", "--size", "16", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    printed = capsys.readouterr().out
    folder = next(path.parent for path in both.parent.rglob("results.md"))
    results = json.loads((folder / "results.json").read_text())
    assert set(results["arms"]) == set(USUAL) and results["runs"] == 2 and results["images"] == 10
    assert results["settings"]["scored"] == "imagesTs"
    for arm, part in results["arms"].items():
        assert part["overall"]["accuracy"]["mean"] > 0.9, arm
        assert np.sum(part["confusion"]) == 20
    assert results["verdict"] in printed and "mixed made no difference" in printed
    assert (folder / "confusion.png").stat().st_size > 1000 and (folder / "curves.png").stat().st_size > 1000


def test_a_killed_comparison_goes_on_to_equal_numbers(both, tmp_path, monkeypatch):
    whole = classify(ClassifyOptions("71", "571", out=tmp_path / "whole", **QUICK))[1]
    from jdm.classify import run

    calls, trained = [], run.train

    def dies(*arguments, **named):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return trained(*arguments, **named)

    monkeypatch.setattr(run, "train", dies)
    options = ClassifyOptions("71", "571", out=tmp_path / "cut", **QUICK)
    with pytest.raises(KeyboardInterrupt):
        classify(options)
    assert classify(options)[1] == whole
    assert len(calls) == 4 + len(USUAL) - 3, "finished arms are not trained again"
    more = ClassifyOptions("71", "571", out=tmp_path / "cut", **{**QUICK, "seeds": (0, 1)})
    assert classify(more)[1]["runs"] == 2
    other = ClassifyOptions("71", "571", out=tmp_path / "cut", **{**QUICK, "iterations": 13})
    with pytest.raises(ExistsError, match=r"other settings \(iterations\).*--overwrite"):
        classify(other)


def test_without_a_test_set_the_validation_cases_of_all_folds_are_scored(both):
    real = open_dataset(71)
    for path in (real.folder / "imagesTs").iterdir():
        path.unlink()
    lines = (real.folder / FILE_NAME).read_text().splitlines()
    (real.folder / FILE_NAME).write_text("\n".join(line for line in lines if not line.startswith("Ts")))
    (both / "Dataset571_Syn" / "provenance.json").write_text(
        json.dumps({"generator": {"dataset": "Dataset071_Real", "training_ids": ["elsewhere"]}})
    )
    options = ClassifyOptions("71", "571", folds=("0", "1", "2", "3", "4"), arms=("real",), **QUICK)
    results = classify(options)[1]
    assert (results["images"], results["runs"], results["settings"]["scored"]) == (20, 1, "validation")


def test_leaks_and_sets_that_do_not_fit_are_refused(both):
    origin = both / "Dataset571_Syn" / "provenance.json"
    generator = {"dataset": "Dataset071_Real", "training_ids": [open_dataset(71).test_cases[0]]}
    for change, message in (({}, "Ts_bright_00"), ({"dataset": "Dataset007_Other"}, "generated from Dataset007_Other")):
        origin.write_text(json.dumps({"generator": {**generator, **change}}))
        with pytest.raises(DataError, match=message):
            classify(ClassifyOptions("71", "571", **QUICK))
    with pytest.raises(DataError, match="is not synthetic"):
        classify(ClassifyOptions("71", "71", **QUICK))
    for change, flag in (({"iterations": 0}, "iterations"), ({"arms": ("mixed",)}, "arms")):
        with pytest.raises(ConfigError, match=f"--{flag}"):
            classify(ClassifyOptions("71", "571", **{**QUICK, **change}))
    (both / "Dataset571_Syn" / FILE_NAME).unlink()
    with pytest.raises(DataError, match=r"Dataset571_Syn has no classes\.csv"):
        classify(ClassifyOptions("71", "571", **QUICK))


def test_a_class_that_is_never_predicted_has_no_precision_and_still_a_report(tmp_path):
    first = np.array([0.9, 0.8, 0.3, 0.2, 0.6, 0.4])
    p = np.stack([first, 1 - first, 0 * first], 1)[None]
    found = {
        "names": ("a", "b", "c"), "y": np.array([0, 0, 1, 1, 2, 2]), "groups": list("uvwxyz"), "cases": list("uvwxyz"),
        "arms": {arm: {"p": p, "losses": [[1.0, 0.5]]} for arm in ("real", "synthetic")},
    }  # fmt: skip
    settings = {
        "real": "71", "synthetic": "571", "network": "small", "size": 16, "iterations": 12, "batch_size": 8,
        "folds": ["0"], "classes": ["a", "b", "c"], "synthetic_images": 3, "scored": "imagesTs",
    }  # fmt: skip
    results = strict(report(found, settings, tmp_path))
    assert results["arms"]["synthetic"]["classes"]["c"]["precision"] is None
    write_json(tmp_path / "results.json", results)
    assert "Class c" in str(classify_report(tmp_path))


def test_arms_and_their_controls_have_as_many_updates():
    total = {arm: sum(phase.updates for phase in phases(arm, 100)) for arm in ARMS}
    assert total["real"] == total["augmented"] == total["synthetic"] == 100
    assert total["real-long"] == total["synthetic-then-real"] == total["mixed"] == total["pooled"] == 200


def test_pooled_images_top_up_a_class_and_classes_balanced_draws_all_classes_alike():
    """Real images are 0, synthetic ones, all of class 1, are 1."""
    real = Images(tuple("abcdefgh"), torch.zeros(8, 1, 8, 8), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    made = Images(tuple("stuvwx"), torch.ones(6, 1, 8, 8), torch.ones(6, dtype=torch.long))

    class Recording(torch.nn.Linear):
        def forward(self, input):
            seen.append(input[:, 0, 0, :1])
            return super().forward(seen[-1])

    seen: list[torch.Tensor] = []
    for balanced, share in ((False, 6 / 14), (True, 0.5 * 6 / 8)):
        seen.clear()
        options = ClassifyOptions("71", "571", iterations=100, batch_size=16, classes_balanced=balanced)
        train(Recording(1, 2), "pooled", real, made, options, 0, lambda: None)
        assert len(seen) == 200
        assert torch.cat(seen).mean().item() == pytest.approx(share, abs=0.04)


@given(st.integers(2, 4), st.integers(0, 2**31))
def test_scores_agree_with_scikit_learn(classes, seed):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, classes, 40), rng.dirichlet(np.ones(classes), 40).round(2)
    found = p.argmax(1)
    np.testing.assert_array_equal(confusion(y, p), metrics.confusion_matrix(y, found, labels=range(classes)))
    assert scores(y, p)["accuracy"] == pytest.approx(metrics.accuracy_score(y, found))
    recalls = metrics.recall_score(y, found, labels=np.unique(y), average="macro", zero_division=0)
    assert scores(y, p)["balanced accuracy"] == pytest.approx(recalls)
    for k, row in enumerate(by_class(y, p)):
        if 0 < (y == k).sum() < len(y):
            assert row["AUC"] == pytest.approx(metrics.roc_auc_score(y == k, p[:, k]))
            assert row["sensitivity"] == pytest.approx(metrics.recall_score(y == k, found == k))
            assert row["specificity"] == pytest.approx(metrics.recall_score(y != k, found != k))


def test_calibration_and_auc_of_known_cases():
    y = np.array([0, 0, 0, 1])
    sure = np.array([[0.75, 0.25]] * 4)
    assert calibration_error(y, sure) == pytest.approx(0)  # right in three of four
    assert calibration_error(1 - y, sure) == pytest.approx(0.5)
    assert auc(np.array([True, False]), np.array([0.5, 0.5])) == 0.5
    assert np.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_intervals_resample_patients_whole():
    y, p = np.arange(40) % 2, np.zeros((1, 40, 2))
    right = np.arange(40) < 30
    p[0, np.arange(40), np.where(right, y, 1 - y)] = 1
    by_image = intervals(y, p, [str(n) for n in range(40)])["accuracy"]
    by_patient = intervals(y, p, [str(n // 10) for n in range(40)])["accuracy"]
    assert by_image["mean"] == by_patient["mean"] == 0.75
    assert by_patient["high"] - by_patient["low"] > 1.5 * (by_image["high"] - by_image["low"])


def test_the_verdict_names_the_smallest_effect_that_could_be_seen():
    entry = {"arm": "mixed", "minus": "real-long", "mean": 0.1, "low": 0.05, "high": 0.15, "p_holm": 0.01,
             "detectable": 0.07}  # fmt: skip
    results = {"images": 9, "groups": 9, "runs": 1, "differences": [entry]}
    assert "mixed helped: +0.100" in verdict(results)
    assert "0.070 or more would have been seen" in verdict({**results, "differences": [{**entry, "p_holm": 0.2}]})


def test_augmentation_mirrors_half_and_keeps_the_light():
    x = torch.zeros(400, 1, 16, 16)
    x[..., :8] = 1
    found = augmented(x, torch.Generator().manual_seed(0))
    mirrored = (found[..., 8:].mean((1, 2, 3)) > 0.5).float().mean().item()
    assert 0.4 < mirrored < 0.6
    assert found.mean().item() == pytest.approx(0.5, abs=0.02)


def test_resnet_takes_weights_from_a_file_and_other_channels(tmp_path):
    from torchvision.models import resnet50

    state = resnet50().state_dict()
    torch.save(state, tmp_path / "weights.pt")
    model = build("resnet50", 1, 3, tmp_path / "weights.pt")
    grey = torch.randn(2, 1, 64, 64)
    assert model(grey).shape == (2, 3)
    summed = state["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(dict(model.named_parameters())["conv1.weight"].data, summed)
    (tmp_path / "wrong.pt").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"--weights .*wrong\.pt is no state dict"):
        build("resnet50", 3, 2, tmp_path / "wrong.pt")

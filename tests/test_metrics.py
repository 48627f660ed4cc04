"""Scores equal nnU-Net's, pysodmetrics' and medpy's where those define them; undefined cases; refusals."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scored_masks import blobs, write_masks

from jdm.errors import ConfigError, DataError
from jdm.evaluation import metrics
from jdm.evaluation.metrics import (
    count,
    evaluate_folders,
    mean_surface_distance,
    stretch,
    surface_distance_95,
    swept_overlap,
)

masks = arrays(np.bool_, (5, 7))


@given(masks, masks)
def test_counts_are_a_partition_and_count_what_they_say(prediction: np.ndarray, reference: np.ndarray) -> None:
    counts = count(prediction, reference)
    assert sum(counts) == reference.size
    assert counts.tp + counts.fp == prediction.sum()
    assert counts.tp + counts.fn == reference.sum()
    assert counts.tn == (~prediction & ~reference).sum()


@given(masks, masks, st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)))
@settings(max_examples=40, deadline=None)
def test_distance_is_medpys_and_undefined_where_a_mask_is_empty(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float]
) -> None:
    from medpy.metric.binary import assd, hd95

    found = surface_distance_95(prediction, reference, spacing), mean_surface_distance(prediction, reference, spacing)
    if prediction.any() and reference.any():
        theirs = (hd95(prediction, reference, spacing), assd(prediction, reference, spacing))
        assert found == pytest.approx(theirs, abs=1e-12)
    else:
        assert all(map(math.isnan, found))


def test_distance_of_shifted_points_is_their_distance_in_physical_units() -> None:
    prediction, reference = np.zeros((2, 3, 9, 9), bool)
    prediction[0, 1, 2] = reference[2, 5, 2] = True
    assert surface_distance_95(prediction, reference, (2.5, 3.0, 1.0)) == pytest.approx(math.hypot(5, 12))


@pytest.fixture
def three_classes(tmp_path: Path) -> tuple[Path, Path]:
    """Six cases of classes 0, 1, 2; class 2 is absent from both masks of case 0, and from one of cases 1 and 2."""
    rng = np.random.default_rng(0)
    references = {f"case_{i}": blobs(rng) for i in range(6)}
    predictions = {name: np.where(rng.random(mask.shape) < 0.2, 0, mask) for name, mask in references.items()}
    references["case_0"][references["case_0"] == 2] = 0
    predictions["case_0"][predictions["case_0"] == 2] = 1
    predictions["case_1"][predictions["case_1"] == 2] = 0
    references["case_2"][references["case_2"] == 2] = 1
    predictions = {name: mask.astype(np.uint8) for name, mask in predictions.items()}
    return write_masks(tmp_path / "predictions", predictions), write_masks(tmp_path / "references", references)


def test_nnunet_convention_equals_nnunet(three_classes: tuple[Path, Path], tmp_path: Path) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    predictions, references = three_classes
    found = evaluate_folders(predictions, references, "nnunet", labels={"a": 1, "b": 2})
    theirs = [
        compute_metrics(str(references / file.name), str(file), NaturalImage2DIO(), [1, 2])["metrics"]
        for file in sorted(predictions.iterdir())
    ]
    names = {"Dice": "dice", "IoU": "iou", "TP": "tp", "FP": "fp", "FN": "fn", "TN": "tn"}
    names |= {"n_pred": "n_pred", "n_ref": "n_ref"}
    for value, label in ((1, "a"), (2, "b")):
        ours = [score for score in found.cases if score.label == label]
        for theirs_name, name in names.items():
            np.testing.assert_equal([getattr(s, name) for s in ours], [case[value][theirs_name] for case in theirs])
    # the means, as nnunetv2 2.8.1 takes them in compute_metrics_on_folder
    means = {v: np.nanmean([case[v]["Dice"] for case in theirs]) for v in (1, 2)}
    assert [c.dice for c in found.classes] == pytest.approx([means[1], means[2]], abs=1e-15)
    assert found.mean_dice == pytest.approx(np.mean(list(means.values())), abs=1e-15)
    assert math.isnan(found.cases[1].dice)  # class b of case 0: absent from both
    assert found.cases[3].dice == 0  # not found in case 1
    assert found.cases[5].dice == 0  # found though absent in case 2
    assert [(c.empty_reference, c.empty_both) for c in found.classes] == [(0, 0), (2, 1)]


def test_nnunet_convention_equals_a_whole_summary_json(three_classes: tuple[Path, Path]) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    predictions, references = three_classes
    theirs = compute_metrics_on_folder(
        str(references), str(predictions), None, NaturalImage2DIO(), ".png", [1, 2], num_processes=1
    )
    found = evaluate_folders(predictions, references, "nnunet", labels={"a": 1, "b": 2}, distances=False)
    assert found.mean_dice == pytest.approx(theirs["foreground_mean"]["Dice"], abs=1e-15)
    assert found.mean_iou == pytest.approx(theirs["foreground_mean"]["IoU"], abs=1e-15)
    for value, ours in zip((1, 2), found.classes, strict=True):
        assert ours.dice == pytest.approx(theirs["mean"][value]["Dice"], abs=1e-15)
        assert ours.iou == pytest.approx(theirs["mean"][value]["IoU"], abs=1e-15)


def _sod(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    from py_sod_metrics import DICEHandler, FmeasureV2, IOUHandler

    handlers = {
        "dice": DICEHandler(with_dynamic=True, with_adaptive=False, with_binary=True),
        "iou": IOUHandler(with_dynamic=True, with_adaptive=False, with_binary=True),
    }
    scorer = FmeasureV2(metric_handlers=handlers)
    for prediction, reference in pairs:
        scorer.step(pred=prediction, gt=reference)
    return scorer.get_results()


def test_pranet_convention_equals_pysodmetrics_swept_and_fixed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pairs = []
    for i in range(6):
        reference = (blobs(rng, classes=2) * 255).astype(np.uint8)
        soft = np.clip(reference * 0.5 + 60 * rng.standard_normal(reference.shape) + 60, 0, 255)
        pairs.append((soft.astype(np.uint8), reference))
        if i == 1:
            reference[:] = rng.choice([0, 3, 126, 128, 129, 255], reference.shape)
    empty, full = np.zeros((9, 8), np.uint8), np.full((9, 8), 255, np.uint8)
    pairs += [(empty, empty), (full, empty), (empty, full), (full, full), (np.full_like(full, 90), full)]
    predictions = write_masks(tmp_path / "p", {f"{i:02}": p for i, (p, _) in enumerate(pairs)})
    references = write_masks(tmp_path / "r", {f"{i:02}": r for i, (_, r) in enumerate(pairs)})
    theirs = _sod(pairs)
    (ours,) = evaluate_folders(predictions, references, "pranet", distances=False).classes
    for name in ("dice", "iou"):
        assert getattr(ours, name) == pytest.approx(theirs[name]["dynamic"].mean(), abs=1e-12)
        assert getattr(ours, f"{name}_fixed") == pytest.approx(theirs[name]["binary"], abs=1e-12)
    dice, iou = swept_overlap(stretch(pairs[0][0] / 255), pairs[0][1] > 128)
    np.testing.assert_allclose(dice, _sod(pairs[:1])["dice"]["dynamic"], atol=1e-12)
    np.testing.assert_allclose(iou, _sod(pairs[:1])["iou"]["dynamic"], atol=1e-12)


def test_pranet_convention_costs_a_hard_mask_the_threshold_zero(tmp_path: Path) -> None:
    """Threshold 0 takes the whole image as foreground: one 256th of the score is that of a full mask."""
    reference = np.zeros((10, 10), np.uint8)
    reference[:2] = 1
    prediction = np.roll(reference, 1, axis=0)
    folders = write_masks(tmp_path / "p", {"a": prediction}), write_masks(tmp_path / "r", {"a": reference})
    (found,) = evaluate_folders(*folders, "pranet").classes
    assert found.dice_fixed == pytest.approx(0.5)
    assert found.dice == pytest.approx((255 * 0.5 + 2 * 20 / 120) / 256)
    (named,) = evaluate_folders(*folders, "pranet", labels={"polyp": 1}).classes
    assert (named.label, named.dice) == ("polyp", found.dice)


def test_thesis_convention_thresholds_at_127_and_reports_empty_cases(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    grey = {name: rng.integers(0, 256, (12, 12)).astype(np.uint8) for name in "ab"}
    for image in grey.values():
        image[0, :4] = [126, 127, 128, 255]
    small = {name: (rng.random((12, 12)) < 0.4).astype(np.uint8) for name in "ab"}
    folders = write_masks(tmp_path / "p", grey), write_masks(tmp_path / "r", small)
    found = evaluate_folders(*folders, "thesis")
    for score in found.cases:
        p, r = grey[score.case_id] >= 127, small[score.case_id] > 0
        assert score.dice == pytest.approx(2 * (p & r).sum() / (p.sum() + r.sum()))
        assert score.iou == pytest.approx((p & r).sum() / (p | r).sum())
    assert found.mean_dice == pytest.approx(np.mean([s.dice for s in found.cases]))
    pooled = [sum(getattr(s, n) for s in found.cases) for n in ("tp", "fp", "fn")]
    assert found.micro_dice == pytest.approx(2 * pooled[0] / (2 * pooled[0] + pooled[1] + pooled[2]))
    assert found.micro_iou == pytest.approx(pooled[0] / sum(pooled))

    write_masks(tmp_path / "p", {"c": np.zeros((5, 5), np.uint8)})
    write_masks(tmp_path / "r", {"c": np.zeros((5, 5), np.uint8)})
    with_empty = evaluate_folders(*folders, "thesis")
    assert math.isnan(with_empty.mean_dice)
    assert with_empty.classes[0].empty_both == 1
    assert with_empty.classes[0].dice_defined == pytest.approx(found.mean_dice)
    assert f"{found.mean_dice:.4f}" in with_empty.to_markdown()


def test_files_are_strict_and_complete(three_classes: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate_folders(*three_classes, "nnunet", labels={"a": 1, "b": 2})
    paths = found.write(tmp_path / "out")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    values = json.loads(paths[0].read_text(), parse_constant=refuse)
    assert values["cases"][1]["dice"] is None
    assert values["mean_dice"] == found.mean_dice
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert len(rows) == 12
    assert rows[1]["dice"] == ""
    assert float(rows[0]["dice"]) == found.cases[0].dice
    assert int(rows[0]["n_ref"]) == found.cases[0].n_ref
    widths = {line.count("|") for line in paths[2].read_text().splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_what_does_not_fit_is_refused_in_one_line(three_classes: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = three_classes
    labels = {"a": 1, "b": 2}

    def message(error: type[Exception], **changes: object) -> str:
        arguments = {
            "predictions": predictions,
            "references": references,
            "convention": "nnunet",
            "labels": labels,
        }
        with pytest.raises(error) as caught:
            evaluate_folders(**{**arguments, **changes})  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "--labels" in message(ConfigError, labels=None)
    for changes in ({"labels": None, "convention": "thesis"}, {"labels": {"nuclei": 255}}, {"labels": {"a": 1}}):
        found = message(DataError, **changes)
        assert "case_" in found and "values 0, 1" in found and "--labels" in found
    assert "nowhere" in message(DataError, predictions=tmp_path / "nowhere")
    for name in ("case_3", "case_5"):
        (predictions / f"{name}.png").unlink()
    assert "case_3, case_5" in message(DataError)
    found = evaluate_folders(predictions, references, "nnunet", labels=labels, allow_missing=True)
    assert found.missing == ("case_3", "case_5")
    assert len(found.case_ids) == 4
    write_masks(predictions, {"stray": np.zeros((4, 4), np.uint8)})
    assert "case_3" in message(DataError)
    write_masks(predictions, {name: np.zeros((4, 4), np.uint8) for name in ("case_3", "case_5")})
    assert "stray" in message(DataError)
    (predictions / "stray.png").unlink()
    assert "4x4" in message(DataError) and "40x50" in message(DataError)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(predictions / "case_3.bmp")
    assert "case_3.bmp" in message(DataError)


def test_command_prints_the_table_and_names_labels(
    three_classes: tuple[Path, Path],
    nnunet_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    from jdm.cli import evaluate

    predictions, references = three_classes
    base = ["jdm-evaluate", "--predictions", str(predictions), "--references", str(references)]
    monkeypatch.setattr("sys.argv", [*base, "--labels", "1", "2", "--out", str(tmp_path / "out"), "--no-hd95"])
    evaluate.main()
    assert (tmp_path / "out" / "evaluation.md").read_text() in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", base)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1

    dataset = nnunet_folders["nnUNet_raw"] / "Dataset011_Cells"
    write_masks(dataset / "imagesTr", {"a_0000": np.zeros((4, 4), np.uint8)})
    write_masks(dataset / "labelsTr", {"a": np.eye(4, dtype=np.uint8)})
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "rim": 1, "core": 2}}
    description |= {"numTraining": 1, "file_ending": ".png"}
    (dataset / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setattr("sys.argv", [*base, "--dataset", "11"])
    evaluate.main()
    assert "| core |" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", base)
    (predictions / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, "two"]}}')
    with pytest.raises(SystemExit) as stopped:
        evaluate.main()
    assert stopped.value.code == 2
    assert "dataset.json" in capsys.readouterr().err
    (predictions / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, 2]}}')
    evaluate.main()
    assert "| whole |" in capsys.readouterr().out

    description |= {"labels": {"background": 0, "whole": [1, 2], "ignore": 3}, "regions_class_order": [1]}
    (dataset / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setattr("sys.argv", [*base, "--dataset", "11", "--empty-hd95", "diagonal"])
    evaluate.main()
    out = capsys.readouterr().out
    assert "| whole |" in out and "image diagonal" in out and out.startswith("Dice 0.")
    (dataset / "dataset.json").write_text('{"labels": {"background": 0, "a": 1, "ignore": 1}}')
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "ignore" in capsys.readouterr().err


def test_needs_neither_torch_nor_nnunet() -> None:
    import subprocess
    import sys

    modules = ["metrics", "masks", "scores", "statistics", "audit", "figures", "tables"]
    code = "import sys;" + ";".join(f"import jdm.evaluation.{m}" for m in modules)
    code += ";assert not {'torch', 'nnunetv2', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert metrics.FOREGROUND == "foreground"

"""Metrics of masks however they are stored: regions, ignored voxels, codings, and volumes compared in space."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scored_masks import blobs, write_masks

from jdm.errors import DataError
from jdm.evaluation.metrics import evaluate_folders

# ---------------------------------------------------------------- regions, ignored voxels, and how labels are stored

REGIONS = {"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}


def test_regions_and_ignored_voxels_are_scored_as_nnunet_scores_them(tmp_path: Path) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    rng = np.random.default_rng(3)
    references = {f"case_{i}": blobs(rng, classes=4) for i in range(5)}
    predictions = {
        name: np.where(rng.random(mask.shape) < 0.3, rng.integers(0, 3, mask.shape), mask % 3).astype(np.uint8)
        for name, mask in references.items()
    }
    folders = write_masks(tmp_path / "p", predictions), write_masks(tmp_path / "r", references)
    found = evaluate_folders(*folders, "nnunet", labels=REGIONS, distances=False)
    manager = LabelManager({**REGIONS, "whole": [1, 2]}, regions_class_order=[1, 2])
    theirs = compute_metrics_on_folder(
        str(folders[1]), str(folders[0]), None, NaturalImage2DIO(), ".png", manager.foreground_regions,
        manager.ignore_label, num_processes=1,
    )  # fmt: skip
    assert [c.label for c in found.classes] == ["whole", "core"]
    assert found.mean_dice == pytest.approx(theirs["foreground_mean"]["Dice"], abs=1e-15)
    for ours, region in zip(found.classes, manager.foreground_regions, strict=True):
        assert (ours.dice, ours.iou) == pytest.approx([theirs["mean"][region][m] for m in ("Dice", "IoU")], abs=1e-15)
    counts = [(c.tp, c.fp, c.fn, c.tn) for c in found.cases if c.label == "whole"]
    for ours, case in zip(counts, theirs["metric_per_case"], strict=True):
        assert ours == tuple(case["metrics"][(1, 2)][m] for m in ("TP", "FP", "FN", "TN"))
    assert evaluate_folders(*folders, "nnunet", labels={"whole": (1, 2), "core": 2, "rest": 3}).mean_dice < 0.8


@pytest.mark.parametrize("convention", ["nnunet", "thesis", "pranet"])
def test_what_is_predicted_where_the_reference_ignores_changes_no_score(tmp_path: Path, convention: str) -> None:
    reference = np.zeros((12, 12), np.uint8)
    reference[2:6, 2:6], reference[8:] = 1, 2
    predictions = {name: np.where(reference == 1, 1, 0).astype(np.uint8) for name in ("empty", "full")}
    predictions["full"][8:] = 1
    folders = (
        write_masks(tmp_path / "p", predictions),
        write_masks(tmp_path / "r", dict.fromkeys(predictions, reference)),
    )
    first, second = evaluate_folders(*folders, convention, labels={"a": 1, "ignore": 2}).cases
    assert first.tp + first.fp + first.fn + first.tn == 8 * 12
    assert (first.dice, first.hd95, first.fp) == (second.dice, second.hd95, second.fp)
    assert (first.hd95, first.fp) == (0, 0) and first.dice == pytest.approx(1, abs=0.004)
    write_masks(tmp_path / "r", dict.fromkeys(predictions, np.full_like(reference, 2)))
    assert math.isnan(evaluate_folders(*folders, "nnunet", labels={"a": 1, "ignore": 2}).mean_dice)


CODINGS = {
    "whole numbers": lambda mask: mask.astype(np.uint8),
    "16 bits": lambda mask: mask.astype(np.int16),
    "one unit off": lambda mask: np.nextafter(mask.astype(np.float32), 0),
    "rounded": lambda mask: mask + 5e-4 * np.sin(np.arange(mask.size)).reshape(mask.shape),
}


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_are_those_of_the_voxels_however_labels_are_stored(tmp_path: Path, data: st.DataObject) -> None:
    """Random datasets: absent classes, regions, ignored voxels, and a coding for each file."""
    import SimpleITK

    labels = data.draw(st.sampled_from([REGIONS, {"core": 2, "whole": (1, 2), "ignore": 3}, {"c": 3, "a": 1, "b": 2}]))
    expected = []
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    for case in range(data.draw(st.integers(1, 3))):
        present = data.draw(st.lists(st.integers(0, 3), min_size=1, unique=True))
        prediction, reference = data.draw(arrays(np.int64, (2, 3, 4, 4), elements=st.sampled_from(present)))
        for side, mask in (("p", prediction), ("r", reference)):
            stored = CODINGS[data.draw(st.sampled_from(sorted(CODINGS)))](mask)
            (folder / side).mkdir(exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(stored), str(folder / side / f"{case}.nii.gz"))
        seen = reference != labels.get("ignore", -1)
        for name, value in labels.items():
            if name not in ("background", "ignore"):
                p, r = (np.isin(mask, value) & seen for mask in (prediction, reference))
                both = p.sum() + r.sum()
                expected.append((str(case), name, 2 * (p & r).sum() / both if both else math.nan))
    found = evaluate_folders(folder / "p", folder / "r", "nnunet", labels=labels, distances=False)
    np.testing.assert_equal([(c.case_id, c.label, c.dice) for c in found.cases], expected)


def test_a_folder_may_mix_0_1_and_0_255(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    masks = {f"{i}": (rng.random((8, 8)) < 0.5).astype(np.uint8) for i in range(4)}
    mixed = {name: mask * (255 if i % 2 else 1) for i, (name, mask) in enumerate(masks.items())}
    other = {name: mask * (1 if i > 1 else 255) for i, (name, mask) in enumerate(masks.items())}
    folders = write_masks(tmp_path / "p", mixed), write_masks(tmp_path / "r", other)
    assert evaluate_folders(*folders, "thesis").mean_dice == 1
    assert evaluate_folders(*folders, "pranet").classes[0].dice_fixed == 1


@pytest.mark.parametrize(
    ("values", "convention", "labels", "named"),
    [
        ([0.0, 0.3, 0.9], "thesis", None, ["0.3, 0.9", "--convention pranet"]),
        ([0.0, 0.3, 0.9], "nnunet", {"a": 1}, ["0.3, 0.9", "--convention pranet"]),
        ([0.0, 1.002], "nnunet", {"a": 1}, ["1.002"]),
        ([0, 255], "nnunet", {"a": 1}, ["0, 255", "0, 1", "--labels"]),
        ([0, 2], "thesis", None, ["0, 2", "0/255", "--labels"]),
        ([0.0, 40.0, 300.0], "pranet", None, ["300", "0 to 255"]),
        ([-1.0, 0.5], "pranet", None, ["-1", "0 to 255"]),
    ],
)
def test_a_file_whose_values_say_nothing_is_refused_by_name(tmp_path, values, convention, labels, named) -> None:
    import tifffile

    good = np.eye(3, dtype=np.uint8)
    for side in ("p", "r"):
        (tmp_path / side).mkdir()
        for name in ("good", "bad"):
            tifffile.imwrite(tmp_path / side / f"{name}.tif", good)
    bad = np.resize(np.array(values), (3, 3))
    tifffile.imwrite(tmp_path / "p" / "bad.tif", bad.astype(np.uint8 if bad.dtype.kind == "i" else np.float32))
    with pytest.raises(DataError) as refused:
        evaluate_folders(tmp_path / "p", tmp_path / "r", convention, labels=labels)
    assert all(text in str(refused.value) for text in ["bad.tif", *named]) and "\n" not in str(refused.value)


# ---------------------------------------------------------------- space and distances


def _volume(
    folder: Path, array: np.ndarray, orient: str = "LPS", origin: tuple[float, ...] = (5.0, -7.0, 90.0)
) -> None:
    import SimpleITK

    folder.mkdir(exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.5, 3.0))
    image.SetOrigin(origin)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orient), str(folder / "case.nii.gz"))


def test_volumes_are_scored_in_their_spacing(tmp_path: Path) -> None:
    mask = np.zeros((4, 6, 6), np.uint8)
    mask[1, 2, 2] = 1
    _volume(tmp_path / "p", np.roll(mask, 2, axis=0))
    _volume(tmp_path / "r", mask)
    found = evaluate_folders(tmp_path / "p", tmp_path / "r", "nnunet", labels={"tumour": 1})
    assert found.cases[0].hd95 == found.cases[0].assd == pytest.approx(6.0) and found.cases[0].voxel_size == 0.75
    assert "medpy" in found.hd95_implementation


@pytest.mark.parametrize("orient", ["RAI", "LPI", "SAR", "PIL"])
def test_a_prediction_stored_along_other_axes_is_compared_in_space(tmp_path: Path, orient: str) -> None:
    rng = np.random.default_rng(5)
    reference = (rng.random((4, 6, 5)) < 0.4).astype(np.uint8)
    prediction = np.where(rng.random(reference.shape) < 0.2, 1 - reference, reference)
    _volume(tmp_path / "r", reference)
    _volume(tmp_path / "p", prediction)
    straight = evaluate_folders(tmp_path / "p", tmp_path / "r", "nnunet", labels={"a": 1})
    _volume(tmp_path / "p", prediction, orient)
    assert evaluate_folders(tmp_path / "p", tmp_path / "r", "nnunet", labels={"a": 1}).cases == straight.cases
    assert evaluate_folders(tmp_path / "p", tmp_path / "r", "thesis").cases[0].dice == straight.cases[0].dice


def test_a_prediction_that_lies_elsewhere_is_refused_with_both_geometries(tmp_path: Path) -> None:
    mask = np.ones((4, 6, 5), np.uint8)
    _volume(tmp_path / "r", mask)
    _volume(tmp_path / "p", mask, origin=(5.0, -7.0, 93.0))
    with pytest.raises(DataError, match=r"p/case.nii.gz against .*r/case.nii.gz.*5 -7 93.*5 -7 90"):
        evaluate_folders(tmp_path / "p", tmp_path / "r", "nnunet", labels={"a": 1})


def test_cases_without_a_distance_are_counted_or_score_the_diagonal(tmp_path: Path) -> None:
    """Distances 2 and 2, one mask missed, one invented, one absent from both: 2 is the mean of two of five."""
    references = {name: np.zeros((3, 5), np.uint8) for name in "abcde"}
    predictions = {name: mask.copy() for name, mask in references.items()}
    for name in "ab":
        references[name][0, 0] = predictions[name][0, 2] = 1
    references["c"][1, 1] = predictions["d"][1, 1] = 1
    folders = write_masks(tmp_path / "p", predictions), write_masks(tmp_path / "r", references)
    found = evaluate_folders(*folders, "nnunet", labels={"a": 1})
    assert (found.classes[0].hd95, found.classes[0].hd95_left_out) == (2, 3)
    assert "| 2.0000 | 2.0000 | 3 |" in found.to_markdown() and "3 of 5 cases" in found.to_markdown()
    (scored,) = evaluate_folders(*folders, "nnunet", labels={"a": 1}, empty_distance="diagonal").classes
    assert scored.hd95 == pytest.approx((2 + 2 + 2 * math.sqrt(34)) / 4) and scored.hd95_left_out == 1

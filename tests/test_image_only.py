"""Images with a class and no mask, from folders to synthetic images by class."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from small_runs import tiny_run

import jdm
from dataset_conversion.classes import convert_classes
from dataset_conversion.options import ClassesOptions
from jdm.data.classes import read_classes
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_dataset
from jdm.errors import ConfigError, DataError
from jdm.sample.request import MODES


def pictures(folder, count: int, mean: float, size=(16, 16), colour=False) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(int(mean))
    for number in range(count):
        values = rng.normal(mean, 20, (*size, 3) if colour else size).clip(0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{number:03d}.png")


@pytest.fixture
def source(tmp_path, nnunet_folders):
    for part, count in (("train", 6), ("test", 2)):
        for name, mean in (("dark", 60), ("bright", 190)):
            pictures(tmp_path / "source" / part / name, count, mean)
    return tmp_path / "source"


@pytest.fixture
def converted(source):
    convert_classes(ClassesOptions(source, 33, "Made"))
    return open_dataset(33)


def test_folders_of_classes_become_a_dataset_without_masks(converted):
    assert (converted.labels, converted.has_masks) == ({"background": 0}, False)
    assert (len(converted.cases), len(converted.test_cases)) == (12, 4)
    assert not (converted.folder / "labelsTr").exists()
    classes = read_classes(converted.folder / "classes.csv", converted)
    assert {name.split("_")[1]: value for name, value in classes.items()} == {"dark": "dark", "bright": "bright"}
    pair = read_case(converted, converted.cases[0])
    assert pair.image.shape == (1, 16, 16) and not pair.label.any()


def test_pictures_are_changed_only_as_asked_and_the_record_says_so(tmp_path, nnunet_folders):
    for name, mean in (("a", 60), ("b", 190)):
        pictures(tmp_path / "source" / name, 8, mean, size=(20, 32), colour=True)
    plain = convert_classes(ClassesOptions(tmp_path / "source", 34, "Plain", test_share=0.5))
    assert plain.training + plain.test == 16 and 0 < plain.test < 16
    assert read_case(open_dataset(34), open_dataset(34).cases[0]).image.shape == (3, 20, 32)
    options = ClassesOptions(tmp_path / "source", 35, "Small", grey=True, crop_centre=True, size=10)
    assert convert_classes(options).test == 0
    assert read_case(open_dataset(35), "a_000").image.shape == (1, 10, 10)
    entries = json.loads((open_dataset(35).folder / "conversion.json").read_text())["entries"]
    assert all(len(entry["notes"]) == 3 for entry in entries)


def test_the_draw_of_a_test_set_does_not_depend_on_other_pictures(tmp_path, nnunet_folders):
    for name, mean in (("a", 60), ("b", 190)):
        pictures(tmp_path / "source" / name, 8, mean)
    convert_classes(ClassesOptions(tmp_path / "source", 34, test_share=0.4))
    before = open_dataset(34).test_cases
    for path in (tmp_path / "source" / "a").glob("00[0-3].png"):
        path.unlink()
    convert_classes(ClassesOptions(tmp_path / "source", 34, test_share=0.4, overwrite=True))
    gone = {f"a_{number:03d}" for number in range(4)}
    assert set(open_dataset(34).test_cases) == set(before) - gone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 1.0}, "--test-share is 1.0"), ({"size": 3}, "--size is 3"),
        ({"test_share": 0.5}, "--test-share with the folders test"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(source, options, message):
    with pytest.raises(ConfigError, match=message):
        convert_classes(ClassesOptions(source, 33, **options))


def test_a_source_without_two_classes_is_refused(tmp_path, nnunet_folders):
    pictures(tmp_path / "source" / "train" / "dark", 3, 60)
    with pytest.raises(DataError, match=r"folder of pictures per class.*two"):
        convert_classes(ClassesOptions(tmp_path / "source", 33))


@pytest.mark.parametrize("preset", ["default", "thesis"])
def test_a_model_of_images_samples_each_class_without_masks(converted, preset):
    classes = read_classes(converted.folder / "classes.csv", converted)
    run = tiny_run(converted, classes, preset=preset, train={"steps": 2}, augment={"probability": 0.0})
    assert run.config.mask_channels == 0
    request = jdm.ExportRequest(
        converted.name, "all", id=533, count=4, steps=4, balance=True, anyway=True, sampler="heun", margin=100.0
    )
    made = read_dataset(jdm.export(request).folder)
    assert made.labels == {"background": 0} and not (made.folder / "labelsTr").exists()
    with (made.folder / "classes.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == {"bright", "dark"}
    assert check_dataset(made) == []
    assert json.loads((made.folder / "audit.json").read_text())["copied"] == []


def test_an_unconditional_model_of_images_is_exported(converted):
    tiny_run(converted, train={"steps": 2})
    made = jdm.export(jdm.ExportRequest(converted.name, "all", id=533, count=2, steps=4, anyway=True, margin=100.0))
    assert len(read_dataset(made.folder).cases) == 2


def test_modes_that_need_no_mask_work_and_the_others_are_refused(converted, tmp_path):
    classes = read_classes(converted.folder / "classes.csv", converted)
    tiny_run(converted, classes, train={"steps": 2})

    def sampled(mode: str, **changes):
        return jdm.sample(MODES[mode](converted.name, "all", out=tmp_path / mode, **changes))

    for mode, changes in (("vary", {"level": 0.5, "samples": 1}), ("interpolate", {}), ("likelihood", {"samples": 1})):
        steps = {} if mode == "likelihood" else {"steps": 3}
        assert sampled(mode, **steps, **changes).count > 0
    for mode, folder in (("segment", {"images": "imagesTs"}), ("images", {"masks": "labelsTs"})):
        with pytest.raises(ConfigError, match=f"{mode} needs masks.*classify"):
            sampled(mode, **folder)


def test_a_trained_model_classifies(converted, tmp_path):
    classes = read_classes(converted.folder / "classes.csv", converted)
    tiny_run(converted, classes, train={"steps": 150, "batch_size": 8})
    request = MODES["classify"](
        converted.name, "all", images=converted.folder / "imagesTs", out=tmp_path / "found", levels=8
    )
    assert jdm.sample(request).count == 4
    with (tmp_path / "found" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["class"] == min(("bright", "dark"), key=lambda name: float(row[f"error {name}"]))
    assert [row["class"] for row in rows] == [row["case"].split("_")[1] for row in rows]


def test_classes_a_classifier_would_cheat_with_are_named(tmp_path, nnunet_folders):
    pictures(tmp_path / "source" / "train" / "a", 4, 60)
    pictures(tmp_path / "source" / "train" / "b", 4, 190, size=(16, 20))
    pictures(tmp_path / "source" / "train" / "c", 1, 120)
    pictures(tmp_path / "source" / "test" / "a", 2, 61)
    convert_classes(ClassesOptions(tmp_path / "source", 33))
    dataset = open_dataset(33)
    path = dataset.folder / "conversion.json"
    record = json.loads(path.read_text())
    for entry in record["entries"]:
        entry["group"] = "p1" if entry["case"] in ("train_a_000", "train_b_000") else None
    path.write_text(json.dumps(record))
    found = " | ".join(map(str, check_dataset(dataset)))
    for part in ("one training image: c", "alone: b, c", "several classes: group p1", "class 'b' are 16x20"):
        assert part in found

"""Converters: what they accept, repair and refuse, on miniatures with dirt and on real data."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from dataset_conversion.msd import convert_msd
from dataset_conversion.options import MsdOptions, PairsOptions
from dataset_conversion.pairs import convert_pairs
from dataset_conversion.rules import map_mask, parse_value_map, turn
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_image
from jdm.errors import ConfigError, DataError, ExistsError, JdmError

LABELS = ("0=background", "255=nuclei")


def picture(seed: int = 0, shape: tuple[int, ...] = (6, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def mask(shape: tuple[int, int] = (6, 8), value: int = 255) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[1:4, 2:5] = value
    return array


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path, nnunet_folders: dict[str, Path]) -> PairsOptions:
    """Three clean pairs and one test pair."""
    for i, stem in enumerate(("a", "b", "c")):
        save(tmp_path / f"in/images/{stem}.png", picture(i))
        save(tmp_path / f"in/masks/{stem}.png", mask())
    save(tmp_path / "in/test_images/t.png", picture(9))
    save(tmp_path / "in/test_masks/t.png", mask())
    return PairsOptions(
        tmp_path / "in/images", tmp_path / "in/masks", 11, "Mini", LABELS,
        tmp_path / "in/test_images", tmp_path / "in/test_masks",
    )  # fmt: skip


def record(folder: Path) -> dict:
    return json.loads((folder / "conversion.json").read_text())


def notes(folder: Path, status: str) -> dict[str, str]:
    return {e["case"]: "; ".join(e["notes"]) for e in record(folder)["entries"] if e["status"] == status}


# ---------------------------------------------------------------- the straight way


def test_clean_pairs(source: PairsOptions) -> None:
    made = convert_pairs(source)
    dataset = open_dataset("Mini")
    assert (made.folder, made.training, made.test) == (dataset.folder, 3, 1)
    assert made.warnings == ()
    assert dataset.cases == ("a", "b", "c")
    assert dataset.test_cases == ("t",)
    assert dataset.labels == {"background": 0, "nuclei": 1}
    assert dataset.channel_names == ("R", "G", "B")
    pair = read_case(dataset, "b")
    np.testing.assert_array_equal(pair.image, np.moveaxis(picture(1), -1, 0))
    np.testing.assert_array_equal(pair.label, mask(value=1))
    assert read_case(dataset, "t", test=True).label.max() == 1
    assert check_dataset(dataset) == []
    assert record(made.folder)["counts"] == {"accepted": 4, "repaired": 0, "refused": 0, "ignored": 0}
    assert [f.name for f in made.folder.parent.iterdir()] == ["Dataset011_Mini"]


def test_test_masks_are_optional(source: PairsOptions) -> None:
    convert_pairs(replace(source, test_masks=None))
    dataset = open_dataset(11)
    assert read_image(dataset, "t", test=True)[0].shape == (3, 6, 8)
    assert dataset.test_files["t"].label is None
    with pytest.raises(ConfigError, match="--test-images"):
        convert_pairs(replace(source, test_images=None, id=12))


def test_repeating_gives_the_same_bytes(source: PairsOptions) -> None:
    def contents() -> dict[Path, bytes]:
        folder = convert_pairs(replace(source, overwrite=True)).folder
        return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}

    assert contents() == contents()


# ---------------------------------------------------------------- what is in the way


def test_used_ids_and_targets_are_left_alone(source: PairsOptions, nnunet_folders: dict[str, Path]) -> None:
    folder = convert_pairs(source).folder
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    with pytest.raises(ExistsError, match="--overwrite"):
        convert_pairs(source)
    with pytest.raises(ExistsError, match=r"id 11 is used by .*Dataset011_Mini.* such as --id 1"):
        convert_pairs(replace(source, name="Other", overwrite=True))
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset012_Old").mkdir()
    with pytest.raises(ExistsError, match="Dataset012_Old"):
        convert_pairs(replace(source, id=12))
    with pytest.raises(DataError):
        convert_pairs(replace(source, labels=("0=background", "9=x"), overwrite=True))
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "nothing half made is left"
    (folder / "conversion.json").unlink()
    with pytest.raises(ExistsError, match="not made by jdm-convert"):
        convert_pairs(replace(source, overwrite=True))


def test_overwriting_points_at_what_is_stale(source: PairsOptions, nnunet_folders: dict[str, Path]) -> None:
    convert_pairs(source)
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset011_Mini").mkdir()
    assert any("earlier dataset of this name" in w for w in convert_pairs(replace(source, overwrite=True)).warnings)


@pytest.mark.parametrize(
    "labels",
    [
        ("255=nuclei", "0=background"), ("0=background",), ("0=background", "0=b"), ("background=0", "1=b"),
        ("0=background", "x=b"), ("0=background", "255=ignore"), ("0=background", "255="), (),
    ],
)  # fmt: skip
def test_unusable_labels_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--labels"):
        parse_value_map(labels)


def test_the_order_of_labels_numbers_the_classes() -> None:
    values = parse_value_map(("0=background", "255=polyp", "127=other", "200=polyp"))
    assert values.labels == {"background": 0, "polyp": 1, "other": 2}
    found, repairs = map_mask(np.array([[[0, 255, 127, 200]]], np.uint8), "png", values, Path("m"))
    assert found.tolist() == [[0, 1, 2, 1]]
    assert repairs == []


# ---------------------------------------------------------------- pairing


def test_missing_counterparts_are_all_listed(source: PairsOptions) -> None:
    (source.masks / "a.png").unlink()
    (source.masks / "c.png").rename(source.masks / "d.png")
    with pytest.raises(DataError, match=r"2 images .*: a, c; 1 masks .*: d; expected equal stems"):
        convert_pairs(source)


@pytest.mark.parametrize("twin", ["a.jpg", "A.png"])
def test_stems_that_occur_twice_are_refused(source: PairsOptions, twin: str) -> None:
    save(source.images / twin, picture(5))
    with pytest.raises(DataError, match=r"1 stems occur twice \(.*a\."):
        convert_pairs(source)


def test_dirt_in_the_folders_is_ignored_and_recorded(source: PairsOptions) -> None:
    (source.images / "._a.png").write_bytes(b"mac")
    (source.images / ".DS_Store").write_bytes(b"mac")
    (source.masks / "readme.txt").write_text("hello")
    (source.masks / "empty").write_bytes(b"")
    (source.masks / "thumbs").mkdir()
    folder = convert_pairs(source).folder
    assert record(folder)["counts"]["ignored"] == 5
    with pytest.raises(DataError, match="no pictures"):
        convert_pairs(replace(source, images=source.masks / "thumbs", id=12))
    with pytest.raises(DataError, match="no such folder"):
        convert_pairs(replace(source, images=source.masks / "none", id=12))


def test_ids_are_made_plain_and_differ_between_training_and_test(source: PairsOptions) -> None:
    for folder in (source.images, source.masks):
        (folder / "a.png").rename(folder / "a (1).png")
    assert source.test_images is not None
    assert source.test_masks is not None
    for folder in (source.test_images, source.test_masks):
        (folder / "t.png").rename(folder / "b.png")
    folder = convert_pairs(source).folder
    dataset = open_dataset(11)
    assert dataset.cases == ("a__1_", "b", "c")
    assert dataset.test_cases == ("test_b",)
    assert set(notes(folder, "repaired")) == {"a__1_", "test_b"}


# ---------------------------------------------------------------- contents


def test_content_decides_over_the_ending(source: PairsOptions) -> None:
    Image.fromarray(picture()).save(source.images / "a.png", format="JPEG")
    save(source.masks / "b.bmp", mask())
    (source.masks / "b.bmp").rename(source.masks / "b.png")
    folder = convert_pairs(source).folder
    assert notes(folder, "repaired") == {"a": "a.png is JPEG by its content", "b": "b.png is BMP by its content"}


def test_unusable_files_are_left_out_with_the_reason(source: PairsOptions) -> None:
    save(source.masks / "a.png", mask((6, 9)))
    (source.images / "b.png").write_bytes((source.images / "b.png").read_bytes()[:60])
    made = convert_pairs(source)
    assert made.training == 1
    assert open_dataset(11).cases == ("c",)
    refused = notes(made.folder, "refused")
    assert "(6, 9)" in refused["a"]
    assert "(6, 8)" in refused["a"]
    assert "truncated" in refused["b"]
    assert len(made.warnings) == 2
    assert "a.png" in (made.folder / "conversion.md").read_text()
    with pytest.raises(DataError, match=r"--strict: 2 cases .*\(6, 9\).*truncated"):
        convert_pairs(replace(source, id=12, strict=True))
    assert not list(made.folder.parent.glob("*012*"))


def test_nothing_left_and_nothing_to_learn_are_errors(source: PairsOptions) -> None:
    with pytest.raises(DataError, match=r"all 3 were refused; the first: .*a.png: the mask holds 255 \(9 pixels\)"):
        convert_pairs(replace(source, labels=("0=background", "1=x"), test_images=None, test_masks=None))
    for stem in "abc":
        save(source.masks / f"{stem}.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match="empty"):
        convert_pairs(source)


def test_an_empty_mask_among_others_is_kept_and_told(source: PairsOptions) -> None:
    save(source.masks / "a.png", np.zeros((6, 8), np.uint8))
    assert convert_pairs(source).warnings == ("1 of 3 training labels are empty (background only)",)


def test_a_palette_mask_gives_indices(source: PairsOptions) -> None:
    for stem in "abc":
        paletted = Image.fromarray(mask(value=1))
        paletted.putpalette([0, 0, 0, 128, 0, 0])  # the common red: grey 38 if converted
        paletted.save(source.masks / f"{stem}.png")
    options = replace(source, labels=("0=background", "1=nuclei"), test_images=None, test_masks=None)
    folder = convert_pairs(options).folder
    np.testing.assert_array_equal(read_case(open_dataset(11), "a").label, mask(value=1))
    assert "indices" in notes(folder, "repaired")["a"]


def test_jpeg_masks_are_cut_in_the_middle(source: PairsOptions) -> None:
    big = np.zeros((64, 64), np.uint8)
    big[13:43, 11:50] = 255  # off the grid of 8, so that the borders ring
    for stem in "abc":
        save(source.images / f"{stem}.png", picture(ord(stem), (64, 64, 3)))
        (source.masks / f"{stem}.png").unlink()
        save(source.masks / f"{stem}.jpg", np.stack([big] * 3, -1), quality=30)
    folder = convert_pairs(replace(source, test_images=None, test_masks=None)).folder
    label = read_case(open_dataset(11), "a").label
    assert (label != (big > 0)).mean() < 0.01
    assert "cut at > 127" in notes(folder, "repaired")["a"]
    assert "3 equal channels collapsed" in notes(folder, "repaired")["a"]


def test_near_values_are_moved_and_others_refused(source: PairsOptions) -> None:
    near = mask()
    near[0, 0], near[1, 2] = 7, 248
    save(source.masks / "a.png", near)
    far = mask()
    far[0, 0] = 8
    save(source.masks / "b.png", far)
    colour = np.stack([mask(), mask(), 255 - mask()], -1)
    save(source.masks / "c.png", colour)
    folder = convert_pairs(source).folder
    np.testing.assert_array_equal(read_case(open_dataset(11), "a").label, mask(value=1))
    assert notes(folder, "repaired")["a"] == "2 pixels moved to the nearest declared value"
    assert "holds 8 (1 pixels)" in notes(folder, "refused")["b"]
    assert "channels differ" in notes(folder, "refused")["c"]


def test_values_close_to_each_other_are_taken_exactly() -> None:
    values = parse_value_map(("0=background", "1=a", "2=b"))
    with pytest.raises(DataError, match=r"holds 3 \(1 pixels\)"):
        map_mask(np.array([[[0, 1, 2, 3]]], np.uint8), "png", values, Path("m"))


def test_grey_among_colour_becomes_colour(source: PairsOptions) -> None:
    grey = picture(3, (6, 8))
    save(source.images / "a.png", grey)
    folder = convert_pairs(source).folder
    np.testing.assert_array_equal(read_case(open_dataset(11), "a").image, np.stack([grey] * 3))
    assert "as RGB" in notes(folder, "repaired")["a"]


def test_bit_depths_are_kept_and_not_mixed(source: PairsOptions) -> None:
    save(source.images / "a.png", picture(3, (6, 8)).astype(np.uint16) * 256)
    with pytest.raises(DataError, match="1 uint16"):
        convert_pairs(source)
    for stem in "abc":
        (source.images / f"{stem}.png").unlink()
        save(source.images / f"{stem}.tif", picture(ord(stem)).astype(np.uint16) * 200)
    convert_pairs(replace(source, test_images=None, test_masks=None))
    dataset = open_dataset(11)
    assert dataset.file_ending == ".tif"
    assert read_case(dataset, "a").image.dtype == np.uint16


def test_duplicates_across_training_and_test_are_told_and_strictly_refused(source: PairsOptions) -> None:
    assert source.test_images is not None
    save(source.test_images / "t.png", picture(1))
    made = convert_pairs(source)
    assert record(made.folder)["duplicates"] == [
        "test case t has the same image as train case b (across training and test: leakage)"
    ]
    assert "duplicate: " in made.warnings[0]
    with pytest.raises(DataError, match="1 images occur twice"):
        convert_pairs(replace(source, overwrite=True, strict=True))


# ---------------------------------------------------------------- orientation tags


@pytest.mark.parametrize("tag", range(1, 9))
def test_turning_agrees_with_pillow(tag: int) -> None:
    from PIL import ImageOps

    picture_ = Image.fromarray(picture(tag, (3, 5)))
    picture_.getexif()[0x0112] = tag
    np.testing.assert_array_equal(turn(np.asarray(picture_), tag), np.asarray(ImageOps.exif_transpose(picture_)))


def tagged(path: Path, array: np.ndarray, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    save(path, array, exif=exif)


def test_orientation_is_applied_to_both_or_refused(source: PairsOptions) -> None:
    upright = np.moveaxis(turn(np.moveaxis(picture(), -1, 0), 6), 0, -1)
    tagged(source.images / "a.png", picture(), 6)  # mask drawn on the stored pixels
    tagged(source.images / "b.png", picture(1), 6)
    save(source.masks / "b.png", turn(mask(), 6))  # mask drawn on the upright picture
    tagged(source.images / "c.png", picture(2), 3)  # cannot be told
    save(source.images / "d.png", picture(3))
    save(source.masks / "d.png", mask())
    folder = convert_pairs(source).folder
    dataset = open_dataset(11)
    np.testing.assert_array_equal(np.moveaxis(read_case(dataset, "a").image, 0, -1), upright)
    for case in "ab":
        np.testing.assert_array_equal(read_case(dataset, case).label, turn(mask(value=1), 6))
        assert "turned upright" in notes(folder, "repaired")[case]
    assert "orientation tag 3" in notes(folder, "refused")["c"]


# ---------------------------------------------------------------- Decathlon tasks


def volume(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing if array.ndim == 3 else (*spacing, 1.0))
    image.SetOrigin((3.0, -4.0, 5.0) if array.ndim == 3 else (3.0, -4.0, 5.0, 0.0))
    SimpleITK.WriteImage(image, str(path))


def make_task(root: Path, channels: int = 1, names: bool = True) -> Path:
    task = root / "Task09_Thing"
    for i in range(4):
        shape = (3, 4, 5) if channels == 1 else (channels, 3, 4, 5)
        image = np.random.default_rng(i).integers(0, 999, shape).astype(np.int16)
        label = np.zeros((3, 4, 5), np.uint8)
        label[1, 1:3, 1:3] = 1 + i % 2
        suffix = "Tr" if i < 3 else "Ts"
        volume(task / f"images{suffix}/thing_{i}.nii.gz", image)
        if i < 3:
            volume(task / f"labels{suffix}/thing_{i}.nii.gz", label)
            (task / f"labels{suffix}/._thing_{i}.nii.gz").write_bytes(b"mac")
    if names:
        modality = {str(i): f"M{i}" for i in range(channels)}
        content = {"modality": modality, "labels": {"0": "Background", "1": "head", "2": "tail"}}
        (task / "dataset.json").write_text(json.dumps(content))
    return task


def test_msd_task(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    made = convert_msd(MsdOptions(make_task(tmp_path), 9))
    dataset = open_dataset("Thing")
    assert (made.training, made.test) == (3, 1)
    assert dataset.labels == {"background": 0, "head": 1, "tail": 2}
    assert dataset.channel_names == ("M0",)
    pair = read_case(dataset, "thing_1")
    np.testing.assert_array_equal(pair.image[0], np.random.default_rng(1).integers(0, 999, (3, 4, 5)))
    assert pair.label.max() == 2
    assert pair.spacing == (2.0, 1.0, 0.5)
    assert pair.geometry is not None
    assert pair.geometry.origin == (3.0, -4.0, 5.0)
    assert check_dataset(dataset) == []
    assert made.counts["ignored"] == 3


def test_msd_channels_are_split(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    convert_msd(MsdOptions(make_task(tmp_path, channels=2), 9, max_cases=2))
    dataset = open_dataset(9)
    assert dataset.cases == ("thing_0", "thing_1")
    assert [f.name for f in dataset.image_files("thing_0")] == ["thing_0_0000.nii.gz", "thing_0_0001.nii.gz"]
    expected = np.random.default_rng(0).integers(0, 999, (2, 3, 4, 5))
    np.testing.assert_array_equal(read_case(dataset, "thing_0").image, expected)
    assert read_image(dataset, "thing_3", test=True)[0].shape == (2, 3, 4, 5)


def test_msd_names_are_inferred_and_told(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    made = convert_msd(MsdOptions(make_task(tmp_path, channels=2, names=False), 9, name="X"))
    dataset = open_dataset("X")
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert dataset.channel_names == ("channel_0", "channel_1")
    assert sum("inferred" in w or "assumed" in w for w in made.warnings) == 2


def test_msd_faults(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    task = make_task(tmp_path)
    volume(task / "labelsTr/thing_0.nii.gz", np.ones((3, 4, 6), np.uint8))
    volume(task / "labelsTr/thing_1.nii.gz", np.ones((3, 4, 5), np.uint8), (1.0, 1.0, 1.0))
    refused = notes(convert_msd(MsdOptions(task, 9)).folder, "refused")
    assert "size" in refused["thing_0"]
    assert "spacing" in refused["thing_1"]
    with pytest.raises(DataError, match="--strict: 2 cases"):
        convert_msd(MsdOptions(task, 10, "Y", strict=True))
    (task / "labelsTr/thing_2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"no mask of the same stem: thing_2"):
        convert_msd(MsdOptions(task, 10, "Y"))
    (task / "dataset.json").write_text('{"labels": {"0": "background"}}')
    with pytest.raises(DataError, match="modality"):
        convert_msd(MsdOptions(task, 10, "Y"))
    for options, kind in (
        (MsdOptions(tmp_path / "x", 10), DataError),
        (MsdOptions(task, 10, max_cases=0), ConfigError),
    ):
        with pytest.raises(kind):
            convert_msd(options)


# ---------------------------------------------------------------- the command


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from jdm.cli.convert import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_is_quick_and_tells_a_newcomer(nnunet_folders: dict[str, Path]) -> None:
    for arguments, words in (
        (["--help"], ("pairs", "msd", "nnUNet_raw")),
        (["pairs", "--help"], ("--images", "VALUE=NAME", "0=background 255=nuclei", "--overwrite")),
        (["msd", "--help"], ("Task04_Hippocampus", "--max-cases")),
    ):
        times = []
        for _ in range(3):  # the best of three: the machine may be busy
            start = time.perf_counter()
            result = run(*arguments)
            times.append(time.perf_counter() - start)
            if times[-1] < 0.5:
                break
        assert result.returncode == 0
        assert all(word in result.stdout for word in words)
        assert min(times) < 0.5


def test_the_command_prints_the_next_step(source: PairsOptions) -> None:
    arguments = ["pairs", "--images", source.images, "--masks", source.masks, "--id", 11, "--name", "Mini", "--labels"]
    result = run(*arguments, *LABELS)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for words in ("Dataset011_Mini", "3 training, 0 test", "conversion.md", "jdm-train 11 0 --budget-minutes 30"):
        assert words in result.stdout
    again = run(*arguments, *LABELS)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.count("\n") == 1
    assert "error: " in again.stderr
    assert "--overwrite" in again.stderr


# ---------------------------------------------------------------- real data


def test_real_monuseg(shared_data: Path, tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    folders = []
    for split, count in (("train", 2), ("test", 1)):
        for part in ("images", "masks"):
            target = tmp_path / split / part
            target.mkdir(parents=True)
            folders.append(target)
            for path in sorted((shared_data / "monuseg" / split / part).iterdir())[:count]:
                (target / path.name).symlink_to(path)
    made = convert_pairs(PairsOptions(folders[0], folders[1], 11, "MoNuSeg", LABELS, folders[2], folders[3]))
    assert made.counts == {"accepted": 3, "repaired": 0, "refused": 0, "ignored": 0}
    pair = read_case(open_dataset("MoNuSeg"), open_dataset("MoNuSeg").cases[0])
    assert pair.image.shape == (3, 1000, 1000)
    assert 0.05 < pair.label.mean() < 0.6


def test_real_neopolyp(shared_data: Path, tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for path in sorted((shared_data / "neopolyp/train/images").iterdir())[:3]:
        (images / path.name).symlink_to(path)
        (masks / f"{path.stem}.png").symlink_to(shared_data / f"neopolyp/train/masks/{path.stem}.png")
    labels = ("0=background", "127=non_neoplastic", "255=neoplastic")
    assert convert_pairs(PairsOptions(images, masks, 20, "NeoPolyp", labels)).training == 3
    dataset = open_dataset("NeoPolyp")
    assert dataset.classes == 3
    assert check_dataset(dataset) == []


def test_real_hippocampus(shared_data: Path, nnunet_folders: dict[str, Path]) -> None:
    made = convert_msd(MsdOptions(shared_data / "hippocampus", 4, max_cases=3))
    assert (made.folder.name, made.training, made.test) == ("Dataset004_hippocampus", 3, 60)
    dataset = open_dataset(4)
    source = SimpleITK.ReadImage(str(shared_data / f"hippocampus/imagesTr/{dataset.cases[0]}.nii.gz"))
    pair = read_case(dataset, dataset.cases[0])
    np.testing.assert_array_equal(pair.image[0], SimpleITK.GetArrayFromImage(source))
    assert pair.geometry is not None
    assert pair.geometry.direction == pytest.approx(source.GetDirection())
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}


def test_every_refusal_is_one_line(source: PairsOptions) -> None:
    (source.masks / "a.png").unlink()
    for options in (source, replace(source, name="a b"), replace(source, id=0)):
        with pytest.raises(JdmError) as caught:
            convert_pairs(options)
        assert "\n" not in str(caught.value)

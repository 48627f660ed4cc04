"""Converting pairs: the straight way, what is in the way, how files are paired, and the command."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import LABELS, make_source, mask, notes, picture, record, run, save

from dataset_conversion.coding import map_mask, parse_coding
from dataset_conversion.options import PairsOptions
from dataset_conversion.pairs import convert_pairs
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_image
from jdm.errors import ConfigError, DataError, ExistsError, JdmError


@pytest.fixture
def source(tmp_path: Path, nnunet_folders: dict[str, Path]) -> PairsOptions:
    return make_source(tmp_path)


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
    with pytest.raises(ExistsError, match=r"11.*Dataset011_Mini.*--id 1\b"):
        convert_pairs(replace(source, name="Other", overwrite=True))
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset012_Old").mkdir()
    with pytest.raises(ExistsError, match="Dataset012_Old"):
        convert_pairs(replace(source, id=12))
    with pytest.raises(DataError):
        convert_pairs(replace(source, labels=("0=background", "9=x"), overwrite=True))
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "nothing half made is left"
    (folder / "conversion.json").unlink()
    with pytest.raises(ExistsError, match=r"conversion\.json"):
        convert_pairs(replace(source, overwrite=True))


def test_overwriting_points_at_what_is_stale(source: PairsOptions, nnunet_folders: dict[str, Path]) -> None:
    convert_pairs(source)
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset011_Mini").mkdir()
    stale = str(nnunet_folders["nnUNet_preprocessed"] / "Dataset011_Mini")
    assert any(stale in warning for warning in convert_pairs(replace(source, overwrite=True)).warnings)


@pytest.mark.parametrize(
    "labels",
    [
        ("255=nuclei", "0=background"), ("0=background",), ("0=background", "0=b"), ("background=0", "1=b"),
        ("0=background", "x=b"), ("0=background", "255=ignore"), ("0=background", "255="), (),
    ],
)  # fmt: skip
def test_unusable_labels_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--labels"):
        parse_coding(labels)


def test_the_order_of_labels_numbers_the_classes() -> None:
    coding = parse_coding(("0=Background", "255=polyp", "127=other", "200=polyp"))
    assert coding.labels == {"background": 0, "polyp": 1, "other": 2}
    found, repairs = map_mask(np.array([[0, 255, 127, 200]], np.uint8), False, coding)
    assert found.tolist() == [[0, 1, 2, 1]]
    assert repairs == []


# ---------------------------------------------------------------- pairing


def test_missing_counterparts_are_all_listed(source: PairsOptions) -> None:
    (source.masks / "a.png").unlink()
    (source.masks / "c.png").rename(source.masks / "d.png")
    with pytest.raises(DataError, match=r"2 images .*: a, c; 1 masks .*: d\b"):
        convert_pairs(source)


@pytest.mark.parametrize("twin", ["a.jpg", "A.png"])
def test_stems_that_occur_twice_are_refused(source: PairsOptions, twin: str) -> None:
    save(source.images / twin, picture(5))
    with pytest.raises(DataError, match=rf"(a\.png and {twin}|{twin} and a\.png)"):
        convert_pairs(source)


def test_dirt_in_the_folders_is_ignored_and_recorded(source: PairsOptions) -> None:
    (source.images / "._a.png").write_bytes(b"mac")
    (source.images / ".DS_Store").write_bytes(b"mac")
    (source.masks / "readme.txt").write_text("hello")
    (source.masks / "empty").write_bytes(b"")
    (source.masks / "thumbs").mkdir()
    folder = convert_pairs(source).folder
    assert record(folder)["counts"]["ignored"] == 5
    for name in ("thumbs", "none"):
        with pytest.raises(DataError, match=str(source.masks / name)):
            convert_pairs(replace(source, images=source.masks / name, id=12))


def test_one_folder_for_images_and_masks_is_refused(source: PairsOptions) -> None:
    (source.images.parent / "link").symlink_to(source.images)
    for masks in (source.images, source.images.parent / "link"):
        with pytest.raises(DataError, match=str(source.images)):
            convert_pairs(replace(source, masks=masks))


def test_a_folder_without_pictures_says_what_it_holds(source: PairsOptions, tmp_path: Path) -> None:
    save(tmp_path / "nested/p1/a.png", picture())
    (tmp_path / "nested/b.webp").write_bytes(b"RIFFxxxxWEBP")
    with pytest.raises(DataError, match=r"nested: .*b\.webp.*p1/"):
        convert_pairs(replace(source, images=tmp_path / "nested"))


def test_file_names_may_hold_anything(source: PairsOptions) -> None:
    for number, name in enumerate((b"x\xff.png", b"line\nbreak.png", b"a|b'\".png")):
        for folder, array in ((source.images, picture(50 + number)), (source.masks, mask())):
            save(folder / "new.png", array)
            (folder / "new.png").rename(folder / os.fsdecode(name))
    folder = convert_pairs(source).folder
    assert open_dataset(11).cases == ("a", "a_b__", "b", "c", "line_break", "x_")
    assert "x\\udcff.png" in (folder / "conversion.md").read_text()
    assert all("\n" not in file for entry in record(folder)["entries"] for file in entry["files"])


def test_names_that_look_equal_are_equal(source: PairsOptions) -> None:
    composed, apart = "M\u00fcller_\u00e9", "Mu\u0308ller_e\u0301"
    (source.images / "a.png").rename(source.images / f"{composed}.png")
    (source.masks / "a.png").rename(source.masks / f"{apart}.png")
    (source.images / "b.png").rename(source.images / f"{apart}2.png")
    (source.masks / "b.png").rename(source.masks / f"{composed}2.png")
    convert_pairs(source)
    assert open_dataset(11).cases == (composed, f"{composed}2", "c")
    save(source.images / f"{apart}.png", picture(5))
    with pytest.raises(DataError, match="ller"):
        convert_pairs(replace(source, overwrite=True))


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


# ---------------------------------------------------------------- the command


def test_help_is_quick_and_tells_a_newcomer(nnunet_folders: dict[str, Path]) -> None:
    for arguments, words in (
        (["--help"], ("pairs", "msd", "nnUNet_raw")),
        (["pairs", "--help"], ("--images", "VALUE=NAME", "0=background 255=nuclei", "--overwrite")),
        (["msd", "--help"], ("Task04_Hippocampus", "--max-cases")),
    ):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0
        assert all(word in result.stdout for word in words)
        # the processor's time: the wall's depends on what else the machine does
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_command_prints_the_next_step(source: PairsOptions) -> None:
    arguments = ["pairs", "--images", source.images, "--masks", source.masks, "--id", 11, "--name", "Mini", "--labels"]
    result = run(*arguments, *LABELS)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for words in ("Dataset011_Mini", "3 training, 0 test", "conversion.md", "jdm-train 11 all --budget-minutes 30"):
        assert words in result.stdout
    again = run(*arguments, *LABELS)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.count("\n") == 1
    assert "error: " in again.stderr
    assert "--overwrite" in again.stderr


def test_every_refusal_is_one_line(source: PairsOptions) -> None:
    (source.masks / "a.png").unlink()
    for options in (source, replace(source, name="a b"), replace(source, id=0)):
        with pytest.raises(JdmError) as caught:
            convert_pairs(options)
        assert "\n" not in str(caught.value)

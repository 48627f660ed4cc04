"""What is accepted, repaired and refused in pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import make_source, mask, notes, picture, record, save
from PIL import Image

from dataset_conversion.options import PairsOptions
from dataset_conversion.pairs import convert_pairs
from dataset_conversion.rules import turn
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.errors import DataError


@pytest.fixture
def source(tmp_path: Path, nnunet_folders: dict[str, Path]) -> PairsOptions:
    return make_source(tmp_path)


# ---------------------------------------------------------------- contents


def test_content_decides_over_the_ending(source: PairsOptions) -> None:
    Image.fromarray(picture()).save(source.images / "a.png", format="JPEG")
    save(source.masks / "b.bmp", mask())
    (source.masks / "b.bmp").rename(source.masks / "b.png")
    folder = convert_pairs(source).folder
    repaired = notes(folder, "repaired")
    assert repaired.keys() == {"a", "b"}
    assert "a.png is JPEG" in repaired["a"] and "b.png is BMP" in repaired["b"]


def test_unusable_files_are_left_out_with_the_reason(source: PairsOptions) -> None:
    save(source.masks / "a.png", mask((6, 9)))
    (source.images / "b.png").write_bytes((source.images / "b.png").read_bytes()[:60])
    made = convert_pairs(source)
    assert made.training == 1
    assert open_dataset(11).cases == ("c",)
    refused = notes(made.folder, "refused")
    assert "(6, 9)" in refused["a"]
    assert "(6, 8)" in refused["a"]
    assert "b.png" in refused["b"]
    assert len(made.warnings) == 2
    assert "a.png" in (made.folder / "conversion.md").read_text()
    with pytest.raises(DataError, match=r"--strict.*\(6, 9\).*b\.png"):
        convert_pairs(replace(source, id=12, strict=True))
    assert not list(made.folder.parent.glob("*012*"))


def test_nothing_left_and_nothing_to_learn_are_errors(source: PairsOptions) -> None:
    with pytest.raises(DataError, match=r"3 .*a\.png: .*255 \(9 pixels\)"):
        convert_pairs(replace(source, labels=("0=background", "1=x"), test_images=None, test_masks=None))
    for stem in "abc":
        save(source.masks / f"{stem}.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"3 .*empty"):
        convert_pairs(source)


def test_an_empty_mask_among_others_is_kept_and_told(source: PairsOptions) -> None:
    save(source.masks / "a.png", np.zeros((6, 8), np.uint8))
    (warning,) = convert_pairs(source).warnings
    assert "1 of 3" in warning


def test_grey_among_colour_becomes_colour(source: PairsOptions) -> None:
    grey = picture(3, (6, 8))
    save(source.images / "a.png", grey)
    folder = convert_pairs(source).folder
    np.testing.assert_array_equal(read_case(open_dataset(11), "a").image, np.stack([grey] * 3))
    assert "as RGB" in notes(folder, "repaired")["a"]


def test_bit_depths_are_kept_and_not_mixed(source: PairsOptions) -> None:
    save(source.images / "a.png", picture(3, (6, 8)).astype(np.uint16) * 256)
    with pytest.raises(DataError, match="uint16"):
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
    (line,) = record(made.folder)["duplicates"]
    assert "test case t " in line and "train case b " in line
    assert any(line in warning for warning in made.warnings)
    with pytest.raises(DataError, match=r"--strict.*test case t .*train case b"):
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

"""What mask values mean: exact, cut where the user says so, or refused with the words that fit; never guessed."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import LABELS, advised, notes, picture, record, save, type_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from dataset_conversion.coding import cut, parse_coding
from dataset_conversion.fitting import Mask, fitting_flags
from dataset_conversion.options import PairsOptions
from dataset_conversion.pairs import convert_pairs
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.errors import ConfigError, DataError

SIZE = (24, 32)


def truth(seed: int = 0) -> np.ndarray:
    """0/1, a rectangle."""
    rng = np.random.default_rng(seed)
    array = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(2, 8, 2)
    array[top : top + 9, left : left + 14] = 1
    return array


def palette_mask(array: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(array)
    image.putpalette([level for colour in colours for level in colour])
    return image


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
CODINGS: dict[str, tuple[str, Callable[[np.ndarray], Image.Image]]] = {
    "0 and 255": ("png", lambda m: Image.fromarray(m * 255)),
    "0 and 1": ("png", Image.fromarray),
    "1 bit": ("png", lambda m: Image.fromarray(m * 255).convert("1")),
    "1 and 2": ("png", lambda m: Image.fromarray(m + np.uint8(1))),
    "palette": ("png", lambda m: palette_mask(m, BLACK, RED)),
    "RGB": ("bmp", lambda m: Image.fromarray(np.stack([m * 255] * 3, -1))),
    "opaque RGBA": ("png", lambda m: Image.fromarray(np.stack([m * 255] * 3 + [0 * m + 255], -1))),
    "transparent over black": ("png", lambda m: Image.fromarray(np.stack([m * 255] * 4, -1))),
    "16 bit": ("png", lambda m: Image.fromarray(m.astype(np.uint16) * 255)),
    "TIFF": ("tif", lambda m: Image.fromarray(m * 255)),
    "JPEG": ("jpg", lambda m: Image.fromarray(m * 255)),
    "near": ("png", lambda m: Image.fromarray((m * 255 + noise(m) * (1 - 2 * m.astype(int))).astype(np.uint8))),
    "soft": ("png", lambda m: Image.fromarray(m * 255).filter(ImageFilter.GaussianBlur(1))),
}
"""Ending and picture of a mask of 0 and 1, as people store it."""
EXACT = {"0 and 255", "RGB", "opaque RGBA", "transparent over black", "16 bit", "TIFF", "JPEG"}
"""Those that `0=background 255=x` means."""


def noise(mask: np.ndarray) -> np.ndarray:
    return np.random.default_rng(int(mask.sum())).choice([0, 0, 0, 1, 2], mask.shape)


def make(root: Path, *names: str, labels: tuple[str, ...] = LABELS) -> PairsOptions:
    """A source with a mask in each coding, c0, c1, ..."""
    (root / "masks").mkdir(parents=True)
    for number, name in enumerate(names):
        ending, drawn = CODINGS[name]
        save(root / f"images/c{number}.png", picture(number, (*SIZE, 3)))
        drawn(truth(number)).save(root / f"masks/c{number}.{ending}")
    return PairsOptions(root / "images", root / "masks", 11, "Mini", labels)


def refusal(options: PairsOptions) -> str:
    with pytest.raises(DataError) as caught:
        convert_pairs(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path, nnunet_folders: dict[str, Path]) -> Path:
    return tmp_path / "in"


def check(count: int, wrong: int = 0) -> None:
    """That all cases are there, and have the right masks but for so many pixels."""
    dataset = open_dataset("Mini")
    assert dataset.cases == tuple(f"c{number}" for number in range(count))
    for number, case in enumerate(dataset.cases):
        assert (read_case(dataset, case).label != truth(number)).sum() <= wrong


# ---------------------------------------------------------------- exact, or refused with the words that fit


@pytest.mark.parametrize("name", sorted(EXACT))
def test_values_as_declared_are_taken(root: Path, name: str) -> None:
    assert convert_pairs(make(root, name, name)).training == 2
    check(2)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("0 and 1", "0=background 1=nuclei"), ("1 bit", "0=background 1=nuclei"), ("palette", "0=background 1=nuclei"),
        ("1 and 2", "1=background 2=nuclei"), ("near", "0=background 255=nuclei --threshold 127"),
        ("soft", "0=background 255=nuclei --threshold 127"),
    ],
)  # fmt: skip
def test_other_values_are_refused_with_the_flags_that_fit(root: Path, name: str, flags: str) -> None:
    options = make(root, name, name)
    line = refusal(options)
    assert "c0.png" in line and line.endswith(f"--labels {flags}")
    assert all(f"{value} (" in line for value in np.unique(CODINGS[name][1](truth(0))).astype(int)[:9])
    convert_pairs(advised(options, line))
    check(2, wrong=4 if name == "soft" else 0)  # of a blurred rectangle the corners lie below the middle


def test_jpeg_masks_need_the_values_they_had_before_they_were_stored(root: Path) -> None:
    options = make(root, "JPEG", "JPEG", labels=("0=background", "1=x"))
    line = refusal(options)
    assert line.endswith("--labels 0=background 255=x")
    folder = convert_pairs(advised(options, line)).folder
    check(2)
    assert "cut at > 127" in notes(folder, "repaired")["c0"]


def test_the_flags_fit_all_masks_and_not_only_the_one_that_is_refused(root: Path) -> None:
    options = make(root, "0 and 1", "0 and 255", "palette", "1 bit", labels=("0=background", "7=x"))
    line = refusal(options)
    assert line.endswith("--labels 0=background 1=x 255=x")
    convert_pairs(advised(options, line))
    check(4)
    mixed = replace(options, labels=("0=background", "255=x"), overwrite=True)
    assert convert_pairs(mixed).training == 1, "what fits is converted, the rest is left out"
    assert set(notes(open_dataset(11).folder, "refused")) == {"c0", "c2", "c3"}


def test_the_darker_colour_of_a_palette_is_background_whatever_its_index(root: Path) -> None:
    options = make(root, "0 and 1", "0 and 1")
    for number in range(2):
        palette_mask(1 - truth(number), WHITE, BLACK).save(root / f"masks/c{number}.png")
    line = refusal(options)
    assert line.endswith("--labels 1=background 0=nuclei")
    convert_pairs(advised(options, line))
    check(2)


def test_masks_of_several_classes(root: Path) -> None:
    options = make(root, "0 and 1", labels=("0=background", "127=a b", "255=c"))
    array = truth() + (truth(1) & truth())  # 0, 1 and 2
    save(root / "masks/c0.png", array)
    line = refusal(options)
    assert line.endswith("--labels 0=background '1=a b' 2=c")
    convert_pairs(advised(options, line))
    np.testing.assert_array_equal(read_case(open_dataset(11), "c0").label, array)
    save(root / "masks/c0.png", np.where(array == 2, 4, array).astype(np.uint8))
    line = refusal(replace(options, labels=("0=background", "1=a", "2=b", "3=c"), overwrite=True))
    assert line.endswith("--labels 0=background 1=a 4=c"), "no mask holds 2 or 3"


@given(st.lists(st.sampled_from(sorted(CODINGS)), min_size=1, max_size=4), st.sampled_from([1, 255]), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_mask_is_ever_misread_whatever_codings_are_mixed(
    nnunet_folders: dict[str, Path], names: list[str], high: int, cut_too: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = make(Path(folder) / "in", *names, labels=("0=background", f"{high}=nuclei"))
        options = replace(options, threshold=(127 if high == 255 else 0) if cut_too else None, overwrite=True)
        try:
            convert_pairs(options)
        except DataError as error:
            if "give --labels" not in str(error):
                return
            convert_pairs(advised(options, str(error)))
        dataset = open_dataset(11)
        for case in dataset.cases:
            found, right = read_case(dataset, case).label, truth(int(case[1:]))
            wrong = (found != right).sum()
            assert wrong <= (4 if names[int(case[1:])] == "soft" else 0), (names, case, wrong)


# ---------------------------------------------------------------- cut


def test_a_threshold_is_recorded(root: Path) -> None:
    options = replace(make(root, "near", "0 and 255", "JPEG"), threshold=127)
    folder = convert_pairs(options).folder
    check(3)
    assert record(folder)["source"]["threshold"] == "127"
    assert "cut at > 127" in notes(folder, "repaired")["c0"]
    assert "c1" in notes(folder, "accepted")


def test_a_threshold_between_two_values_only() -> None:
    for labels, threshold in ((LABELS, 255), (LABELS, -1), ((*LABELS, "127=x"), 200)):
        with pytest.raises(ConfigError, match=f"--threshold {threshold}"):
            parse_coding(labels, threshold)
    assert parse_coding(("0=background", "1=x"), 0.5).threshold == 0.5


def blocks(*values: int) -> np.ndarray:
    """Areas of 5x5, one of each value, on 0."""
    array = np.zeros((40, 12 * len(values)), np.uint8)
    for index, value in enumerate(values):
        array[4:9, 12 * index + 3 : 12 * index + 8] = value
    return array


def sprinkled(array: np.ndarray, *values: int) -> np.ndarray:
    array = array.copy()
    for index, value in enumerate(values):
        array[20 + index, 3:9:3] = value
    return array


@pytest.mark.parametrize(
    ("mask", "own"),
    [
        (blocks(127, 255), "127"), (blocks(1, 255), "1"), (blocks(1, 2, 255), "2"), (blocks(254, 255), "254"),
        (sprinkled(blocks(255), 127), "127"), (blocks(100, 200, 255), "100"), (blocks(1), "1"), (blocks(38), "38"),
        (sprinkled(blocks(127, 255), 1, 2, 253, 254), "127"), (blocks(1, 2, 3, 4, 255), "4"),
        (255 - blocks(55), "200"),
    ],
)  # fmt: skip
def test_a_third_value_is_not_cut_away(mask: np.ndarray, own: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{own} \("):
        cut(mask, (0, 255), 127)


@pytest.mark.parametrize(
    "mask",
    [
        sprinkled(blocks(255), 1, 2, 253, 254), sprinkled(blocks(255, 255), 1), blocks(0), 255 - blocks(0), blocks(200),
        sprinkled(blocks(254, 255), 1, 2), sprinkled(255 - blocks(0), 253, 254),
        np.asarray(Image.fromarray(blocks(255, 255)).filter(ImageFilter.GaussianBlur(1))),
        np.asarray(Image.fromarray(blocks(255, 255)).resize((60, 70), Image.Resampling.BILINEAR)),
    ],
)  # fmt: skip
def test_noise_and_soft_borders_are_cut(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(cut(mask, (0, 255), 127), mask > 127)


def test_a_jpeg_mask_of_another_value_is_not_cut_through_its_middle(root: Path) -> None:
    options = make(root, "JPEG", "JPEG")
    save(root / "masks/c0.jpg", truth() * np.uint8(127), quality=50)
    assert "c0.jpg" in notes(convert_pairs(options).folder, "refused")["c0"]


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_a_jpeg_mask_of_two_values_is_cut_and_one_of_three_refused(root: Path, quality: int) -> None:
    options = make(root, "JPEG")
    values = blocks(255, 255).repeat(3, 0).repeat(3, 1)
    for name, array in (("c0", values), ("c1", np.where(values[:, ::-1] > 0, 127, values).astype(np.uint8))):
        save(root / f"images/{name}.png", picture(1, values.shape))
        save(root / f"masks/{name}.jpg", array, quality=quality)
    array[:, : array.shape[1] // 2] = values[:, : array.shape[1] // 2]
    save(root / "masks/c1.jpg", array, quality=quality)
    folder = convert_pairs(options).folder
    assert open_dataset(11).cases == ("c0",)
    assert re.search(r"\b12[5-9] \(", notes(folder, "refused")["c1"])
    assert (read_case(open_dataset(11), "c0").label != (values > 0)).mean() < 0.01


def test_a_mask_that_is_no_mask_is_refused(root: Path) -> None:
    options = make(root, "0 and 255", "0 and 255")
    save(root / "masks/c0.png", picture(3, SIZE))
    for chosen in (options, replace(options, threshold=127, overwrite=True)):
        folder = convert_pairs(chosen).folder
        assert "c0.png" in notes(folder, "refused")["c0"]
        assert open_dataset(11).cases == ("c1",)


def test_flags_for_volumes_and_for_what_nothing_fits() -> None:
    coding = parse_coding(LABELS)
    soft = np.zeros((4, 9, 9), np.float32)
    soft[1:3, 2:7, 2:7] = 1
    soft[1:3, 2, 2:7] = np.linspace(0.2, 0.8, 5)
    assert fitting_flags([Mask(soft)], coding) == "--labels 0=background 1=nuclei --threshold 0.5"
    for mask in (Mask(np.arange(60).reshape(6, 10)), Mask(np.array([[-1, 0]])), Mask(blocks(90, 180, 255), lossy=True)):
        assert fitting_flags([mask], coding) is None
    inverse = parse_coding(("255=background", "0=x"))
    assert fitting_flags([Mask(blocks(1))], inverse) == "--labels 1=background 0=x"


# ---------------------------------------------------------------- transparency and colours


def test_masks_in_colours_can_be_made_grey_by_the_command_that_is_named(root: Path) -> None:
    options = make(root, "0 and 255")
    save(root / "masks/c0.png", np.stack([truth() * 255, truth() * 0, truth() * 0], -1))
    type_command(refusal(options))
    line = refusal(options)
    assert line.endswith("--labels 0=background 76=nuclei")
    convert_pairs(advised(options, line))
    check(1)


def test_transparency_of_a_mask_that_hides_something_is_flattened_by_the_command_that_is_named(root: Path) -> None:
    options = make(root, "0 and 255")
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[-3:] = 0
    white = np.maximum(truth() * np.uint8(255), (alpha == 0) * np.uint8(255))
    save(root / "masks/c0.png", np.stack([white, white, white, alpha], -1))
    type_command(refusal(options))
    convert_pairs(options)
    check(1)


@pytest.mark.parametrize("colour", [0, 255])
def test_a_colour_that_a_mask_calls_transparent_keeps_its_value(root: Path, colour: int) -> None:
    options = make(root, "0 and 255")
    save(root / "masks/c0.png", truth() * np.uint8(255), transparency=colour)
    folder = convert_pairs(options).folder
    check(1)
    assert "c0.png" in notes(folder, "repaired")["c0"]

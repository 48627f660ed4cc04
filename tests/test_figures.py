"""Figures and tables show what they are given."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdm.errors import DataError
from jdm.evaluation import figures
from jdm.evaluation.figures import Comparison, outlined, plane, to_rgb
from jdm.evaluation.tables import Table, table_markdown


@dataclass(frozen=True)
class _Pair:
    image: np.ndarray
    label: np.ndarray


def _pair(seed: int = 0, channels: int = 1, dtype: str = "uint8", shape: tuple[int, ...] = (20, 30)) -> _Pair:
    random = np.random.default_rng(seed)
    image = random.integers(0, 200, (channels, *shape)).astype(dtype)
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, n // 2 + 1) for n in shape)] = 1
    return _Pair(image, label)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_outline_is_the_inner_border_of_each_class() -> None:
    label = np.zeros((6, 7), int)
    label[1:4, 1:4] = 1
    label[4:, 4:] = 2
    drawn = outlined(np.zeros((6, 7, 3), np.uint8), label)
    first = (drawn == figures.COLOURS[0]).all(-1)
    second = (drawn == figures.COLOURS[1]).all(-1)
    assert first.sum() == 8  # a square of nine pixels without its centre
    assert not first[2, 2]
    assert second.sum() == 6  # all touch another class or the image's edge
    assert (drawn[(label == 0)] == 0).all()
    assert (outlined(drawn, np.full((6, 7), 11))[0, 0] == figures.COLOURS[0]).all()  # the eleventh repeats the first
    assert len(set(figures.COLOURS)) == 10


@pytest.mark.parametrize(
    ("channels", "dtype", "grey"),
    [
        (1, "uint8", True),
        (2, "uint8", True),
        (3, "uint8", False),
        (3, "float32", True),
        (1, "int16", True),
        (4, "uint16", True),
    ],
)
def test_every_kind_of_image_becomes_rgb(channels: int, dtype: str, grey: bool) -> None:
    image = _pair(channels=channels, dtype=dtype).image
    rgb = to_rgb(image)
    assert (rgb.shape, rgb.dtype) == ((20, 30, 3), np.uint8)
    if grey:
        assert (rgb == rgb[..., :1]).all()
        assert np.corrcoef(rgb[..., 0].ravel(), image[0].ravel())[0, 1] > 0.99
        assert rgb.min() == 0
        assert rgb.max() == 255
    else:
        assert (np.moveaxis(rgb, -1, 0) == image).all()


def test_window_ignores_outliers_and_survives_constant_images() -> None:
    image = np.tile(np.arange(100.0), (100, 1))[None]
    image[0, 0, 0] = 1e9
    assert int(to_rgb(image)[5, 50, 0]) == pytest.approx(128, abs=2)
    assert (to_rgb(np.full((1, 3, 3), 7)) == 128).all()
    spot = np.zeros((1, 40, 40))
    spot[0, 3, 3] = 9
    assert to_rgb(spot)[3, 3, 0] == 255


def test_of_a_volume_the_plane_with_most_foreground_is_shown() -> None:
    image = np.random.default_rng(0).random((2, 9, 5, 8))
    label = np.zeros((9, 5, 8), int)
    label[2:4, 3, :2] = 1
    other = np.arange(360).reshape(label.shape)
    shown, mask, third = plane(image, label, other)
    assert (shown == image[:, :, 3]).all()
    assert (mask == label[:, 3]).all()
    assert (third == other[:, 3]).all()
    single = plane(image[:, :1], label[:1])
    assert (single[0] == image[:, 0]).all()
    with pytest.raises(DataError, match=r"\(9, 5, 8\)"):
        plane(image, label[:5])


def test_grid_holds_every_pair_twice(tmp_path: Path) -> None:
    pairs = [
        _pair(1),
        _pair(2, 3),
        _pair(3, 2, "int16", (64, 64)),
        _pair(4, 1, "float32", (1, 20, 30)),
        _pair(5, shape=(300, 200)),
    ]
    figures.pair_grid(pairs, tmp_path / "grid.png", columns=2)
    sheet = _read(tmp_path / "grid.png")
    step = figures.TILE + 4
    assert sheet.shape[1] == 4 * step + 4
    assert sheet.shape[0] == 3 * step + 4
    orange = (sheet == figures.COLOURS[0]).all(-1)
    for number in range(5):
        row, column = divmod(number, 2)
        cell = np.s_[row * step : (row + 1) * step]
        assert not orange[cell, 2 * column * step + 4 : (2 * column + 1) * step].any()
        assert orange[cell, (2 * column + 1) * step + 4 : (2 * column + 2) * step].any()
    with pytest.raises(DataError, match="at least one"):
        figures.pair_grid([], tmp_path / "none.png")


def test_large_pictures_can_be_shown_by_their_centre(tmp_path: Path) -> None:
    pair = _pair(8, shape=(90, 60))
    figures.pair_grid([pair], tmp_path / "centre.png", crop=30)
    figures.pair_grid([_Pair(pair.image[:, 30:60, 15:45], pair.label[30:60, 15:45])], tmp_path / "cut.png")
    assert (_read(tmp_path / "centre.png") == _read(tmp_path / "cut.png")).all()


def test_comparison_sheet(tmp_path: Path) -> None:
    pair = _pair(6)
    arms = {"real": pair.label, "pretrain-finetune": np.roll(pair.label, 3)}
    row = Comparison("case_1", pair.image, pair.label, arms)
    figures.comparison([row, row], tmp_path / "comparison.png")
    assert _read(tmp_path / "comparison.png").shape[1] == 4 * (2 * figures.TILE + 4) + 4
    with pytest.raises(DataError, match="pretrain-finetune"):
        figures.comparison([row, Comparison("b", pair.image, pair.label, {})], tmp_path / "x.png")


def test_curves_mark_the_selected_step(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    lines = ["step,loss,held_out_loss,smoothed"]
    lines += [
        f"{s},{1 / (s + 1)},{0.3 if s % 50 == 0 else ''},{abs(s - 100) + 1 if s % 50 == 0 else ''}" for s in range(200)
    ]
    log.write_text("\n".join(lines))
    figures.curves(log, tmp_path / "curves.png")
    figures.curves(log, tmp_path / "selected.png", selected=100)
    assert (tmp_path / "curves.png").read_bytes() == (tmp_path / "selected.png").read_bytes()
    figures.curves(log, tmp_path / "other.png", selected=150)
    assert (_read(tmp_path / "curves.png") != _read(tmp_path / "other.png")).any()
    log.write_text("step,loss\n")
    with pytest.raises(DataError, match=r"log\.csv"):
        figures.curves(log, tmp_path / "x.png")
    with pytest.raises(DataError, match=r"nothing\.csv"):
        figures.curves(tmp_path / "nothing.csv", tmp_path / "x.png")


def test_table_in_markdown() -> None:
    table = Table("t", ("arm", "Dice"), (("real|long", "0.8"),))
    assert table_markdown(table) == "| arm | Dice |\n|---|---:|\n| real\\|long | 0.8 |\n"
    with pytest.raises(DataError, match="'t'"):
        table_markdown(Table("t", ("arm",), (("real", "0.8"),)))

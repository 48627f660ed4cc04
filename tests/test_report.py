"""Figures show what they are given; the report is one strict, self-contained file."""

import base64
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdm.errors import DataError
from jdm.evaluation import figures
from jdm.evaluation.figures import Comparison, Match, outlined, plane, to_rgb
from jdm.evaluation.report import Figure, Section, Table, table_markdown, write_report
from jdm.system.machine import describe_run


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


def test_comparison_and_nearest_sheets(tmp_path: Path) -> None:
    pair = _pair(6)
    arms = {"real": pair.label, "pretrain-finetune": np.roll(pair.label, 3)}
    row = Comparison("case_1", pair.image, pair.label, arms)
    figures.comparison([row, row], tmp_path / "comparison.png")
    assert _read(tmp_path / "comparison.png").shape[1] == 4 * (2 * figures.TILE + 4) + 4
    with pytest.raises(DataError, match="pretrain-finetune"):
        figures.comparison([row, Comparison("b", pair.image, pair.label, {})], tmp_path / "x.png")
    match = Match(pair, _pair(7), "distance 1.00, ratio 0.90")
    figures.nearest_sheet([match], tmp_path / "nearest.png")
    figures.nearest_sheet([match], tmp_path / "reverse.png", ("nearest synthetic pair", "training tile"))
    sheet, reverse = _read(tmp_path / "nearest.png"), _read(tmp_path / "reverse.png")
    assert (sheet < 100).all(-1).any()  # text and picture on white
    assert (sheet != reverse).any() and (sheet[20:] == reverse[20:]).all()  # other headings, equal pictures


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


class _Reader(HTMLParser):
    """Checks that tags are closed in order, and collects attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_one_self_contained_accessible_file(tmp_path: Path) -> None:
    figures.pair_grid([_pair()], tmp_path / "grid.png")
    table = Table("Dice", ("arm", "Dice"), (("real", "0.81"), ("<script>alert(1)</script>", "0.82")))
    figure = Figure(tmp_path / "grid.png", 'a pair "outlined"', "One pair.")
    sections = [
        Section("Results", ("What came out & why.",), (table,), (figure,), ("Three seeds.",)),
        *(Section(f"Part {i}") for i in range(3)),
    ]
    path = tmp_path / "deep" / "report.html"
    run = describe_run(["jdm-demo", "--out", "a b"])
    write_report(path, sections, verdict="Pairs <helped>.", title="Demo <1>", run=run)
    text = path.read_text(encoding="utf-8")
    page = _Reader(text)
    tags = [tag for tag, _ in page.seen]
    assert not {"link", "iframe"} & set(tags) and tags.count("script") == 1
    assert "http:" not in text and "https:" not in text
    sources = [attributes["src"] or "" for tag, attributes in page.seen if tag == "img"]
    assert base64.b64decode(sources[0].split(",", 1)[1]) == (tmp_path / "grid.png").read_bytes()
    assert [a["alt"] for tag, a in page.seen if tag == "img"] == ['a pair "outlined"']
    assert tags.count("h1") == 1
    assert [a.get("scope") for tag, a in page.seen if tag == "th"] == ["col", "col", "row", "row"]
    targets = {a["href"] for tag, a in page.seen if tag == "a"}
    assert targets == {"#" + (a["id"] or "") for tag, a in page.seen if tag == "section"}
    for shown in ("jdm-demo --out 'a b'", "cores", "Three seeds.", "<script>alert(1)</script>", "Demo <1>"):
        assert shown in page.text
    body = page.text[page.text.index("Pairs <helped>.") :]  # the verdict is the first that is shown
    assert page.seen[[tag for tag, _ in page.seen].index("body") + 1 :][1] == ("p", {"class": "verdict"})
    assert body.index("Demo <1>") < body.index("Three seeds.") < body.index("jdm-demo --out")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_failed_report_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, [Section("First")], verdict="Helped.")
    before = path.read_bytes()
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    for figure in (tmp_path / "a.png", tmp_path / "missing.png"):
        with pytest.raises(DataError, match="PNG"):
            write_report(path, [Section("Second", figures=(Figure(figure, "a"),))], verdict="")
    with pytest.raises(DataError, match="'t'"):
        write_report(path, [Section("Third", tables=(Table("t", ("a",), (("b", "c"),)),))], verdict="")
    assert path.read_bytes() == before


def test_table_in_markdown() -> None:
    table = Table("t", ("arm", "Dice"), (("real|long", "0.8"),))
    assert table_markdown(table) == "| arm | Dice |\n|---|---:|\n| real\\|long | 0.8 |\n"

"""Outlines to pixels, and a miniature of MoNuSeg."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conversion_miniatures import notes, picture, record, zipped
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_conversion.aperio import read_outlines
from dataset_conversion.monuseg import CLASSIC_IDS, convert_monuseg
from dataset_conversion.options import MonusegOptions
from dataset_conversion.polygons import inside_polygon, number_polygons
from dataset_conversion.xml_files import read_xml
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.errors import DataError

# ---------------------------------------------------------------- polygons


def filled(vertices: object, shape: tuple[int, int] = (12, 14), centre: float = 0.5) -> np.ndarray:
    result = np.zeros(shape, bool)
    pixels, rows, columns = inside_polygon(np.array(vertices, float), shape, centre)
    result[rows, columns] = pixels
    return result


coordinate = st.floats(-4, 18, allow_nan=False).map(lambda v: round(v, 2))


@given(coordinate, coordinate, coordinate, coordinate)
def test_a_rectangle_has_the_pixels_whose_centres_it_holds(x0: float, y0: float, x1: float, y1: float) -> None:
    ys, xs = np.mgrid[0:12, 0:14] + 0.5
    expected = (xs >= min(x0, x1)) & (xs < max(x0, x1)) & (ys >= min(y0, y1)) & (ys < max(y0, y1))
    np.testing.assert_array_equal(filled([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), expected)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9, unique=True))
def test_winding_agrees_with_the_angle_around_each_centre(points: list[tuple[float, float]]) -> None:
    result = filled(points)
    ys, xs = np.mgrid[0:12, 0:14] + 0.5
    ring = np.array([*points, points[0]])
    to = ring[:, None, None, :] - np.stack([xs, ys], -1)
    cross = to[:-1, ..., 0] * to[1:, ..., 1] - to[:-1, ..., 1] * to[1:, ..., 0]
    turn = np.arctan2(cross, (to[:-1] * to[1:]).sum(-1))
    near = (np.abs(cross) < 1e-6).any(0)  # a centre on the line of an edge may fall to either side
    winding = np.round(turn.sum(0) / (2 * np.pi))
    np.testing.assert_array_equal(result[~near], (winding != 0)[~near])


@given(coordinate, coordinate, coordinate, coordinate)
def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none(a: float, b: float, c: float, d: float) -> None:
    left = filled([(-9, -9), (a, -9), (a, b), (c, d), (c, 30), (-9, 30)])
    right = filled([(30, -9), (30, 30), (c, 30), (c, d), (a, b), (a, -9)])
    if b <= d:  # the shared line runs down, so that it cuts the plane in two
        assert (left ^ right).all()


def test_direction_start_and_position_of_the_outline() -> None:
    shape = [(2.2, 1.1), (9.7, 3.3), (6.4, 10.9), (1.5, 7.2)]
    reference = filled(shape)
    assert 30 < reference.sum() < 60
    np.testing.assert_array_equal(filled(shape[::-1]), reference)
    np.testing.assert_array_equal(filled(shape[2:] + shape[:2]), reference)
    np.testing.assert_array_equal(filled(np.array(shape) - 0.5, centre=0.0), reference)
    assert not filled([(100, 100), (120, 100), (110, 130)]).any()
    assert not filled([(-20, 1), (-10, 1), (-15, 9)]).any()
    assert filled([(-1e8, -1e8), (1e8, -1e8), (1e8, 1e8), (-1e8, 1e8)]).all()


def test_an_outline_that_crosses_itself_where_it_closes_has_no_hole() -> None:
    box = [(1, 1), (9, 1), (9, 9), (1, 9), (1, 1), (3, 1), (3, 3), (1, 3)]  # runs on around its first corner
    np.testing.assert_array_equal(filled(box), filled(box[:4]))


def test_small_objects_lie_on_large_ones() -> None:
    small, large = np.array([(3, 3), (5, 3), (5, 5), (3, 5)], float), np.array([(1, 1), (9, 1), (9, 9), (1, 9)], float)
    for polygons in ([small, large], [large, small]):
        numbers, odd = number_polygons([*polygons, small + 100], (12, 14))
        number = 1 + next(i for i, p in enumerate(polygons) if p is small)
        assert (numbers == number).sum() == 4
        assert (numbers > 0).sum() == 64
        assert [line.split()[0] for line in odd] == ["4", "1"], "pixels in both, outlines outside"


# ---------------------------------------------------------------- XML

SQUARE = [(2.0, 1.0), (6.0, 1.0), (6.0, 4.0), (2.0, 4.0)]
OTHER = [(7.0, 5.0), (11.0, 5.0), (11.0, 9.0), (7.0, 9.0)]


def region(vertices: list[tuple[float, float]], kind: int | str = 0, negative: int = 0, text: str = "") -> str:
    points = "".join(f'<Vertex X="{x:.6f}" Y="{y:.6f}" Z="0"/>' for x, y in vertices)
    return (
        f'<Region Id="7" Type="{kind}" Zoom="1" Length="0" Text="{text}" NegativeROA="{negative}"><Attributes/>'
        f"<Vertices>{points}</Vertices></Region>"
    )


def layer(*regions: str, name: str = "", attribute: str = "Description") -> str:
    """As ImageScope writes it, with the attribute in which some tools keep a class."""
    return (
        f'<Annotation Id="1" Name="{name}" Type="4"><Attributes><Attribute Name="{attribute}" Id="0" Value=""/>'
        f"</Attributes><Regions><RegionAttributeHeaders/>{''.join(regions)}</Regions><Plots/></Annotation>"
    )


def xml(*layers: str) -> str:
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}\n<Annotations MicronsPerPixel="0.252000">{"".join(layers)}<Annotation Id="2"/></Annotations>'


def aperio(regions: list[list[tuple[float, float]]]) -> str:
    return xml(layer(*map(region, regions)))


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<Annotations>&b;</Annotations>"""
THIEF = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><Annotations>&a;</Annotations>'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (BOMB, "DTD"), (THIEF, "DTD"), ("<Annotations>", "XML"), ("", "XML"), ("<other/>", "'other'"),
        (aperio([[(1, 2), (float("nan"), 3), (4, 5)]]), "'7'"), (aperio([[(1, 2), (1e12, 3), (4, 5)]]), "'7'"),
        (aperio([SQUARE]).replace('X="2.000000"', 'Q="2"', 1), "'7'"),
        (aperio([SQUARE]).replace('X="2.000000"', 'X="two"', 1), "'7'.*two"),
    ],
)  # fmt: skip
def test_unusable_outlines_are_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=named) as caught:
        read_outlines(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_huge_xml_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.xml").open("wb") as file:
        file.truncate(2**27 + 1)
    with pytest.raises(DataError, match="134217728"):
        read_xml(tmp_path / "a.xml", "Annotations")


FRAME = [(0.0, 0.0), (12.0, 0.0), (12.0, 10.0), (0.0, 10.0)]


def square(vertices: list[tuple[float, float]]) -> np.ndarray:
    return filled(vertices, (10, 12))


@pytest.mark.parametrize(
    ("text", "nuclei", "told"),
    [
        (xml(layer(region(SQUARE), region(FRAME, 1))), [SQUARE], ["1 rectangle"]),
        (xml(layer(region(SQUARE), region(FRAME, 0))), [SQUARE], ["1 outline"]),
        (xml(layer(region(SQUARE)), layer(region(OTHER), name="Ambiguous")), [SQUARE], ["'Ambiguous'", "1 "]),
        (xml(layer(region(SQUARE)), layer(region(OTHER), attribute="Ambiguous")), [SQUARE], ["'Ambiguous'"]),
        (xml(layer(region(SQUARE)), layer(region(OTHER), name="ROI")), [SQUARE], ["'ROI'"]),
        (xml(layer(region(SQUARE), name="Nuclei"), layer(region(OTHER), name="x")), [SQUARE], ["'x'", "'Nuclei'"]),
        (xml(layer(region(SQUARE), name="mine")), [SQUARE], ["'mine'"]),
        (xml(layer(region(SQUARE), name="tumor nuclei")), [SQUARE], ["'tumor nuclei'"]),
        (xml(layer(region(SQUARE)), layer(region(OTHER), attribute="Lymphocyte")), [SQUARE, OTHER], ["'Lymphocyte'"]),
        (xml(layer(region(SQUARE), region(OTHER, text="not sure? exclude"))), [SQUARE], ["not sure"]),
        (xml(layer(region(SQUARE), region(OTHER, 3), region(OTHER, 4), region(OTHER, "x"))), [SQUARE],
         ["1 arrow", "1 ruler", "'x'"]),
        (xml(layer(region(SQUARE), region([(1.0, 1.0), (2.0, 2.0)]))), [SQUARE], ["1 outline"]),
        (xml(layer(region(SQUARE), region(OTHER, 2, negative=1))), [SQUARE], ["1 negative ellipse"]),
    ],
)  # fmt: skip
def test_what_a_region_is_decides_and_is_told(
    tmp_path: Path, nnunet_folders: dict[str, Path], text: str, nuclei: list, told: list[str]
) -> None:
    root = make_monuseg(tmp_path / "MoNuSeg")
    (path,) = root.glob(f"*/*/Annotations/{TRAINING[0]}.xml")
    path.write_text(text)
    folder = convert_monuseg(MonusegOptions(root, 11)).folder
    expected = np.logical_or.reduce([square(vertices) for vertices in nuclei])
    np.testing.assert_array_equal(read_case(open_dataset(11), TRAINING[0]).label, expected)
    line = next("; ".join(e["notes"]) for e in record(folder)["entries"] if e["case"] == TRAINING[0])
    assert all(words in line for words in told), line


@pytest.mark.parametrize("corners", [2, 4])
def test_an_ellipse_has_the_pixels_whose_centres_it_holds(tmp_path: Path, corners: int) -> None:
    box = [(3.0, 2.0), (43.0, 22.0)] if corners == 2 else [(3.0, 2.0), (43.0, 2.0), (43.0, 22.0), (3.0, 22.0)]
    (tmp_path / "a.xml").write_text(xml(layer(region(box, 2))))
    ((vertices,), taken) = (lambda found: (found.nuclei, found.taken))(read_outlines(tmp_path / "a.xml"))
    ys, xs = np.mgrid[0:30, 0:50] + 0.5
    inside = ((xs - 23) / 20) ** 2 + ((ys - 12) / 10) ** 2 < 1
    np.testing.assert_array_equal(filled(vertices, (30, 50)), inside)
    assert any("1 ellipse" in line for line in taken)


def test_nothing_left_says_what_was_left_out(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    root = make_monuseg(tmp_path / "MoNuSeg")
    for path in root.glob("*/*/Annotations/*.xml"):
        path.write_text(xml(layer(region(SQUARE), name="Ambiguous")))
    with pytest.raises(DataError, match=r"2 .*'Ambiguous'"):
        convert_monuseg(MonusegOptions(root, 11))


def test_negative_regions_are_holes(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    root = make_monuseg(tmp_path / "MoNuSeg")
    (path,) = root.glob(f"*/*/Annotations/{TRAINING[0]}.xml")
    hole = [(3.0, 2.0), (5.0, 2.0), (5.0, 3.0), (3.0, 3.0)]
    path.write_text(xml(layer(region(hole, 1, negative=1), region(SQUARE))))
    convert_monuseg(MonusegOptions(root, 11))
    expected = square(SQUARE) & ~square(hole)
    assert expected.sum() == 12 - 2
    np.testing.assert_array_equal(read_case(open_dataset(11), TRAINING[0]).label, expected)


# ---------------------------------------------------------------- the dataset

TRAINING = ("TCGA-18-5592-01Z-00-DX1", "TCGA-B0-5698-01Z-00-DX1", "TCGA-F9-A97G-01Z-00-DX1")  # the last is new in 2018
TEST = "TCGA-2Z-A9J9-01A-01-TS1"


def make_monuseg(root: Path) -> Path:
    training = root / "MoNuSeg 2018 Training Data" / "MoNuSeg 2018 Training Data"
    test = root / "MoNuSegTestData"
    for folder in (training / "Tissue Images", training / "Annotations", test):
        folder.mkdir(parents=True)
    regions = [SQUARE, [(7.0, 5.0), (9.0, 5.0)], [(5.5, 3.5), (9.5, 3.5), (9.5, 7.5), (5.5, 7.5)]]
    for i, name in enumerate((*TRAINING, TEST)):
        image = training / "Tissue Images" if i < 3 else test
        tifffile.imwrite(image / f"{name}.tif", picture(i, (10, 12, 3)))
        (training / "Annotations" / f"{name}.xml" if i < 3 else test / f"{name}.xml").write_text(aperio(regions))
    (test / "._x.xml").write_bytes(b"mac")
    return root


@pytest.mark.usefixtures("nnunet_folders")
def test_monuseg(tmp_path: Path) -> None:
    made = convert_monuseg(MonusegOptions(make_monuseg(tmp_path / "MoNuSeg"), 11))
    dataset = open_dataset("MoNuSeg")
    assert (dataset.cases, dataset.test_cases) == (tuple(sorted(TRAINING[:2])), (TEST,))
    label = read_case(dataset, TRAINING[0]).label
    assert label.sum() == 4 * 3 + 4 * 4 - 1, "areas of the two squares, less the pixel they share"
    assert label[1:4, 2:6].all()
    with Image.open(made.folder / "instancesTr" / f"{TRAINING[0]}.png") as numbers:
        assert np.unique(np.asarray(numbers)).tolist() == [0, 1, 2]
    assert (made.folder / "instancesTs" / f"{TEST}.png").is_file()
    assert "1 outline" in notes(made.folder, "repaired")[TEST]
    ignored = [e for e in record(made.folder)["entries"] if e["status"] == "ignored"]
    assert ["--cases all" in e["notes"][0] for e in ignored] == [True]
    assert record(made.folder)["published"] == {
        "train": {"found": 2, "published": 30}, "test": {"found": 1, "published": 14},
    }  # fmt: skip
    assert check_dataset(dataset) == []


@pytest.mark.usefixtures("nnunet_folders")
def test_monuseg_all_cases_from_a_zip_with_a_doubled_folder(tmp_path: Path) -> None:
    root = make_monuseg(tmp_path / "MoNuSeg")
    training = root / "MoNuSeg 2018 Training Data"
    shutil.copytree(training / training.name / "Annotations", training / "Annotations")
    made = convert_monuseg(MonusegOptions(zipped(root), 11, cases="all"))
    assert (made.training, made.test, made.counts["ignored"]) == (3, 1, 3)
    (training / "Annotations" / f"{TRAINING[0]}.xml").write_text(aperio([SQUARE]))
    with pytest.raises(DataError, match=f"{TRAINING[0]}.xml.*{TRAINING[0]}.xml"):
        convert_monuseg(MonusegOptions(root, 12, "Other"))


@pytest.mark.usefixtures("nnunet_folders")
def test_monuseg_without_test_or_training_folder(tmp_path: Path) -> None:
    root = make_monuseg(tmp_path / "MoNuSeg")
    with pytest.raises(DataError, match="'Tissue Images'"):
        convert_monuseg(MonusegOptions(root / "MoNuSegTestData", 11))
    made = convert_monuseg(MonusegOptions(root / "MoNuSeg 2018 Training Data", 11))
    assert any("MoNuSegTestData" in w for w in made.warnings)
    (root / "MoNuSegTestData" / f"{TEST}.xml").unlink()
    with pytest.raises(DataError, match=TEST):
        convert_monuseg(MonusegOptions(root, 12, "Other"))


def test_the_classic_ids_are_those_of_the_shared_data(shared_data: Path) -> None:
    assert {path.stem for path in (shared_data / "monuseg/train/images").iterdir()} == CLASSIC_IDS
    assert not {path.stem for path in (shared_data / "monuseg/test/images").iterdir()} & CLASSIC_IDS
    assert len(CLASSIC_IDS) == 30

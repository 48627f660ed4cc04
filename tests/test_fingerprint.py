"""What is measured of a dataset: sizes, axes, objects and symmetry."""

from types import SimpleNamespace

import numpy as np
import pytest
from made_datasets import IDENTITY, discs, encoded, has_moments_of, measured, write
from small_runs import picture, write_pictures

from jdm.data.raw_dataset import Pair, RawDataset, read_case, write_case
from jdm.errors import ConfigError
from jdm.plan.survey import distinct_layouts, layout


@pytest.fixture
def raw(nnunet_folders):
    return nnunet_folders["nnUNet_raw"]


def test_a_fingerprint_of_pictures(raw):
    dataset = write_pictures(raw, shape=(16, 24), channels=3, classes=4)
    write_case(dataset.folder, picture("case_0", 0, (20, 18), channels=3, classes=4), ".png")
    found = measured(dataset, classes={"case_0": "b", "case_1": "a", "case_2": "b", "case_3": ""})
    assert (found.cases, found.items, found.channels, found.classes, found.slices) == (5, 5, 3, 4, 1)
    assert found.sizes == (((16, 24), 1, 4), ((20, 18), 1, 1))
    assert (found.median_size, found.largest_size, found.slice_axis) == ((16, 24), (20, 24), None)
    assert found.dtype == "uint8" and found.low == (0, 0, 0) and found.high == (255, 255, 255)
    assert has_moments_of(found, encoded(dataset, found)) and not found.zero_border
    shares = [[(read_case(dataset, c).label == k).mean() for k in range(4)] for c in dataset.cases]
    assert found.class_shares == pytest.approx(np.mean(shares, axis=0))
    (whole,) = found.foreground
    assert whole.size == (20, 24) and whole.least == pytest.approx(np.min(shares, axis=0))
    assert (found.class_names, found.class_sizes) == (("a", "b"), ((1, 384), (2, 384 + 360)))


def test_the_foreground_is_measured_over_crops_of_several_sizes(raw):
    label = np.zeros((80, 150), np.uint8)
    label[:, 70:] = 1
    found = measured(write(raw, [np.zeros((1, 80, 150), np.uint8)] * 2, [label] * 2))
    small, large, whole = found.foreground
    assert (small.size, large.size, whole.size) == ((64, 64), (128, 128), (80, 150))
    assert (small.least[1], small.most[1]) == (0, 1)  # in 800 places
    assert 58 / 128 <= large.least[1] < large.most[1] <= 80 / 128
    assert whole.least[1] == whole.most[1] == pytest.approx(80 / 150)


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 3.0, 1.0), (0.7, 0.7, 5.0), (1.0, 1.2, 1.1), (0.5, 0.8, 0.8)]
)
def test_volumes_are_sliced_along_the_axis_that_nnunets_2d_configuration_puts_first(raw, spacing):
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    images = [np.random.default_rng(0).normal(100, 30, (1, 6, 9, 12)).astype(np.float32)] * 2
    found = measured(write(raw, images, spacing=spacing))
    shapes = {"spacings": [spacing] * 2, "shapes_after_crop": [(6, 9, 12)] * 2}
    planner = SimpleNamespace(
        dataset_fingerprint=shapes, overwrite_target_spacing=None, suppress_transpose=False, anisotropy_threshold=3
    )
    planner.determine_fullres_target_spacing = lambda: ExperimentPlanner.determine_fullres_target_spacing(planner)
    forward, _ = ExperimentPlanner.determine_transpose(planner)
    slices = (6, 9, 12)[forward[0]]
    assert found.slice_axis == forward[0] and found.sizes == ((tuple((6, 9, 12)[a] for a in forward[1:]), slices, 2),)
    assert found.spacing == pytest.approx(tuple(spacing[axis] for axis in forward[1:]))
    assert found.slice_spacing == pytest.approx(spacing[forward[0]]) and found.items == 2 * slices
    assert found.direction == IDENTITY.direction


@pytest.mark.parametrize("spacing", [(0.1, 1.0, 1.0), (9.0, 1.0, 1.0)])
def test_volumes_of_one_slice_are_images_however_thin_it_is(raw, spacing):
    found = measured(write_pictures(raw, cases=3, shape=(1, 24, 16), dtype="uint16", spacing=spacing))
    assert (found.slice_axis, found.sizes) == (0, (((24, 16), 1, 3),))


def test_slices_that_are_constant_do_not_count(raw):
    image = np.random.default_rng(0).normal(100, 30, (1, 6, 9, 12)).astype(np.float32)
    image[:, :4] = 0
    assert measured(write(raw, [image], spacing=(3.0, 1.0, 1.0))).items == 2


def test_a_slice_axis_that_the_cases_do_not_have_is_refused(raw):
    volumes = write(raw, [np.ones((1, 6, 8, 8), np.float32)])
    for dataset, axis, expected in ((volumes, None, "0, 1 or 2"), (write_pictures(raw, cases=1), 0, "none")):
        with pytest.raises(ConfigError, match=rf"data\.slice_axis is (none|0).*{dataset.name}.*expected {expected}"):
            measured(dataset, wanted_axis=axis)


def test_sides_are_rounded_in_the_planned_spacing(raw):
    image = np.random.default_rng(0).normal(100, 30, (1, 4, 31, 31)).astype(np.float32)
    found = measured(write(raw, [image], spacing=(3.0, 0.3, 0.3)))
    assert found.median_size == (31, 31)  # 31 * 0.3 / 0.3 is a little less


# ---------------------------------------------------------------- symmetry


def placed(where: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture of two discs in grey and its label of two classes, laid out in some way."""
    row, column = rng.integers(14, 27, 2)
    if where == "left":
        column = rng.integers(10, 16)
    step = {"above": (9, 0), "scattered": (0, 9), "left": (0, 9), "beside": (0, 9), "lit": (0, 9), "long": (0, 6)}[
        where
    ]
    if where in ("scattered", "left", "lit"):
        step = (step[1], step[0]) if rng.random() < 0.5 else step
    if where not in ("above", "beside"):
        step = tuple(int(rng.choice([-1, 1])) * s for s in step)
    label = np.zeros((40, 40), np.uint8)
    for value, sign in ((1, -1), (2, 1)):
        label[discs((40, 40), (row + sign * step[0] / 2, column + sign * step[1] / 2, 3))] = value
    image = 60.0 + 50 * (label > 0) + rng.normal(0, 5, label.shape)
    if where == "lit":
        image += 2 * np.arange(40)[:, None]
    return image.clip(0, 255).astype(np.uint8)[None], label


@pytest.mark.parametrize(
    ("where", "axes", "turns"),
    [
        ("scattered", (0, 1), True),
        ("left", (0,), False),  # the foreground is on one side
        ("above", (1,), False),  # one class is always above the other, wherever they are
        ("beside", (0,), False),
        ("lit", (1,), False),  # the light comes from below, and the masks do not tell
        ("long", (0, 1), False),  # both lie along one axis
    ],
)
def test_mirroring_is_decided_by_where_things_lie(raw, where, axes, turns):
    rng = np.random.default_rng(1)
    images, labels = zip(*(placed(where, rng) for _ in range(30)), strict=True)
    found = measured(write(raw, images, labels, channels=("grey",), names=("background", "a", "b")))
    assert (found.mirror_axes, found.quarter_turns) == (axes, turns), found.symmetry
    layouts = [layout(Pair("a", image, label, (1, 1)), 3) for image, label in zip(images, labels, strict=True)]
    assert [distinct_layouts(layouts, kind) for kind in (0, 1)] == [axis not in axes for axis in (0, 1)]
    assert not any(distinct_layouts(layouts[:2], kind) for kind in range(3))  # two cases are no evidence


@pytest.mark.parametrize(
    ("label", "channel", "sided"),
    [
        ("nucleus", "grey", False), ("bright", "actin", False), ("cleft", "mRNA", False), ("survival", "R", False),
        ("lv_wall", "CTLA4", True), ("RV", "grey", True), ("left kidney", "grey", True), ("LeftKidney", "grey", True),
        ("lung_right", "grey", True), ("LA", "grey", True), ("lump", "CT", True), ("lump", "xray", True),
        ("lump", "X-ray", True), ("lump", "MRI", True), ("lump", "mr_t1", True),
    ],
)  # fmt: skip
def test_names_of_sides_and_of_bodies_are_not_mirrored_whatever_the_cases_show(raw, label, channel, sided):
    dataset = write_pictures(raw, shape=(16, 16), cases=2)
    dataset = RawDataset(**{**vars(dataset), "labels": {"background": 0, label: 1}, "channel_names": (channel,)})
    found = measured(dataset)
    assert (found.mirror_axes, found.quarter_turns) == (((), False) if sided else ((0, 1), True))
    assert (label in found.symmetry or channel in found.symmetry) == sided


def test_volumes_are_not_mirrored_and_only_square_pictures_turned(raw):
    volumes = measured(write_pictures(raw, cases=2, shape=(4, 16, 16), dtype="int16"))
    assert volumes.mirror_axes == () and not volumes.quarter_turns
    pictures = measured(write_pictures(raw, cases=2, shape=(16, 24)))
    assert pictures.mirror_axes == (0, 1) and not pictures.quarter_turns


# ---------------------------------------------------------------- masks at the trained spacing


def boxes(spacing: tuple[float, ...], side: float) -> tuple[np.ndarray, np.ndarray]:
    """A volume of 32 x 32 x 32 mm of noise, with a cube of class 1 with sides of `side` mm, and a speck of 4 mm."""
    shape = tuple(round(32 / step) for step in spacing)
    label = np.zeros(shape, np.uint8)
    for first, length in ((4, side), (24, 4)):
        label[tuple(slice(round(first / step), round((first + length) / step)) for step in spacing)] = 1
    return np.random.default_rng(0).normal(100, 30, (1, *shape)).astype(np.float32), label


def mixed(raw) -> RawDataset:
    """Cases of the same objects at spacings of 1 and 2 mm, of which the median is 1 mm."""
    kinds = (((1.0,) * 3, 16), ((1.0,) * 3, 12), ((2.0,) * 3, 16))
    pairs = [boxes(*kind) for kind in kinds]
    dataset = write(raw, *zip(*pairs, strict=True))
    for number, ((image, label), (spacing, _)) in enumerate(zip(pairs, kinds, strict=True)):
        write_case(dataset.folder, Pair(f"v{number}", image, label, spacing, IDENTITY), ".nii.gz")
    return dataset


def test_classes_and_regions_of_volumes_are_measured_in_the_trained_spacing(raw):
    found = measured(mixed(raw), wanted_axis=None, dims=3)
    assert found.spacing == (1.0, 1.0, 1.0)
    assert found.class_volumes[1] == (12**3 + 4**3, 16**3 + 4**3)  # mm3, whatever the spacing of the case
    assert found.least_region == 4**3  # not the 2^3 voxels of the coarse case
    small = found.foreground[-1]
    assert small.most[1] == pytest.approx((16**3 + 4**3) / 32**3) and small.size == (32, 32, 32)


def test_classes_of_slices_are_measured_in_square_millimetres(raw):
    found = measured(mixed(raw), wanted_axis=0)
    assert found.spacing == (1.0, 1.0)
    assert found.class_volumes[1] == (0, 16**2) and found.least_region == 4**2


def test_crops_of_all_cases_are_as_large_in_millimetres(raw):
    """Of a coarse case with class 1 in 32 of 200 mm, a crop of 64 mm holds at most half class 1."""
    pairs = []
    for spacing in (1.0, 1.0, 2.0):
        label = np.zeros((10, round(80 / spacing), round(200 / spacing)), np.uint8)
        label[:, :, 40:56] = spacing == 2
        image = np.random.default_rng(0).normal(100, 30, (1, *label.shape)).astype(np.float32)
        pairs.append(Pair(f"v{len(pairs)}", image, label, (1.0, spacing, spacing), IDENTITY))
    dataset = write(raw, [pair.image for pair in pairs], [pair.label for pair in pairs])
    for pair in pairs:
        write_case(dataset.folder, pair, ".nii.gz")
    for options in ({"wanted_axis": None, "dims": 3}, {"wanted_axis": 0}):
        crops = measured(dataset, **options).foreground[0]
        assert set(crops.size) == {64} and crops.least[1] == 0 and crops.most[1] == pytest.approx(0.5)

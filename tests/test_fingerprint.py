"""What is measured of a dataset: sizes, objects, symmetry, and how intensities are encoded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import config_of, picture, write_pictures

from jdm.data.codec import PairCodec
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import Geometry, Pair, RawDataset, read_case, read_dataset, write_case, write_dataset_json
from jdm.errors import ConfigError
from jdm.plan.fingerprint import fingerprint
from jdm.plan.survey import distinct_layouts, layout, object_diameters

IDENTITY = Geometry((0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))


@pytest.fixture
def raw(nnunet_folders):
    return nnunet_folders["nnUNet_raw"]


def write(raw, images, labels=None, spacing=None, channels=("MRI",), names=("background", "organ")) -> RawDataset:
    """A dataset of images (channels, *spatial), volumes or pictures; of labels, or of the brighter halves."""
    folder, ending = raw / "Dataset031_Made", ".png" if images[0].ndim == 3 else ".nii.gz"
    spacing = spacing or (1.0,) * (images[0].ndim - 1)
    for index, image in enumerate(images):
        label = image[0] > np.median(image[0]) if labels is None else labels[index]
        geometry = IDENTITY if ending == ".nii.gz" else None
        write_case(folder, Pair(f"v{index}", image, label.astype(np.uint8), spacing, geometry), ending)
    values = {name: value for value, name in enumerate(names)}
    write_dataset_json(folder, channel_names=channels, labels=values, file_ending=ending, num_training=len(images))
    return read_dataset(folder)


def measured(dataset: RawDataset, **options):
    return fingerprint(dataset, list(dataset.cases), **options)


def encoded(dataset: RawDataset, found) -> list[np.ndarray]:
    """The image channels of each item."""
    axis = found.slice_axis
    config = config_of(found, data={"slice_axis": "none" if axis is None else axis, "patch_size": [8, 8],
                                    "canvas_size": [8, 8]}, codec={"mask_code": "bits"})  # fmt: skip
    pairs = PairDataset(dataset, list(dataset.cases), config)
    crops = (pairs.crop(index, pairs.item_shape(index), np.random.default_rng(0)) for index in range(len(pairs)))
    return [pairs.codec.encode(*crop)[: found.channels] for crop in crops]


def has_moments_of(found, samples: list[np.ndarray], tolerance=0.03) -> bool:
    """Whether the mean and deviation that the noise is scaled by are those of what is encoded."""
    flat = np.concatenate([sample.reshape(found.channels, -1) for sample in samples], axis=1)
    std = np.sqrt(flat.var(axis=1).mean())
    return bool(np.allclose(found.image_mean, flat.mean(axis=1), atol=tolerance)) and abs(found.image_std - std) < 0.03


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
            measured(dataset, slice_axis=axis)


def test_sides_are_rounded_in_the_planned_spacing(raw):
    image = np.random.default_rng(0).normal(100, 30, (1, 4, 31, 31)).astype(np.float32)
    found = measured(write(raw, [image], spacing=(3.0, 0.3, 0.3)))
    assert found.median_size == (31, 31)  # 31 * 0.3 / 0.3 is a little less


# ---------------------------------------------------------------- objects and symmetry


def discs(shape, *circles) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.any([(rows - r) ** 2 + (columns - c) ** 2 <= radius**2 for r, c, radius in circles], axis=0)


def test_objects_are_as_wide_as_discs_are_drawn(raw):
    label = discs((200, 300), (50, 50, 20), (50, 150, 30), (140, 220, 40), (5, 5, 3), (190, 20, 2))
    assert object_diameters(label) == pytest.approx([40, 60, 80], rel=0.02)  # without the specks
    assert object_diameters(np.zeros((9, 9))) == []
    volume = np.stack([discs((64, 80), (30, 40, 2 * depth)) for depth in range(9)])
    found = measured(write(raw, [100.0 * volume[None].astype(np.float32)] * 2, [volume] * 2, (5.0, 1.0, 1.0)))
    assert found.object_diameter == pytest.approx(32, rel=0.02)  # in the slice with most of it


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


# ---------------------------------------------------------------- intensities


def gammas(*gains: float, shape=(1, 5, 24, 20), order=9.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [gain * rng.gamma(order, 40.0, shape) for gain in gains]


def test_mr_cases_get_a_scale_each_and_ct_one_for_all(raw):
    images = [image.astype(np.float32) for image in gammas(1.0, 4.0, 9.0, order=3.0)]
    labels = [np.full(images[0][0].shape, 1)] * 3
    mr = write(raw, images, labels, (3.0, 1.0, 1.0))
    found = measured(mr)
    means = [np.mean([x.mean() for x in encoded(mr, found)[5 * case : 5 * case + 5]]) for case in range(3)]
    assert np.ptp(means) < 0.15 and None not in found.case_mean  # ninefold different before
    assert has_moments_of(found, encoded(mr, found))
    ct = measured(write(raw, images, labels, (3.0, 1.0, 1.0), ("CT",)))
    assert not ct.case_mean and not ct.case_std
    expected = np.percentile(np.concatenate([image.ravel() for image in images]), [0.5, 99.5])
    np.testing.assert_allclose([ct.low[0], ct.high[0]], expected, rtol=0.1, atol=3)


def test_ct_is_clipped_at_percentiles_of_the_foreground_as_nnunet_does(raw):
    rng = np.random.default_rng(0)
    images = [rng.integers(-1000, 2000, (1, 6, 40, 40)).astype(np.int16) for _ in range(2)]
    labels = [discs((40, 40), (20, 20, 12))[None].repeat(6, axis=0)] * 2
    for image, label in zip(images, labels, strict=True):
        image[0][label] = rng.normal(100, 20, label.sum())
    found = measured(write(raw, images, labels, channels=("ct",)))
    pooled = np.concatenate([image[0][label] for image, label in zip(images, labels, strict=True)])
    np.testing.assert_allclose([found.low[0], found.high[0]], np.percentile(pooled, [0.5, 99.5]), atol=5)
    assert found.clipped[0] > 0.9 and found.clipped[1] == pytest.approx(0.01, abs=0.01)


@pytest.mark.parametrize("by", ["name", "plans"])
def test_channels_that_nnunet_does_not_standardise_are_taken_as_stored(raw, nnunet_folders, by):
    images = [np.concatenate([a, b]).astype(np.float32) for a, b in zip(gammas(1, 4, 9), gammas(1, 4, 9), strict=True)]
    dataset = write(raw, images, channels=("noNorm" if by == "name" else "T2", "T1"))
    if by == "plans":
        folder = nnunet_folders["nnUNet_preprocessed"] / dataset.name
        folder.mkdir()
        schemes = {"2d": {"normalization_schemes": ["NoNormalization", "ZScoreNormalization"]}}
        (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": schemes}))
    found = measured(dataset)
    assert found.case_mean[0] is found.case_std[0] is None
    assert found.case_mean[1] == pytest.approx(np.median([image[1].mean() for image in images]), rel=0.05)
    assert has_moments_of(found, encoded(dataset, found))


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("value", [-9000, 9000])
@pytest.mark.parametrize("gain", [1, 6], ids=["one scale", "arbitrary units"])
def test_a_small_class_is_not_clipped_be_it_bright_or_dark(raw, dtype, value, gain):
    rng = np.random.default_rng(0)
    images, labels = [], []
    for factor in (1, gain, 1, gain):
        image, label = rng.normal(1000, 100, (1, 4, 60, 60)), np.zeros((4, 60, 60), np.uint8)
        label[2, 30:32, 30] = 1  # 0.014 % of the pixels
        image[0][label == 1] = value
        images.append((image * (factor if dtype == "float32" else min(factor, 3))).astype(dtype))
        labels.append(label)
    dataset = write(raw, images, labels, (3.0, 1.0, 1.0), ("microscope",))
    found = measured(dataset)
    assert found.clipped[1] == 0 and found.clipped[0] < 0.01
    assert bool(found.case_mean) == (gain > 1)


def test_sixteen_bits_use_their_range_without_outliers(raw):
    images = [np.random.default_rng(k).normal(1000, 50, (1, 8, 40, 40)).round().astype(np.uint16) for k in range(2)]
    images[0][0, 0, 0, 0] = 60000
    labels = [np.ones((8, 40, 40), np.uint8)] * 2
    found = measured(write(raw, images, labels, channels=("microscope",)))
    assert 700 < found.low[0] < 900 and 1100 < found.high[0] < 1300 and found.dtype == "uint16"
    assert not found.case_mean


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "float32"])
def test_arbitrary_units_stay_within_the_stored_type(raw, dtype):
    """Skewed images whose darkest pixels would come below 0, and bright ones above the type's end."""
    low = -20000 if dtype == "int16" else 0
    limits = {"uint8": (0, 255), "int16": (-32768, 32767)}.get(dtype, (0, 65535))
    base = [gammas(gain, order=order)[0] for gain, order in ((8.0, 1.0), (60.0, 9.0), (25.0, 30.0))]
    found = measured(write(raw, [(image + 5 + low).clip(*limits).astype(dtype) for image in base]))
    assert bool(found.case_mean) == (dtype != "uint8")
    ramp = np.linspace(-1.2, 1.2, 200)[None, None].repeat(2, axis=0)
    decoded = PairCodec(config_of(found, data={"slice_axis": 0})).decode(ramp)[0].astype(np.float64)
    assert (np.diff(decoded) >= 0).all()  # nothing wraps round
    np.testing.assert_allclose([decoded.min(), decoded.max()], [found.low[0], found.high[0]], atol=1)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_zero_borders_of_images_that_fill_their_type_can_be_planned(raw, dtype):
    most = np.iinfo(dtype).max
    images = []
    for spread in (0.02, 0.08):
        image = gammas(spread * most / 40, order=2.0)[0].clip(1, most)
        image[..., 0, 0] = most  # more than the brightest 0.05 %, less than the brightest 0.5 %
        image[..., 14:] = 0
        images.append(image.astype(dtype))
    found = measured(write(raw, images, spacing=(3.0, 1.0, 1.0)))
    assert found.zero_border and found.case_mean == (0.0,) and found.low == (0.0,) and found.high[0] <= most


def test_borders_of_exact_zeros_stay_zero_whatever_the_units(raw):
    images = [image.astype(np.int16) for image in gammas(1.0, 4.0, 9.0)]
    for image in images:
        image[..., :6] = 0
    images[0][0, 0, 0, 10] = -2  # resampling leaves such
    dataset = write(raw, images, spacing=(3.0, 1.0, 1.0))
    found = measured(dataset)
    assert found.zero_border and found.low == (0.0,) and found.case_mean == (0.0,)
    samples = encoded(dataset, found)
    assert {float(value) for x in samples for value in np.unique(x[x < -0.9])} == {-1.0}
    spread = [x[x > -0.9].std() for x in samples]
    assert max(spread) < 1.5 * min(spread)  # ninefold different before
    assert has_moments_of(found, samples)


def test_borders_count_only_where_zero_is_the_low_end_of_every_channel(raw):
    images = [np.concatenate([a, b]).astype(np.float32) for a, b in zip(gammas(1, 4, 9), gammas(1, 1, 1), strict=True)]
    for image in images:
        image[..., :6] = 0
        image[1, 0, 0, 10] = -30
    dataset = write(raw, images, channels=("T1", "noNorm"), spacing=(3.0, 1.0, 1.0))
    found = measured(dataset)
    assert not found.zero_border and found.low[1] == -30
    assert has_moments_of(found, encoded(dataset, found))

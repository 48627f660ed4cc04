"""Self-configuration: from what a dataset is to a plan."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import write_pictures

from jdm.cli.train import TrainCommand, planned, summary
from jdm.config.settings import CodecConfig, validate
from jdm.data.codec import PairCodec
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import Geometry, Pair, read_case, read_dataset, write_case, write_dataset_json
from jdm.draw.canvas import planned_pair
from jdm.errors import ConfigError
from jdm.plan.fingerprint import Fingerprint, fingerprint
from jdm.plan.rules import plan, planned_patch, steps_within

PHOTOGRAPHS = Fingerprint(
    cases=30, items=30, channels=3, classes=2, dtype="uint8", median_shape=(1000, 1000),
    spacing=(1.0, 1.0), slice_spacing=1.0, slice_axis=None, low=(0.0,) * 3, high=(255.0,) * 3,
    case_mean=(), case_std=(), image_mean=(0.3, -0.2, 0.0), image_std=0.4,
    class_shares=(0.75, 0.25), zero_border=False, sided=False,
)  # fmt: skip


def found(**values) -> Fingerprint:
    return dataclasses.replace(PHOTOGRAPHS, **values)


@pytest.mark.parametrize(
    ("shape", "device", "whole", "patch", "canvas"),
    [
        ((64, 64), "cpu", True, (64, 64), (64, 64)),
        ((100, 75), "cpu", True, (104, 80), (104, 80)),  # sides rounded up, not squared
        ((288, 300), "cuda", True, (288, 304), (288, 304)),
        ((1000, 1000), "cpu", False, (64, 64), (512, 512)),
        ((1000, 1000), "cuda", False, (128, 128), (512, 512)),
        ((400, 600), "cuda", False, (128, 128), (400, 512)),
        ((40, 9000), "cuda", False, (40, 128), (40, 512)),
    ],
)
def test_small_images_are_trained_whole_and_large_ones_as_patches(shape, device, whole, patch, canvas):
    data = plan(found(median_shape=shape), device=device).data
    assert (data.whole, data.patch_size, data.canvas_size, data.dims) == (whole, patch, canvas, 2)


def test_the_canvas_reaches_the_hosts_patch_but_not_beyond_the_images():
    assert plan(PHOTOGRAPHS, canvas_limit=(320, 256)).data.canvas_size == (320, 256)
    assert plan(found(median_shape=(300, 2000)), canvas_limit=(1024, 1024)).data.canvas_size == (300, 1024)
    assert plan(PHOTOGRAPHS, canvas_limit=(32, 32)).data.canvas_size == (64, 64)  # at least the training patch


@pytest.mark.parametrize(
    ("classes", "code"), [(2, "binary"), (3, "one-hot"), (8, "one-hot"), (9, "bits"), (300, "bits")]
)
def test_the_mask_code_follows_the_number_of_classes(classes, code):
    assert plan(found(classes=classes, class_shares=(1 / classes,) * classes)).codec.mask_code == code


@pytest.mark.parametrize(
    ("shares", "mean", "std"),
    [
        ((0.75, 0.25), (-0.25,), math.sqrt(0.75 * 0.25)),
        ((0.9, 0.06, 0.04), (0.4, -0.44, -0.46), math.sqrt((0.9 * 0.1 + 0.06 * 0.94 + 0.04 * 0.96) / 3)),
        ((0.9999, 0.0001), (-0.4999,), 0.1),  # not less, or foreground this rare would weigh more than all else
    ],
)
def test_the_noise_is_told_the_moments_of_the_encoded_pair(shares, mean, std):
    noise = plan(found(classes=len(shares), class_shares=shares)).noise
    assert noise.data_mean == pytest.approx((0.3, -0.2, 0.0, *mean), abs=1e-4)
    assert noise.sigma_data == pytest.approx((0.4, std), abs=1e-4)


def test_mirroring_only_where_nothing_has_a_side():
    photograph = plan(PHOTOGRAPHS).augment
    assert photograph.mirror_axes == (0, 1) and photograph.quarter_turns
    assert not plan(found(median_shape=(400, 600))).augment.quarter_turns
    for anatomy in (found(sided=True), found(slice_axis=0)):
        augment = plan(anatomy).augment
        assert augment.mirror_axes == () and not augment.quarter_turns
    assert plan(found(items=5000)).augment.probability < photograph.probability  # weaker with more data


@pytest.mark.parametrize(
    ("minutes", "width"),  # 6000 steps of 0.1 s, 0.225 s, 0.4 s, 1.6 s in nine tenths of the time
    [(1, 32), (11, 32), (24.9, 32), (25.1, 48), (44, 48), (45, 64), (177, 64), (178, 128), (2000, 128)],
)
def test_a_budget_buys_the_largest_network_that_gets_enough_steps(minutes, width):
    def seconds(config):  # proportional to width squared: 0.1 s for the smallest
        return 0.1 * (config.network.base_channels / 32) ** 2

    config = plan(PHOTOGRAPHS, budget_minutes=minutes, step_seconds=seconds)
    assert config.network.base_channels == width
    within = steps_within(minutes, seconds(config))
    assert config.train.budget_minutes == minutes  # ends the run by the clock
    assert config.train.steps >= within and config.train.validate_every <= max(20, within)


def test_steps_follow_from_a_budget_and_the_time_of_one():
    assert steps_within(1, 0.1) == 540
    # A rate that falls to zero has to know its last step.
    thesis = plan(PHOTOGRAPHS, preset="thesis", budget_minutes=10, step_seconds=lambda _: 0.5)
    assert thesis.train.steps == steps_within(10, 0.5) == 1080
    with pytest.raises(ConfigError, match="step_seconds"):
        plan(PHOTOGRAPHS, budget_minutes=5)


def test_the_thesis_preset_is_its_network_and_optimiser():
    config = plan(PHOTOGRAPHS, preset="thesis")
    assert config.augment.probability == 0 and not config.augment.mirror_axes  # its network is not told of any
    assert config.codec.mask_amplitude == 1
    assert config.network.channel_multipliers == (1, 1, 2, 2, 4, 4) and config.network.base_channels == 128
    assert config.network.attention_factors == (16, 32) and config.network.attention_heads == 4
    assert (config.train.batch_size, config.train.learning_rate, config.train.decay) == (10, 1e-4, "linear")
    assert config.train.ema_decay == 0.9999 and config.train.warmup_steps == 0
    assert all(side % 32 == 0 for side in config.data.patch_size)


def test_a_fingerprint_of_pictures(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], shape=(16, 24), channels=3, classes=4)
    measured = fingerprint(dataset, list(dataset.cases))
    assert (measured.cases, measured.items, measured.channels, measured.classes) == (5, 5, 3, 4)
    assert measured.median_shape == (16, 24) and measured.slice_axis is None
    assert measured.dtype == "uint8" and measured.low == (0, 0, 0) and measured.high == (255, 255, 255)
    encoded = np.concatenate([read_case(dataset, c).image.reshape(3, -1) for c in dataset.cases], axis=1) / 127.5 - 1
    moments = encoded.mean(axis=1), np.sqrt(encoded.var(axis=1).mean())
    assert measured.image_mean == pytest.approx(moments[0], abs=0.02)
    assert measured.image_std == pytest.approx(moments[1], rel=0.05)
    labels = np.stack([read_case(dataset, c).label for c in dataset.cases])
    assert measured.class_shares == pytest.approx([(labels == k).mean() for k in range(4)])
    assert not measured.zero_border and not measured.sided


def write_volumes(raw, images: list[np.ndarray], spacing, channel="MRI", labels=None) -> object:
    folder = raw / "Dataset031_Volumes"
    geometry = Geometry((0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))
    for index, image in enumerate(images):
        label = (image[0] > np.median(image[0])).astype(np.uint8)
        write_case(folder, Pair(f"v{index}", image, label, spacing, geometry), ".nii.gz")
    labels = labels or {"background": 0, "organ": 1}
    write_dataset_json(folder, channel_names=[channel], labels=labels, file_ending=".nii.gz", num_training=len(images))
    return read_dataset(folder)


def test_mr_cases_get_a_scale_each_and_ct_one_for_all(nnunet_folders):
    rng = np.random.default_rng(0)
    base = [rng.gamma(3.0, 40.0, (1, 5, 12, 10)) for _ in range(3)]
    images = [(b * gain).astype(np.float32) for b, gain in zip(base, (1.0, 4.0, 9.0), strict=True)]
    raw = nnunet_folders["nnUNet_raw"]
    mr = fingerprint(write_volumes(raw, images, (3.0, 1.0, 1.0)), ["v0", "v1", "v2"])
    assert mr.case_mean and plan(mr).data.case_mean == mr.case_mean and plan(mr).data.case_std == mr.case_std
    dataset = write_volumes(raw, images, (3.0, 1.0, 1.0))
    config = plan(mr)
    pairs = PairDataset(dataset, ["v0", "v1", "v2"], config)
    means = [
        np.mean([pairs.encoded(i, rng)[0].mean() for i, item in enumerate(pairs.items) if item.case_id == case])
        for case in ("v0", "v1", "v2")
    ]
    assert np.ptp(means) < 0.15  # ninefold different before
    ct = fingerprint(write_volumes(raw, images, (3.0, 1.0, 1.0), "CT"), ["v0", "v1", "v2"])
    assert not ct.case_mean and not ct.case_std
    values = np.concatenate([image.ravel() for image in images])
    np.testing.assert_allclose([ct.low[0], ct.high[0]], np.percentile(values, [0.5, 99.5]), rtol=0.1, atol=3)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_zero_borders_of_images_that_fill_their_type_can_be_planned(nnunet_folders, dtype):
    rng, most = np.random.default_rng(0), np.iinfo(dtype).max
    images = []
    for spread in (0.02, 0.08):
        image = (rng.gamma(2.0, spread * most, (1, 5, 24, 20))).clip(1, most)
        image[..., 0, 0] = most  # more than the brightest 0.05 %, less than the brightest 0.5 %
        image[..., 14:] = 0
        images.append(image.astype(dtype))
    measured = fingerprint(write_volumes(nnunet_folders["nnUNet_raw"], images, (3.0, 1.0, 1.0)), ["v0", "v1"])
    assert measured.zero_border and measured.case_mean == (0.0,) and measured.low == (0.0,)
    assert measured.high[0] <= most and validate(plan(measured)).codec.zero_border


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "float32"])
def test_arbitrary_units_stay_within_the_stored_type(nnunet_folders, dtype):
    """Skewed images whose darkest pixels would come below 0, and bright ones above the type's end."""
    rng = np.random.default_rng(1)
    base = [rng.gamma(shape, 40.0, (1, 5, 24, 20)) + 5 for shape in (1.0, 9.0, 30.0)]
    low = -20000 if dtype == "int16" else 0
    limits = {"uint8": (0, 255), "int16": (-32768, 32767)}.get(dtype, (0, 65535))
    images = [(b * gain + low).clip(*limits).astype(dtype) for b, gain in zip(base, (8.0, 60.0, 25.0), strict=True)]
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], images, (3.0, 1.0, 1.0))
    measured = fingerprint(dataset, ["v0", "v1", "v2"])
    assert bool(measured.case_mean) == (dtype != "uint8")
    codec = PairCodec(plan(measured).codec)
    ramp = np.linspace(-1.2, 1.2, 200)[None, None].repeat(2, axis=0)
    decoded = codec.decode(ramp)[0].astype(np.float64)
    assert (np.diff(decoded) >= 0).all()  # nothing wraps round
    np.testing.assert_allclose([decoded.min(), decoded.max()], [measured.low[0], measured.high[0]], atol=1)


def test_borders_of_exact_zeros_stay_zero_whatever_the_units(nnunet_folders):
    rng = np.random.default_rng(0)
    images = []
    for gain in (1.0, 4.0, 9.0):
        image = gain * rng.gamma(9.0, 40.0, (1, 5, 24, 20))
        image[..., :6] = 0
        images.append(image.astype(np.int16))
    images[0][0, 0, 0, 10] = -2  # resampling leaves such
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], images, (3.0, 1.0, 1.0))
    measured = fingerprint(dataset, ["v0", "v1", "v2"])
    assert measured.zero_border and measured.low == (0.0,) and measured.case_mean == (0.0,)
    pairs = PairDataset(dataset, ["v0", "v1", "v2"], plan(measured))
    encoded = [pairs.encoded(index, rng)[0] for index in range(len(pairs))]
    borders = {float(value) for x in encoded for value in np.unique(x[x < -0.9])}
    assert borders == {-1.0}
    spread = [x[x > -0.9].std() for x in encoded]
    assert max(spread) < 1.5 * min(spread)  # ninefold different before


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 3.0, 1.0), (0.7, 0.7, 5.0), (1.0, 1.2, 1.1), (0.5, 0.8, 0.8)]
)
def test_volumes_are_sliced_along_the_axis_that_nnunets_2d_configuration_puts_first(nnunet_folders, spacing):
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    images = [np.random.default_rng(0).normal(100, 30, (1, 6, 9, 12)).astype(np.float32)] * 2
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], images, spacing)
    measured = fingerprint(dataset, list(dataset.cases))
    shapes = {"spacings": [spacing] * 2, "shapes_after_crop": [(6, 9, 12)] * 2}
    planner = SimpleNamespace(
        dataset_fingerprint=shapes, overwrite_target_spacing=None, suppress_transpose=False, anisotropy_threshold=3
    )
    planner.determine_fullres_target_spacing = lambda: ExperimentPlanner.determine_fullres_target_spacing(planner)
    forward, _ = ExperimentPlanner.determine_transpose(planner)
    assert measured.slice_axis == forward[0]
    assert measured.median_shape == tuple((6, 9, 12)[axis] for axis in forward[1:])
    assert measured.spacing == pytest.approx(tuple(spacing[axis] for axis in forward[1:]))
    assert measured.items == 2 * (6, 9, 12)[forward[0]]
    data = plan(measured).data
    assert data.dims == 2 and data.slice_axis == forward[0] and data.whole


@pytest.mark.parametrize(
    ("axis", "patch", "spacing", "slice_spacing"),
    [("0", (64, 48), (1, 1), 5), ("1", (24, 48), (5, 1), 1), ("2", (24, 64), (5, 1), 1)],
)
def test_all_geometry_follows_the_slice_axis_that_is_asked_for(nnunet_folders, axis, patch, spacing, slice_spacing):
    image = np.random.default_rng(0).normal(100, 30, (1, 24, 64, 48)).astype(np.float32)
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], [image], (5.0, 1.0, 1.0))
    config = planned(TrainCommand("31", "all"), ["--data.slice-axis", axis], dataset, ["v0"])
    assert config.data.slice_axis == int(axis) and config.data.whole
    assert (config.data.patch_size, config.data.canvas_size) == (patch, patch)
    assert (config.data.spacing, config.data.slice_spacing) == (spacing, slice_spacing)
    pairs = PairDataset(dataset, ["v0"], config)
    assert pairs.item_shape(0) == patch  # trained as stored: nothing is resampled
    made = planned_pair("a", *pairs.crop(0, patch, np.random.default_rng(0)), config)
    assert made.spacing == (5, 1, 1)  # of what is exported


def test_the_slice_axis_of_a_plan_file_counts(nnunet_folders, tmp_path):
    image = np.random.default_rng(0).normal(100, 30, (1, 8, 40, 32)).astype(np.float32)
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], [image], (5.0, 1.0, 1.0))
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nslice_axis = 1\n")
    data = planned(TrainCommand("31", "all", plan=path), [], dataset, ["v0"]).data
    assert (data.slice_axis, data.patch_size, data.spacing) == (1, (8, 32), (5, 1))


def test_a_slice_axis_that_the_cases_do_not_have_is_refused(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    volumes = write_volumes(raw, [np.ones((1, 6, 8, 8), np.float32)], (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"slice_axis is none, .* Dataset031_Volumes are volumes; expected 0, 1 or 2"):
        planned(TrainCommand("31", "all"), ["--data.slice-axis", "None"], volumes, ["v0"])
    pictures = write_pictures(raw, cases=1)
    with pytest.raises(ConfigError, match=r"slice_axis is 0, .* Dataset021_Stripes are pictures; expected none"):
        planned(TrainCommand("21", "all"), ["--data.slice-axis", "0"], pictures, ["case_0"])


def test_sides_are_rounded_in_the_planned_spacing(nnunet_folders):
    image = np.random.default_rng(0).normal(100, 30, (1, 4, 31, 31)).astype(np.float32)
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], [image], (3.0, 0.3, 0.3))
    assert fingerprint(dataset, ["v0"]).median_shape == (31, 31)  # 31 * 0.3 / 0.3 is a little less


def test_sided_labels_and_black_borders_are_noticed(nnunet_folders):
    image = np.random.default_rng(0).integers(50, 99, (1, 6, 20, 20)).astype(np.int16)
    labels = {"background": 0, "Left kidney": 1}
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], [image], (1.0, 1.0, 1.0), labels=labels)
    measured = fingerprint(dataset, ["v0"])
    assert measured.sided and not measured.zero_border
    image[:, :, :4] = image[:, :, -4:] = image[..., :4] = image[..., -4:] = 0
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], [image], (1.0, 1.0, 1.0))
    assert fingerprint(dataset, ["v0"]).zero_border
    assert plan(fingerprint(dataset, ["v0"])).codec.zero_border


@pytest.mark.parametrize(
    ("channel", "sided"),
    [
        ("CT", True),
        ("X-ray", True),
        ("xray", True),
        ("MRI", True),
        ("grey", False),
        ("actin", False),
        ("mRNA", False),
        ("CTLA4", False),
        ("R", False),
    ],
)
def test_pictures_are_mirrored_unless_their_channel_says_radiology(nnunet_folders, channel, sided):
    dataset = dataclasses.replace(write_pictures(nnunet_folders["nnUNet_raw"], cases=2), channel_names=(channel,))
    measured = fingerprint(dataset, list(dataset.cases))
    assert measured.sided == sided
    assert plan(measured).augment.mirror_axes == (() if sided else (0, 1))


def test_mirroring_is_told_and_can_be_switched_off(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], shape=(16, 16))
    ids, off = list(dataset.cases), ["--augment.no-quarter-turns", "--augment.mirror-axes"]
    usual, plain = (planned(TrainCommand("21", "all"), flags, dataset, ids) for flags in ([], off))
    assert usual.augment.mirror_axes == (0, 1) and usual.augment.quarter_turns
    assert plain.augment.mirror_axes == () and not plain.augment.quarter_turns
    assert plain.augment.probability == usual.augment.probability
    assert "mirrored along axes 0 and 1" in summary(usual, dataset, (ids, []))
    assert "mirrored" not in summary(plain, dataset, (ids, []))


def test_sixteen_bits_use_their_range_without_outliers(nnunet_folders):
    rng = np.random.default_rng(0)
    images = [rng.normal(1000, 50, (1, 8, 40, 40)).round().astype(np.uint16) for _ in range(2)]
    images[0][0, 0, 0, 0] = 60000
    dataset = write_volumes(nnunet_folders["nnUNet_raw"], images, (1.0, 1.0, 1.0), "microscope")
    measured = fingerprint(dataset, ["v0", "v1"])
    assert 700 < measured.low[0] < 900 and 1100 < measured.high[0] < 1300
    assert not measured.case_mean
    assert plan(measured).codec == CodecConfig(
        "binary", 0.5, 2, "uint16", measured.low, measured.high, measured.zero_border
    )


def test_nnunets_patch_is_read_where_it_is_planned(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], cases=1)
    assert planned_patch(dataset, None) is None
    folder = nnunet_folders["nnUNet_preprocessed"] / dataset.name
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": {"patch_size": [96, 160]}}}))
    assert planned_patch(dataset, None) == (96, 160)
    plans = {"transpose_forward": [1, 0, 2], "configurations": {"2d": {"patch_size": [96, 160]}}}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert planned_patch(dataset, 1) == (96, 160) and planned_patch(dataset, 0) is None  # of other slices
    (folder / "nnUNetPlans.json").write_text("{")
    assert planned_patch(dataset, None) is None

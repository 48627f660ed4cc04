"""How intensities are encoded: which range of them, and what each case is brought to first."""

import json

import numpy as np
import pytest
from made_datasets import discs, encoded, has_moments_of, measured, write
from small_runs import config_of

from jdm.data.codec import PairCodec


@pytest.fixture
def raw(nnunet_folders):
    return nnunet_folders["nnUNet_raw"]


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

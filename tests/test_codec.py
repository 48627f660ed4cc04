"""The codec is exactly invertible for every kind of pair, and strict at the door."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import config_of, facts, of_classes

from jdm.config.settings import Config
from jdm.data.codec import PairCodec
from jdm.errors import DataError

RANGES = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-1024, 3071), "float32": (-1.5, 900.0)}
SHAPES = [(1, 1), (7, 5), (3, 11), (3, 5, 7), (1, 4, 1)]


def images(low: tuple[float, ...], high: tuple[float, ...], **others) -> dict:
    """Facts of as many channels."""
    names, mean = tuple(f"c{k}" for k in range(len(low))), (0.0,) * len(low)
    return {"low": low, "high": high, "channel_names": names, "image_mean": mean, **others}


@st.composite
def pairs(draw) -> tuple[Config, np.ndarray, np.ndarray]:
    """A config, and a pair that its codec must take."""
    dtype = draw(st.sampled_from(list(RANGES)))
    channels, classes = draw(st.integers(1, 4)), draw(st.sampled_from([2, 3, 4, 5, 8, 9, 10, 17, 255, 256, 257, 300]))
    shape = draw(st.sampled_from(SHAPES))
    low, high = RANGES[dtype]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype == "float32":
        image = rng.uniform(low, high, (channels, *shape)).astype(dtype)
    else:
        image = rng.integers(low, high, (channels, *shape), endpoint=True).astype(dtype)
    label = rng.integers(0, classes, shape).astype(draw(st.sampled_from(["uint16", "int64", "int16"])))
    code = draw(st.sampled_from(["binary", "one-hot", "bits"][classes > 2 :]))
    amplitude = draw(st.sampled_from([0.25, 0.5, 1.0]))
    found = of_classes(classes, **images((float(low),) * channels, (float(high),) * channels, dtype=dtype))
    return config_of(found, codec={"mask_code": code, "mask_amplitude": amplitude}), image, label


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_decoding_returns_the_pair(case):
    config, image, label = case
    codec = PairCodec(config)
    x = codec.encode(image, label)
    assert x.dtype == np.float32
    assert x.shape == (codec.image_channels + codec.mask_channels, *label.shape)
    assert np.abs(x[: len(image)]).max() <= 1
    assert np.isclose(np.abs(x[len(image) :]), config.codec.mask_amplitude).all()
    decoded, found = codec.decode(x)
    assert decoded.dtype == image.dtype and (found == label).all()
    error = np.abs(decoded.astype(np.float64) - image.astype(np.float64)).max()
    assert error <= (0 if image.dtype.kind in "iu" else 1e-4 * np.ptp(RANGES["float32"]))


@settings(max_examples=60, deadline=None)
@given(pairs(), st.floats(0.01, 0.95))
def test_labels_survive_errors_below_the_amplitude(case, share):
    """What a network leaves undecided does not change a label until it crosses zero."""
    config, image, label = case
    codec = PairCodec(config)
    x = codec.encode(image, label)
    rng = np.random.default_rng(0)
    mask = x[len(image) :]
    mask += share * config.codec.mask_amplitude * rng.uniform(-1, 1, mask.shape).astype(np.float32)
    assert (codec.decode(x)[1] == label).all()


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    channels=st.integers(1, 3),
    widths=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=3),
    seed=st.integers(0, 2**32),
    error=st.floats(0, 0.04),
)
def test_borders_of_zeros_come_back_where_they_were_and_nowhere_else(dtype, channels, widths, seed, error):
    """Of any widths, none included, under errors of a network of less than half the gap."""
    rng = np.random.default_rng(seed)
    inside = rng.integers(20, 250, (channels, *[4] * len(widths))).astype(dtype)
    image = np.pad(inside, [(0, 0), *widths])
    codec = PairCodec(config_of(facts(**images((0.0,) * channels, (255.0,) * channels, dtype=dtype, zero_border=True))))
    x = codec.encode(image, np.zeros(image.shape[1:], np.uint8))
    assert (x[:channels] == -1).all(axis=0).sum() == image[0].size - inside[0].size and np.abs(x).max() <= 1
    np.testing.assert_allclose(codec.decode(x)[0], image, rtol=1e-4)
    decoded, _ = codec.decode(x + error * rng.uniform(-1, 1, x.shape))
    assert ((decoded == 0) == (image == 0)).all()


def test_zeros_inside_and_in_one_channel_are_no_border():
    codec = PairCodec(config_of(facts(**images((0.0, 0.0), (200.0, 200.0), zero_border=True))))
    image = np.full((2, 5, 6), 100, np.uint8)
    image[:, 2, 2] = 0  # a hole
    image[0, 4, :3] = 0  # dark in one channel
    x = codec.encode(image, np.zeros((5, 6), np.uint8))
    assert x[0, 2, 2] == -1 and x[0, 4, 0] == pytest.approx(-0.9) and x[0, 0, 0] == pytest.approx(0.05)
    assert (codec.decode(x)[0] == image).all()


def test_channels_have_their_own_ranges_and_what_lies_outside_is_clipped():
    codec = PairCodec(config_of(facts(**images((-100.0, 0.0), (300.0, 10.0), dtype="int16"))))
    image = np.array([[[-1000, -100, 100, 300, 3000]], [[-5, 0, 5, 10, 11]]], np.int16)
    x = codec.encode(image, np.zeros((1, 5), np.uint8))
    assert x[0, 0].tolist() == [-1, -1, 0, 1, 1] and x[1, 0].tolist() == [-1, -1, 0, 1, 1]
    decoded, _ = codec.decode(x)
    assert decoded.tolist() == [[[-100, -100, 100, 300, 300]], [[0, 0, 5, 10, 10]]]


def test_samples_beyond_the_range_are_saturated_not_wrapped():
    image, label = PairCodec(config_of()).decode(np.array([[[-1.4, 1.3]], [[-9.0, 9.0]]]))
    assert image.tolist() == [[[0, 255]]] and label.tolist() == [[0, 1]]
    assert label.dtype == np.uint8


def test_every_undecided_bit_pattern_gives_a_class_there_is():
    codec = PairCodec(config_of(of_classes(10), codec={"mask_code": "bits"}))
    label = codec.decode(np.random.default_rng(0).normal(size=(1 + 4, 64, 64)))[1]
    assert label.min() >= 0 and label.max() <= 9 and len(np.unique(label)) == 10


@pytest.mark.parametrize(
    ("image", "label", "found"),
    [
        (np.zeros((3, 4, 4)), np.zeros((4, 4), int), r"\(3, 4, 4\).*1 channels"),
        (np.zeros((1, 4, 4)), np.zeros((4, 5), int), r"\(4, 5\).*equal sizes"),
        (np.zeros((1, 1, 3)), np.array([[0, 255, 2]]), r"\[2, 255\].*0 to 1"),
        (np.zeros((1, 1, 2)), np.array([[0, -1]]), r"\[-1\].*0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(image, label, found):
    with pytest.raises(DataError, match=found) as error:
        PairCodec(config_of()).encode(image, label)
    assert "\n" not in str(error.value)

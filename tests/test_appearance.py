"""Numbers about objects and colours, against figures whose answer is known."""

import math

import numpy as np
import pytest
from made_datasets import discs

from jdm.evaluation.appearance import colours, objects


def test_discs_are_counted_measured_and_smooth():
    label = discs((200, 300), (50, 50, 20), (60, 150, 20), (140, 220, 30), (120, 60, 2))
    found = objects(label)
    assert found["count"] == 3 and found["specks"] == pytest.approx(1 / 4)
    assert found["area"] == pytest.approx(math.pi * 20**2, rel=0.02)
    assert found["roughness"] == pytest.approx(1, abs=0.03)
    assert found["share"] == label.mean()


def test_ragged_outlines_are_rough_and_objects_cut_by_the_border_are_not_judged():
    comb = np.zeros((64, 64), np.uint8)
    comb[20:40, 10:50:4] = comb[20:24, 10:50] = 1
    assert objects(comb)["roughness"] > 2
    comb[:30, 60:] = 1  # cut
    assert objects(comb)["roughness"] > 2 and objects(comb)["count"] == 2
    assert math.isnan(objects(comb[:, 55:])["roughness"])
    empty = objects(np.zeros((8, 8), np.uint8))
    assert (empty["share"], empty["count"]) == (0, 0) and math.isnan(empty["area"]) and math.isnan(empty["specks"])


def test_one_stain_a_canvas_differs_between_canvases_and_a_mixture_within_them():
    rng = np.random.default_rng(0)
    stains = rng.normal(0, 30, (40, 3, 1, 1))
    one = [stain + rng.normal(0, 1, (3, 32, 32)) for stain in stains]
    mixed = [np.tile(np.repeat(np.repeat(rng.normal(0, 30, (3, 2, 2)), 16, 1), 16, 2), 1) for _ in range(40)]
    assert colours(one)["spread"] == pytest.approx(30, rel=0.15) and colours(one)["quadrants"] < 0.2
    assert colours(mixed)["spread"] == pytest.approx(15, rel=0.2)  # the mean of four
    assert colours(mixed)["quadrants"] == pytest.approx(26, rel=0.1)  # 30 sqrt(3 / 4)

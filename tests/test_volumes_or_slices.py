"""Whether volumes are trained as volumes: not if the budget holds too few steps."""

import numpy as np
import pytest
from made_datasets import write

import jdm
from jdm.config.settings import DataConfig
from jdm.plan.samples import VOLUME_STEPS, slices_instead
from jdm.train import prepare

NETWORK = {"base_channels": 8, "channel_multipliers": [1, 1], "blocks_per_level": 1, "attention_heads": 2}
VOLUMES, SLICES = DataConfig(dims=3), DataConfig(dims=2)


@pytest.mark.parametrize(
    ("data", "steps", "minutes", "given", "sliced"),
    [
        (VOLUMES, VOLUME_STEPS - 1, 10, {}, True), (VOLUMES, VOLUME_STEPS, 10, {}, False),
        (VOLUMES, 240, None, {}, False), (SLICES, 240, 10, {}, False),
        (VOLUMES, 240, 10, {"data": {"dims": 3}}, False), (VOLUMES, 240, 10, {"data": {"whole": False}}, False),
        (VOLUMES, 240, 10, {"train": {"steps": 240}}, False), (VOLUMES, 240, 10, {"train": {"seed": 1}}, True),
    ],
)  # fmt: skip
def test_too_few_steps_in_three_dimensions_make_slices_unless_the_user_has_decided(data, steps, minutes, given, sliced):
    reason = slices_instead(data, steps, minutes, given)
    assert bool(reason) == sliced
    if sliced:
        assert f"{steps} steps in 10 minutes" in reason and "--data.dims 3" in reason and str(VOLUME_STEPS) in reason


@pytest.fixture
def planned(nnunet_folders, monkeypatch):
    """The plan of volumes of 12 x 16 x 16 voxels for a budget of one minute, by the seconds of a step in 3-D."""
    rng = np.random.default_rng(0)
    images = [rng.normal(100, 30, (1, 12, 16, 16)).astype(np.float32) for _ in range(3)]
    write(nnunet_folders["nnUNet_raw"], images, spacing=(2.0, 1.0, 1.0))

    def plan(seconds: float, **data):
        times = {3: seconds, 2: 0.01}
        monkeypatch.setattr(prepare, "measure_step_seconds", lambda config, device: times[config.data.dims])
        settings = {"network": NETWORK, "data": data}
        return jdm.plan(jdm.TrainRequest("31", "all", budget_minutes=1, settings=settings))

    return plan


def test_a_budget_of_few_steps_trains_slices_that_are_given_the_one_before(planned, capsys):
    found = planned(seconds=0.9)  # 60 steps
    data = found.config.data
    assert (data.dims, data.slice_axis, data.previous_slice) == (2, 0, True) and data.patch_size == (16, 16)
    assert found.config.facts.spacing == (1.0, 1.0) and found.steps == 5400
    assert "only 60 steps in 1 minute" in found.reasons["data.dims"]
    assert found.reasons["data.previous_slice"] == "so that neighbouring slices match"
    assert "only 60 steps in 1 minute" in capsys.readouterr().err
    assert planned(seconds=0.9, dims=3).config.data.dims == 3
    assert "only" not in capsys.readouterr().err


def test_a_budget_of_enough_steps_trains_volumes(planned):
    found = planned(seconds=0.005)  # 10,800 steps
    assert found.config.data.dims == 3 and not found.config.data.previous_slice and found.steps == 10_800
    assert "3d_fullres" in found.reasons["data.dims"]

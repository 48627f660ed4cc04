"""Neighbouring slices of volumes: what is measured, and that a stack of unrelated slices shows."""

import dataclasses

import numpy as np
import pytest
from made_datasets import write
from scipy import ndimage

from jdm.data.raw_dataset import Pair, read_dataset, write_case
from jdm.evaluation.coherence import coherences, compared, kolmogorov, slice_coherence
from jdm.system.files import write_text


def test_gradients_and_overlaps_are_those_of_neighbours_along_each_axis():
    image = np.arange(4.0).reshape(1, 4, 1, 1) * np.ones((1, 4, 3, 5))  # a ramp along axis 0
    label = np.zeros((4, 3, 5), np.uint8)
    label[0, :, :2], label[1, :, 1:3] = 1, 2  # 6 and 6 pixels, 3 of them in both
    found = slice_coherence(image, label)
    assert found["gradient along axis 0"] == pytest.approx(1 / np.std(np.arange(4)))
    assert found["gradient along axis 1"] == found["gradient along axis 2"] == 0
    assert found["overlap along axis 0"] == pytest.approx((0.5 + 0) / 2)  # the last two slices have no foreground
    assert found["overlap along axis 1"] == 1
    assert np.isnan(slice_coherence(image, 0 * label)["overlap along axis 0"])


def smooth(seed: int, stacked: bool) -> tuple[np.ndarray, np.ndarray]:
    """A smooth volume, or slices of several such volumes."""

    def field(n):
        return ndimage.gaussian_filter(np.random.default_rng([seed, n]).normal(size=(12, 16, 16)), 3)

    volume = np.stack([field(n)[n] for n in range(12)]) if stacked else field(0)
    return volume[None].astype(np.float32), (volume > 0).astype(np.uint8)


def test_stacks_of_unrelated_slices_are_apart_along_their_axis_and_nowhere_else():
    real, more, stacks = (
        [slice_coherence(*smooth(seed, stacked)) for seed in seeds]
        for seeds, stacked in ((range(20), False), (range(20, 40), False), (range(40, 60), True))
    )
    found = compared(stacks, real, more)
    for name in ("gradient along axis 0", "overlap along axis 0"):
        assert found["synthetic"][name] == 1 and found["held_out"][name] < 0.5
    assert found["synthetic"]["gradient along axis 1"] < 0.6
    assert kolmogorov(real, real) == dict.fromkeys(real[0], 0.0) and compared([], real, more) == {}


def test_audits_of_volumes_report_it_and_audits_of_pictures_do_not(tmp_path):
    from jdm.evaluation.audit_page import page
    from jdm.evaluation.set_audit import audit_set

    real = write(tmp_path, [smooth(seed, False)[0] for seed in range(6)])
    made = dataclasses.replace(real, folder=tmp_path / "Dataset032_Made", name="Dataset032_Made")
    for seed in range(3):
        image, label = smooth(100 + seed, True)
        write_case(made.folder, Pair(f"v{seed}", image, label, (1.0,) * 3, None), ".nii.gz")
    write_text(made.folder / "dataset.json", (real.folder / "dataset.json").read_text().replace("6", "3"))
    found = audit_set(read_dataset(made.folder), real, trained=list(real.cases)[:4])
    assert found.coherence["synthetic"]["gradient along axis 0"] == 1 and "axis 0" in page(found)
    assert coherences(real, real.cases)[0] == slice_coherence(*_read(real))


def _read(dataset):
    from jdm.data.raw_dataset import read_case

    pair = read_case(dataset, dataset.cases[0])
    return pair.image, pair.label

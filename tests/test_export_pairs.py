"""What is exported: plausible pairs, masks, borders, canvases, volumes, by every preset."""

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK
from export_runs import REQUEST, exported
from jdm.plan.foreground import ForegroundRange, foreground_shares, real_foreground
from small_runs import changed, tiny_run, write_pictures

import jdm.cli.export
import jdm.export.pairs
from jdm.config.settings import CodecConfig
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.errors import ConfigError, DataError
from jdm.export.amount import batches_of, network_calls, slices_of, synthetic_count
from jdm.export.pairs import case_seed, export, restore_zero_border, zero_is_lowest
from jdm.export.request import check_request


def test_degenerate_pairs_are_drawn_again_and_counted(real, checkpoint, monkeypatch):
    sample = jdm.export.pairs.PairFactory.sample
    empty = {case_seed(4, 1, 0), case_seed(4, 1, 1), case_seed(4, 3, 0)}

    def sometimes_empty(self, seeds):
        samples = sample(self, seeds)
        for index, seed in enumerate(seeds):
            if seed in empty:
                samples[index, 1] = -0.5
        return samples

    monkeypatch.setattr(jdm.export.pairs.PairFactory, "sample", sometimes_empty)
    done = export(checkpoint, real, REQUEST)
    records = [json.loads(line) for line in (done.folder / "manifest.jsonl").read_text().splitlines()]
    assert [record["attempt"] for record in records] == [0, 2, 0, 1, 0]
    assert records[1]["seed"] == case_seed(4, 1, 2)
    assert done.redrawn == 3 and json.loads((done.folder / "provenance.json").read_text())["redrawn"] == 3
    assert all(read_case(open_dataset(521), record["case_id"]).label.any() for record in records)


def test_a_model_that_makes_only_degenerate_pairs_is_refused(real, checkpoint, monkeypatch):
    def empty(self, seeds):
        return -np.ones((len(seeds), 2, 16, 24))

    monkeypatch.setattr(jdm.export.pairs.PairFactory, "sample", empty)
    with pytest.raises(DataError, match=r"case 0 is degenerate in 20 draws: label 0 fills the sample.*--margin"):
        export(checkpoint, real, REQUEST)
    assert [f.name for f in real.folder.parent.iterdir() if not f.name.startswith(".")] == [real.name]


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (np.array([0, 0, 0, 1]), None),
        (np.array([0, 0, 1, 1]), None),
        (np.array([0, 0, 0, 0]), "label 0 fills the sample"),
        (np.array([1, 1, 1, 1]), "label 0 is missing"),
        (np.array([0, 1, 1, 1]), "label 0 covers 0.2500, real samples 0.4500 to 0.8000"),
    ],
)
def test_what_is_plausible_is_what_real_samples_hold(label, problem):
    found = ForegroundRange((0.45, 0.2), (0.8, 0.55), margin=0.2).problem(label)
    assert found == problem if problem is None else found.startswith(problem)


def test_real_samples_that_all_hold_the_same_still_leave_room():
    found = ForegroundRange((0.5, 0.5), (0.5, 0.5), margin=0.4)
    assert found.problem((np.arange(100) < 49).astype(np.uint8)) is None
    assert found.problem((np.arange(100) < 40).astype(np.uint8)) is not None


def test_the_real_range_is_measured_on_the_exported_size(real, checkpoint):
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    whole = real_foreground(pairs, (16, 24), 0.25)
    shares = np.array([foreground_shares(read_case(real, case).label, 2) for case in real.cases])
    np.testing.assert_allclose(whole.least, shares.min(0))
    np.testing.assert_allclose(whole.most, shares.max(0))
    crops = real_foreground(pairs, (8, 8), 0.25)
    assert crops.least[1] < whole.least[1] and crops.most[1] > whole.most[1]


@pytest.mark.parametrize("sampler", ["heun", "dpmpp-2m", "unipc", "ddim"])
def test_a_canvas_larger_than_the_patch_is_filled(real, sampler):
    patches = {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [14, 20]}}
    checkpoint = tiny_run(real, train={"steps": 1}, **patches)
    request = dataclasses.replace(REQUEST, count=2, canvas_size=(14, 20), sampler=sampler)
    first = exported(checkpoint, real, request)
    pair = read_case(open_dataset(521), "syn_000001")
    assert pair.image.shape == (1, 14, 20) and pair.image.std() > 10
    assert exported(checkpoint, real, request) == first


def test_estimated_masks_leave_images_alone_and_are_not_for_the_thesis_preset(real, checkpoint):
    factory, plain = (
        jdm.export.pairs.PairFactory(checkpoint, real, dataclasses.replace(REQUEST, masks=masks), "cpu")
        for masks in ("estimated", "sampled")
    )
    estimated, sampled = factory.sample([1, 2]), plain.sample([1, 2])
    assert np.array_equal(estimated[:, 0], sampled[:, 0]) and not np.array_equal(estimated[:, 1], sampled[:, 1])
    assert np.array_equal(estimated, factory.sample([1, 2]))
    thesis = changed(checkpoint.config, {"preset": "thesis", "augment": {"probability": 0.0}})
    with pytest.raises(ConfigError, match="--masks is 'estimated' for preset 'thesis'"):
        check_request(thesis, dataclasses.replace(REQUEST, masks="estimated"))


def test_the_thesis_preset_is_exported_by_its_own_sampler_and_others(real):
    checkpoint = tiny_run(real, preset="thesis", train={"steps": 1}, augment={"probability": 0.0})
    for sampler in ("ancestral", "heun", "ddim"):
        first = exported(checkpoint, real, dataclasses.replace(REQUEST, count=2, sampler=sampler, steps=4))
        assert exported(checkpoint, real, dataclasses.replace(REQUEST, count=2, sampler=sampler, steps=4)) == first


def test_a_network_of_v_that_ends_in_pure_noise_is_trained_and_exported(real):
    zero = {"prediction": "v", "zero_terminal_snr": True, "steps": 50}
    checkpoint = tiny_run(real, preset="thesis", train={"steps": 1}, augment={"probability": 0.0}, diffusion=zero)
    for sampler, calls in (("ancestral", 4), ("unipc", 5)):
        request = dataclasses.replace(REQUEST, count=1, sampler=sampler, steps=4)
        factory, made = jdm.export.pairs.PairFactory(checkpoint, real, request, "cpu"), []
        factory.drawer.denoiser.register_forward_hook(lambda *_, made=made: made.append(1))
        factory.drawer.denoiser.network.register_forward_hook(lambda *_, made=made: made.append(0))
        assert np.isfinite(factory.sample([1])).all()
        assert made.count(0) == calls == network_calls(checkpoint.config, request, [range(1)])


def test_padding_is_cut_to_the_size_of_a_real_image(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(15, 21))
    checkpoint = tiny_run(real, train={"steps": 1})
    assert checkpoint.config.data.patch_size == (16, 24) and checkpoint.config.data.whole
    export(checkpoint, real, REQUEST)
    assert all(read_case(open_dataset(521), f"syn_{i:06d}").image.shape == (1, 15, 21) for i in range(5))


def test_black_borders_become_exact_zeros_and_black_insides_do_not():
    encoded = np.full((1, 8, 8), 0.5)
    encoded[:, :2] = -0.97
    encoded[:, 5, 5] = -1.0
    image = np.rint((encoded + 1) * 127.5).astype(np.uint8)
    image[image == 0] = 1
    restored = restore_zero_border(image, encoded)
    assert (restored[0, :2] == 0).all() and restored[0, 5, 5] == 1
    assert np.array_equal(restored[0, 2:], image[0, 2:]) and restored.dtype == np.uint8
    both = np.concatenate([encoded, np.full((1, 8, 8), 0.2)])
    assert (restore_zero_border(np.full((2, 8, 8), 7), both) == 7).all()  # black in every channel or not at all


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [((0.0,), (255.0,), True), ((-5.0,), (1000.0,), True), ((-1000.0,), (900.0,), False), ((3.0,), (255.0,), False),
     ((0.0, -1000.0), (255.0, 900.0), False)],
)  # fmt: skip
def test_borders_are_restored_only_where_stored_zero_is_black(low, high, expected):
    assert zero_is_lowest(CodecConfig(low=low, high=high)) is expected


def test_no_border_is_restored_in_images_whose_zero_is_grey(real, checkpoint, monkeypatch):
    monkeypatch.setattr(
        jdm.export.pairs.PairFactory, "sample", lambda self, seeds: np.full((len(seeds), 2, 16, 24), -0.99)
    )
    for low, lowest in ((0.0, 0), (-200.0, -199)):
        codec = {"low": [low], "high": [low + 255], "zero_border": True, "image_dtype": "int16"}
        other = dataclasses.replace(checkpoint, config=changed(checkpoint.config, {"codec": codec}))
        factory = jdm.export.pairs.PairFactory(other, real, REQUEST, "cpu")
        assert np.unique(factory.decoded(0, factory.sample([1])[0])[0]).tolist() == [lowest]


@pytest.mark.parametrize("slices", [1, 5])
def test_volumes_are_exported_as_stacked_slices_in_place(nnunet_folders, slices):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    raw = nnunet_folders["nnUNet_raw"]
    real = write_pictures(raw, "Dataset031_Volumes", 3, (10, 5, 12), dtype="int16", spacing=(0.8, 3.0, 1.5))
    checkpoint = tiny_run(real, train={"steps": 1})
    assert checkpoint.config.data.slice_axis == 1
    request = dataclasses.replace(
        REQUEST, id=531, name="Volumes_syn", count=2, slices=slices, canvas_size=checkpoint.config.data.canvas_size
    )
    first = exported(checkpoint, real, request)
    synthetic = open_dataset(531)
    pair = read_case(synthetic, "syn_000000")
    assert pair.image.shape == (1, 10, slices, 12) and pair.image.dtype == read_case(real, "case_0").image.dtype
    assert pair.spacing == pytest.approx((0.8, 3.0, 1.5))
    images, properties = SimpleITKIO().read_images([str(f) for f in synthetic.image_files("syn_000000")])
    assert images.shape == (1, 10, slices, 12) and properties["spacing"] == pytest.approx([0.8, 3.0, 1.5])
    segmentation, _ = SimpleITKIO().read_seg(str(synthetic.label_file("syn_000000")))
    assert np.array_equal(segmentation[0], pair.label)
    stored = SimpleITK.ReadImage(str(synthetic.image_files("syn_000000")[0]))
    assert stored.GetSpacing() == pytest.approx((1.5, 3.0, 0.8))
    planes = np.moveaxis(pair.image[0], 1, 0)
    assert len(np.unique(planes.reshape(slices, -1), axis=0)) == slices  # every slice has noise of its own
    assert exported(checkpoint, real, request) == first


def test_synthetic_volumes_have_as_many_slices_as_real_ones(nnunet_folders):
    volumes = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset031_Volumes", 3, (6, 12, 10), dtype="int16")
    checkpoint = tiny_run(volumes, train={"steps": 1})
    pairs = PairDataset(volumes, list(volumes.cases), checkpoint.config)
    assert slices_of(pairs) == 6
    assert synthetic_count(2.0, checkpoint.config, pairs, checkpoint.config.data.canvas_size) == 6
    request = dataclasses.replace(REQUEST, count=6, slices=6, batch_size=16)
    assert [len(batch) for batch in batches_of(request)] == [2, 2, 2]
    assert [len(batch) for batch in batches_of(dataclasses.replace(request, batch_size=4))] == [1] * 6

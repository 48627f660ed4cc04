"""What is exported: plausible pairs, masks, canvases, sizes, volumes, by every preset."""

import dataclasses
import json
import math

import numpy as np
import pytest
import SimpleITK
from export_runs import REQUEST, THESIS, asked, exported, factory_of, manifest, rewritten, visible, with_config
from nnunet_blobs import blob_pair
from small_runs import facts, picture, tiny_run, write_pictures

import jdm
from jdm.config.facts import Foreground
from jdm.data.raw_dataset import open_dataset, read_case, read_dataset, write_case, write_dataset_json
from jdm.draw.seeds import case_seed
from jdm.errors import ConfigError, DataError
from jdm.evaluation.likeness import NAMES, likeness
from jdm.export import pairs
from jdm.export.amount import order_of, synthetic_count
from jdm.export.judge import judge
from jdm.export.plausible import ForegroundRange, real_range


def test_degenerate_pairs_are_drawn_again_and_counted(real, run):
    """As if no real mask had as much foreground as some of the first draws."""
    before = manifest(exported())
    assert all(record["attempt"] == 0 for record in before)
    shares = [record["foreground_share"]["class1"] for record in before]
    most = float(np.mean(sorted(shares)[2:4]))
    rewritten(run, foreground=[{"size": [16, 24], "least": [1 - most, 0.0], "most": [1.0, most]}])
    files = exported(margin=0.0)
    records = manifest(files)
    assert [record["attempt"] > 0 for record in records] == [share > most for share in shares]
    for index, record in enumerate(records):
        assert record["seed"] == case_seed(4, index, record["attempt"])
        assert record["foreground_share"].get("class1", 0) <= most + 1e-6  # which is stored with six digits
    redrawn = json.loads(files["provenance.json"])["redrawn"]
    assert redrawn == sum(record["attempt"] for record in records) >= 2


def test_a_model_that_makes_only_degenerate_pairs_is_refused(real, run):
    rewritten(run, foreground=[{"size": [16, 24], "least": [0.98, 0.01], "most": [0.99, 0.02]}])
    with pytest.raises(DataError, match=r"case 0 .*label 0 covers .*--margin.*--overwrite"):
        jdm.export(asked(margin=0.0))
    assert visible(real.folder.parent) == [real.name]


def blobs(first: int) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = [blob_pair("a", seed) for seed in range(first, first + 12)]
    return [(pair.image, pair.label) for pair in pairs]


def test_pairs_are_judged_by_their_noise_specks_and_agreement():
    measured = np.percentile([likeness(image, label) for image, label in blobs(0)], [5, 95], axis=0)
    found, rng = facts(likeness=tuple(map(tuple, measured.T.tolist()))), np.random.default_rng(0)
    right, wrong = [label for _, label in blobs(50)], [1 - label for _, label in blobs(50)]
    assert judge(found, blobs(50), right) == [] == judge(facts(), blobs(50), None)
    comb = np.zeros((64, 64), np.uint8)
    comb[10, 10:50] = comb[10:50, 10:50:2] = 1
    noise = [(rng.integers(0, 255, image.shape).astype(np.uint8), label) for image, label in blobs(50)]
    specks = [(image, label ^ (rng.random(label.shape) < 0.1)) for image, label in blobs(50)]
    combs = [(image, comb) for image, _ in blobs(50)]
    for pairs_of, readings, named in (
        (noise, None, NAMES[:2]), (combs, None, NAMES[2:3]), (specks, None, NAMES[3:]), (blobs(50), wrong, ["Dice"]),
    ):  # fmt: skip
        problems = judge(found, pairs_of, readings)
        assert len(problems) == len(named) and all(name in text for name, text in zip(named, problems, strict=True))


def test_an_export_of_noise_is_stopped_and_says_how_long_to_train(real, run):
    """As if real cases were smooth, to a model of two steps."""
    rewritten(run, likeness=[[0.0, 0.01], [0.0, 0.01], [0.0, 99.0], [0.0, 99.0]])
    again = rf"{NAMES[0]}.*{NAMES[1]}.*2 steps.*jdm-train {real.name} all --resume --budget-minutes \d+.*--anyway"
    with pytest.raises(DataError, match=again) as error:
        jdm.export(asked(anyway=False))
    assert "\n" not in str(error.value) and visible(real.folder.parent) == [real.name]
    made = jdm.export(REQUEST)  # with `anyway`, which a reader of the set can see
    assert made.finished and json.loads((made.folder / "provenance.json").read_text())["judged"] is False


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ([0, 0, 0, 1], None), ([0, 0, 1, 1], None),
        ([0, 0, 0, 0], "label 0 fills"), ([1, 1, 1, 1], "label 0 is missing"),
        ([0, 1, 1, 1], "label 0 covers 0.2500 of the sample (real samples 0.4500 to 0.8000)"),
    ],
)  # fmt: skip
def test_what_is_plausible_is_what_real_samples_hold(label, problem):
    found = ForegroundRange((0.45, 0.2), (0.8, 0.55), margin=0.2).problem(np.array(label))
    assert found == problem if problem is None else found.startswith(problem)


def test_real_samples_that_all_hold_the_same_still_leave_room():
    found = ForegroundRange((0.5, 0.5), (0.5, 0.5), margin=0.4)
    assert found.problem(np.arange(100) < 49) is None and found.problem(np.arange(100) < 40) is not None


def test_a_class_of_a_volume_is_judged_by_its_cubic_millimetres():
    """Real volumes of 400 to 800 mm^3 have an organ of 100 mm^3, at a trained spacing of 0.5 x 1 x 2 mm."""
    spacing, shares = (0.5, 1.0, 2.0), ((0.75, 0.125), (0.875, 0.25))
    found = facts(
        spacing=spacing, sizes=(((4, 10, 10), 1, 1), ((8, 10, 10), 1, 1)), class_volumes=((300, 700), (100, 100)),
        foreground=(Foreground((8, 10, 10), *shares),),
    )  # fmt: skip
    whole, crop = real_range(found, (8, 10, 10), 0.2), real_range(found, (8, 10, 8), 0.2)

    def problem(limits: ForegroundRange, sides: tuple[int, ...], voxels: int) -> str | None:
        label = np.zeros(math.prod(sides), np.uint8)
        label[:voxels] = 1
        return limits.problem(label.reshape(sides))

    assert problem(whole, (8, 10, 10), 100) is None and problem(whole, (4, 10, 10), 100) is None
    large = problem(whole, (8, 10, 10), 150)  # a share that real volumes have, but of smaller ones
    assert large == "label 1 has 150 mm^3 in the sample (real samples 100 to 100)"
    assert problem(crop, (8, 10, 8), 150) is None  # a part of a volume may hold a part of an organ
    few = problem(crop, (8, 10, 8), 20)
    assert few is not None and few.endswith("mm^3 in the sample (real samples 480 to 560)")
    slices = dataclasses.replace(found, spacing=(2.0, 3.0), foreground=(Foreground((10, 10), *shares),),
                                 sizes=(((10, 10), 8, 2),))  # fmt: skip
    few = problem(real_range(slices, (10, 10), 0.2), (10, 10), 40)
    assert few is not None and few.endswith("mm^2 in the sample (real samples 450 to 525)")


@pytest.mark.parametrize(
    ("size", "measured"),
    [((32, 32), 64), ((64, 64), 64), ((150, 140), 128), ((150, 100), 64), ((200, 300), 200), ((900, 900), 200)],
)
def test_the_real_range_is_that_of_the_largest_crops_not_larger(size, measured):
    sides = ((64, 64), (128, 128), (200, 300))
    found = facts(foreground=tuple(Foreground(s, (0.0, s[0] / 1000), (1.0, 0.5)) for s in sides))
    assert real_range(found, size, 0.25) == ForegroundRange((0.0, measured / 1000), (1.0, 0.5), 0.25)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp-2m", "unipc", "ddim"])
def test_a_canvas_larger_than_the_patch_is_filled(real, sampler):
    tiny_run(real, train={"steps": 1}, data={"whole": False, "patch_size": [8, 8], "canvas_size": [14, 20]})
    first = exported(count=2, sampler=sampler)
    pair = read_case(open_dataset(521), "syn_000001")
    assert pair.image.shape == (1, 14, 20) and pair.image.std() > 10
    assert exported(count=2, sampler=sampler) == first


def test_estimated_masks_leave_images_alone_and_are_refused_where_there_are_none(run):
    factory = factory_of(run, masks="estimated")
    estimated, again = (np.stack(factory.samples([1, 2], [7, 8])) for _ in range(2))
    sampled = np.stack(factory_of(run).samples([1, 2], [7, 8]))
    assert np.array_equal(estimated[:, 0], sampled[:, 0]) and not np.array_equal(estimated[:, 1], sampled[:, 1])
    assert np.array_equal(estimated, again)
    for plan, changes, names in (
        (THESIS, {}, "thesis"), ({"codec": {"mask_code": "bits"}}, {}, "bits"),
        ({}, {"given_masks": "real"}, "--given-masks"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"--masks is 'estimated'.*{names}"):
            order_of(with_config(run, plan).checkpoint, asked(masks="estimated", **changes))


def test_the_thesis_preset_is_exported_by_its_own_sampler_and_others(real):
    tiny_run(real, **THESIS, train={"steps": 1})
    for sampler in ("ancestral", "heun", "ddim"):
        first = exported(count=2, sampler=sampler, steps=4)
        assert manifest(first)[0]["sampler"] == sampler
        assert exported(count=2, sampler=sampler, steps=4) == first


@pytest.mark.parametrize(("sampler", "calls"), [("ancestral", 4), ("unipc", 5)])
def test_a_network_of_v_that_ends_in_pure_noise_is_exported(real, monkeypatch, sampler, calls):
    zero = {"prediction": "v", "zero_terminal_snr": True, "steps": 50}
    run = tiny_run(real, **THESIS, train={"steps": 1}, diffusion=zero)
    factory, made = factory_of(run, sampler=sampler, steps=4), []
    factory.drawer.denoiser.network.register_forward_hook(lambda *_: made.append(1))
    assert np.isfinite(factory.samples([1], [7])).all()
    monkeypatch.setattr(pairs, "call_seconds", lambda *_: 1.0)
    assert len(made) == factory.seconds([range(1)]) == calls


def test_pairs_have_the_sizes_of_real_images_without_padding(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(15, 21))
    for index in (7, 8):
        write_case(real.folder, picture(f"a_{index}", index, (13, 18)), ".png")
    write_dataset_json(
        real.folder, channel_names=real.channel_names, labels=real.labels, file_ending=".png", num_training=7
    )
    run = tiny_run(read_dataset(real.folder), train={"steps": 1})
    assert run.config.data.patch_size == (16, 22) and run.config.data.whole
    exported(count=8)
    shapes = [read_case(open_dataset(521), f"syn_{i:06d}").label.shape for i in range(8)]
    assert set(shapes) == {(15, 21), (13, 18)}


@pytest.mark.parametrize("slices", [1, 5])
def test_volumes_are_exported_as_stacked_slices_in_place(nnunet_folders, slices):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    shape, spacing = (10, slices, 12), (0.8, 3.0, 1.5)
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=3, shape=shape, dtype="int16", spacing=spacing)
    assert tiny_run(real, train={"steps": 1}).config.data.slice_axis == 1
    first = exported(count=2)
    synthetic = open_dataset(521)
    pair = read_case(synthetic, "syn_000000")
    assert pair.image.shape == (1, *shape) and pair.image.dtype == read_case(real, "case_0").image.dtype
    assert pair.spacing == pytest.approx(spacing)
    images, properties = SimpleITKIO().read_images([str(f) for f in synthetic.image_files("syn_000000")])
    assert images.shape == (1, *shape) and properties["spacing"] == pytest.approx(spacing)
    segmentation, _ = SimpleITKIO().read_seg(str(synthetic.label_file("syn_000000")))
    assert np.array_equal(segmentation[0], pair.label)
    stored = SimpleITK.ReadImage(str(synthetic.image_files("syn_000000")[0]))
    assert stored.GetSpacing() == pytest.approx(spacing[::-1])
    planes = np.moveaxis(pair.image[0], 1, 0)
    assert len(np.unique(planes.reshape(slices, -1), axis=0)) == slices  # every slice has noise of its own
    assert exported(count=2) == first


def test_synthetic_volumes_have_as_many_slices_as_real_ones_and_fill_batches(nnunet_folders):
    volumes = write_pictures(nnunet_folders["nnUNet_raw"], cases=4, shape=(6, 12, 10), dtype="int16")
    run = tiny_run(volumes, train={"steps": 1})
    assert synthetic_count(run.config, 2.0, run.config.data.canvas_size) == 6  # of three training volumes
    for batch_size, cases in ((16, [2, 2, 2]), (4, [1] * 6)):
        order = order_of(run.checkpoint, asked(count=6, batch_size=batch_size))
        assert order.slices == 6 and [len(batch) for batch in order.batches()] == cases

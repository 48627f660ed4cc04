"""Training samples: crops, slices and augmentation that moves image and mask alike and does not leak."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_runs import changed, config_of, facts, picture, tiny_plan, write_pictures

import jdm.data.pairs
from jdm.config.settings import AugmentConfig, NetworkConfig, NoiseConfig
from jdm.data.augmentation import augment
from jdm.data.pairs import Batches, PairDataset, condition_features, planned_arrays, rescaled
from jdm.data.raw_dataset import Pair, read_case, write_case
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.loss import denoising_losses
from jdm.diffusion.noise import draw_sigmas
from jdm.diffusion.sampling import karras_sigmas, sample_heun
from jdm.diffusion.unet import UNet
from jdm.errors import TrainingError

ALWAYS = AugmentConfig(probability=1.0, scale=0.0, rotation_degrees=0.0, translation=0.0, brightness=0.0, contrast=0.0)


def blobs(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth random samples (count, 2, *shape): an image, and its sign as the mask."""
    noise = np.random.default_rng(seed).normal(size=(count, *shape))
    smooth = ndimage.gaussian_filter(noise, [0, *[2.0] * len(shape)], mode="reflect")
    smooth = np.clip(smooth / np.abs(smooth).max(), -1, 1)
    return torch.from_numpy(np.stack([smooth, 0.5 * np.sign(smooth)], 1)).float()


@pytest.mark.parametrize("shape", [(16, 16), (6, 12, 12)])
def test_the_condition_is_zero_exactly_for_untouched_samples(shape):
    dims = len(shape)
    config = AugmentConfig(probability=0.5, mirror_axes=tuple(range(dims)), quarter_turns=True)
    x = blobs(200, *shape)
    out, condition = augment(x, 1, config, np.random.default_rng(0))
    assert condition.shape == (200, condition_features(dims)) and condition.dtype == torch.float32
    touched = (out != x).flatten(1).any(1)
    assert torch.equal(touched, (condition != 0).any(1))
    assert 75 < touched.sum() < 125
    assert out[:, :1].abs().max() <= 1
    assert set(out[:, 1].unique().tolist()) <= {-0.5, 0.0, 0.5}  # masks are never interpolated


def test_flips_and_turns_move_image_and_mask_exactly_alike():
    x = blobs(64, 12, 12)
    x[:, 1] = x[:, 0]
    config = dataclasses.replace(ALWAYS, probability=0.5, mirror_axes=(0, 1), quarter_turns=True)
    out, condition = augment(x, 1, config, np.random.default_rng(1))
    assert torch.equal(out[:, 0], out[:, 1])
    names = {"flip0": condition[:, 0], "flip1": condition[:, 1], "cos": condition[:, 2], "sin": condition[:, 3]}
    for index in range(len(x)):
        plain = x[index].clone()
        if names["flip0"][index]:
            plain = plain.flip(1)
        if names["flip1"][index]:
            plain = plain.flip(2)
        angle = round(np.arctan2(names["sin"][index].item(), names["cos"][index].item() + 1) / (np.pi / 2)) % 4
        assert torch.equal(out[index], torch.rot90(plain, angle, (1, 2)))


@pytest.mark.parametrize("shape", [(32, 32), (24, 40), (12, 24, 20)])
def test_every_movement_keeps_the_mask_on_the_image(shape):
    x = blobs(24, *shape)
    config = dataclasses.replace(ALWAYS, scale=0.3, rotation_degrees=30.0, translation=0.15)
    out, _ = augment(x, 1, config, np.random.default_rng(2))
    assert (out != x).flatten(1).any(1).all()
    clear = out[:, 0].abs() > 0.15  # away from the edge, where the one is interpolated and the other not
    agree = (out[:, 0] > 0) == (out[:, 1] > 0)
    assert clear.float().mean() > 0.3 and agree[clear].float().mean() > 0.995


def test_brightness_and_contrast_leave_the_mask_alone():
    x = blobs(8, 10, 10)
    config = dataclasses.replace(ALWAYS, brightness=0.1, contrast=0.2)
    out, condition = augment(x, 1, config, np.random.default_rng(3))
    assert torch.equal(out[:, 1], x[:, 1])
    brightness, contrast = condition[:, 7], condition[:, 8]
    expected = (x[:, 0] * 2 ** contrast[:, None, None] + brightness[:, None, None]).clamp(-1, 1)
    torch.testing.assert_close(out[:, 0], expected)


@pytest.mark.parametrize("shape", [(15, 22), (7, 12, 17)])
def test_the_affine_map_is_scipys_and_the_condition_tells_it(shape):
    x, dims = blobs(4, *shape).double(), len(shape)
    config = dataclasses.replace(ALWAYS, scale=0.3, rotation_degrees=30.0, translation=0.15)
    moved, condition = augment(x, 1, config, np.random.default_rng(2))
    centre = (np.array(shape) - 1) / 2
    for index, told in enumerate(condition.double().numpy()):
        zoom, cos, sin, shift = 2 ** told[dims + 2], 1 + told[dims + 3], told[dims + 4], told[-dims:]
        matrix = np.eye(dims)
        matrix[-2:, -2:] = [[cos, -sin], [sin, cos]]
        matrix /= zoom
        offset = centre - matrix @ centre - shift * np.array(shape)
        expected = ndimage.affine_transform(x[index, 0].numpy(), matrix, offset, order=1, mode="reflect")
        torch.testing.assert_close(moved[index, 0], torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_batches_are_functions_of_seed_rank_and_step(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    config = tiny_plan(dataset, list(dataset.cases))
    first, again = (Batches(PairDataset(dataset, list(dataset.cases), config), 4, seed=3) for _ in range(2))
    later = first[7]
    for step in (0, 7):  # whatever was asked before
        for a, b in zip(first[step], again[step], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(later[0], first[8][0])
    for other in (Batches(first.pairs, 4, seed=4), Batches(first.pairs, 4, seed=3, rank=1)):
        assert not torch.equal(later[0], other[7][0])
    plain = Batches(first.pairs, 4, seed=3, augmented=False)[0]
    assert (plain[1] == 0).all() and plain[1].shape == (4, condition_features(2))


def test_cases_beyond_the_cache_are_read_again_and_give_the_same(nnunet_folders, monkeypatch):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], cases=3)
    reads = []

    def counting(dataset, case_id, test=False):
        reads.append(case_id)
        return read_case(dataset, case_id, test)

    monkeypatch.setattr(jdm.data.pairs, "read_case", counting)
    ids = list(dataset.cases)
    config = tiny_plan(dataset, ids)
    size = 2 * 16 * 24  # one grey image and its label
    held = {}
    for cases in (3, 1, 0):
        limited = changed(config, {"train": {"cache_bytes": cases * size}})
        pairs = PairDataset(dataset, ids, limited)
        reads.clear()
        held[cases] = [pairs.sample(index, np.random.default_rng(0)) for index in range(3)]
        assert reads == ids[cases:]
    for cases in (1, 0):
        np.testing.assert_array_equal(held[3], held[cases])


def test_crops_are_native_pixels_and_small_images_are_centred_between_mirrors(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], cases=1)
    pairs = PairDataset(dataset, list(dataset.cases), tiny_plan(dataset, list(dataset.cases)))
    full, full_label = pairs.crop(0, (16, 24), np.random.default_rng(0))
    assert full.shape == (1, 16, 24) and pairs.item_shape(0) == (16, 24)
    places = set()
    for seed in range(60):
        image, label = pairs.crop(0, (12, 20), np.random.default_rng(seed))
        found = [(r, c) for r in range(5) for c in range(5) if np.array_equal(full[:, r : r + 12, c : c + 20], image)]
        assert len(found) == 1
        (r, c) = found[0]
        assert np.array_equal(full_label[r : r + 12, c : c + 20], label)
        places.add((r, c))
    assert {0, 4} <= {r for r, _ in places} and {0, 4} <= {c for _, c in places}
    image, label = pairs.crop(0, (21, 30), np.random.default_rng(0))
    assert np.array_equal(image[:, 2:18, 3:27], full) and np.array_equal(label[2:18, 3:27], full_label)
    assert np.array_equal(image[0, 1], image[0, 2]) and np.array_equal(label[:, 2], label[:, 3])


def test_slices_are_taken_along_the_planned_axis_at_the_planned_spacing():
    config = config_of(facts(dtype="int16", slice_axis=1, spacing=(1.0, 2.0)), data={"slice_axis": 1})
    label = np.zeros((8, 5, 6), np.uint8)
    label[2:6, :, 3:] = 1
    label[:, 4] = 0
    image = (100 * label[None] + np.arange(5)[None, None, :, None]).astype(np.int16)
    same, same_label = planned_arrays(Pair("a", image, label, (1.0, 3.0, 2.0)), config)
    assert same.shape == (1, 5, 8, 6) and same.dtype == np.int16
    assert np.array_equal(same[:, 3], image[:, :, 3]) and np.array_equal(same_label[3], label[:, 3])
    coarse, coarse_label = planned_arrays(Pair("a", image, label, (0.5, 3.0, 2.0)), config)
    assert coarse.shape == (1, 5, 4, 6) and coarse_label.shape == (5, 4, 6)
    assert set(np.unique(coarse_label)) == {0, 1}
    assert (coarse_label[0, 1:3, 3:] == 1).all() and coarse_label[4].sum() == 0


def test_constant_slices_are_left_out_and_nothing_else(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], cases=2, shape=(6, 8, 8), dtype="int16")
    ids = list(dataset.cases)
    config = tiny_plan(dataset, ids)
    assert len(PairDataset(dataset, ids, config)) == config.facts.items == 2 * 6
    blank = picture(ids[1], 1, (6, 8, 8), dtype="int16")
    blank.image[:, :4] = 0
    write_case(dataset.folder, blank, ".nii.gz")
    assert [item.slice for item in PairDataset(dataset, ids[1:], config).items] == [4, 5]
    with pytest.raises(TrainingError, match=r"no training images.*0 cases"):
        PairDataset(dataset, [], config)


def test_cases_in_arbitrary_units_are_brought_to_one_scale():
    base = np.random.default_rng(0).gamma(2.0, 50.0, (3, 30, 30))
    mean, std = (120.0, None, 50.0), (30.0, None, 5.0)
    found = facts(case_mean=mean, case_std=std)
    for gain, offset in ((1.0, 0.0), (7.0, 300.0)):
        image = (base * gain + offset).astype(np.float32)
        out = rescaled(image, found)
        np.testing.assert_allclose(out.mean(axis=(1, 2))[[0, 2]], [120, 50], rtol=1e-4)
        np.testing.assert_allclose(out.std(axis=(1, 2))[[0, 2]], [30, 5], rtol=1e-4)
        assert (out[1] == image[1]).all()  # a channel that nnU-Net does not standardise is taken as stored
    np.testing.assert_allclose(rescaled(base, found)[::2], rescaled(3 * base - 40, found)[::2], atol=1e-2)
    assert np.isfinite(rescaled(np.full((3, 4, 4), 5.0), found)).all()
    assert rescaled(base, facts()) is base


def test_zero_borders_stay_zero_in_arbitrary_units():
    base = np.random.default_rng(0).gamma(3.0, 40.0, (1, 20, 30))
    base[:, :, :8] = 0
    found = facts(case_mean=(0.0,), case_std=(50.0,), zero_border=True)
    few, many = (rescaled(np.pad(5 * base, ((0, 0), (0, 0), (0, more))), found) for more in (0, 40))
    assert not few[:, :, :8].any() and not many[:, :, 30:].any()
    np.testing.assert_allclose(few, many[:, :, :30], rtol=1e-5)  # whatever the share of the border
    assert np.sqrt((few[few != 0] ** 2).mean()) == pytest.approx(50, rel=1e-4)


def ramps(count: int, rng: np.random.Generator) -> torch.Tensor:
    """16 x 16 images, bright on the left, with the bright part as the mask: one orientation only."""
    edge = rng.integers(4, 9, count)[:, None, None]
    left = np.broadcast_to(np.arange(16)[None, None] < edge, (count, 16, 16))
    image = np.where(left, 0.6, -0.6) + 0.1 * rng.normal(size=left.shape)
    return torch.from_numpy(np.stack([image.clip(-1, 1), np.where(left, 0.5, -0.5)], 1)).float()


def test_augmentation_does_not_leak_into_samples():
    torch.manual_seed(0)
    # Many high levels, where orientation is decided, so that a short training suffices.
    levels = NoiseConfig(log_mean=0.5, log_std=1.5, equal=1.0, independent=0.0, known_mask=0.0, known_image=0.0)
    flips = dataclasses.replace(ALWAYS, probability=0.5, mirror_axes=(1,))
    architecture = NetworkConfig(16, (1, 1, 1), 1, (), 2)
    network = UNet(2, 3, architecture, levels=2, condition_features=condition_features(2))
    words = torch.tensor([[-0.5], [0.5]])
    denoiser = Denoiser(network, (0.0,), ((1.0,),), ((0.5,) * 16,), words, (0.6, 0.4))
    optimizer = torch.optim.AdamW(denoiser.parameters(), 3e-3)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(350):
        x0, condition = augment(ramps(16, rng), 1, flips, rng)
        sigma = draw_sigmas(levels, len(x0), generator)
        noise = torch.randn(x0.shape, generator=generator)
        optimizer.zero_grad()
        denoising_losses(denoiser, x0, sigma, noise, condition).mean().backward()
        optimizer.step()
    noise = torch.randn(40, 2, 16, 16, generator=generator)
    sigmas = karras_sigmas(12, 0.01, 80.0)
    mirrored = torch.zeros(40, condition_features(2))
    mirrored[:, 1] = 1
    with torch.no_grad():
        plain = sample_heun(denoiser, noise, sigmas)
        asked = sample_heun(lambda x, s: denoiser(x, s, mirrored), noise, sigmas)
    for channel in (0, 1):
        leaning = plain[:, channel, :, :8].mean((1, 2)) - plain[:, channel, :, 8:].mean((1, 2))
        assert (leaning > 0.1).float().mean() >= 0.95  # half of the training samples leaned the other way
        leaning = asked[:, channel, :, :8].mean((1, 2)) - asked[:, channel, :, 8:].mean((1, 2))
        assert (leaning < -0.1).float().mean() >= 0.95  # which the network draws only when told to

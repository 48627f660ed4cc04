"""Patches of volumes: the network is given the same coordinates for a voxel in training and in every way of sampling.

The cases of `placed` show where their voxels lie: image channels are coordinates, times `SCALE`, and labels octants.
"""

import dataclasses

import numpy as np
import pytest
import torch
from small_runs import facts, tiny_plan, tiny_run

import jdm
from jdm.config.facts import Fingerprint
from jdm.data.crops import coordinates
from jdm.data.pairs import Batches, PairDataset
from jdm.data.raw_dataset import (
    Geometry,
    Pair,
    RawDataset,
    open_dataset,
    read_case,
    read_dataset,
    write_case,
    write_dataset_json,
)
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.windows import with_beside
from jdm.draw.drawer import Drawer
from jdm.errors import ConfigError
from jdm.plan.rules import Machine, plan, usual_size

PATCH = {"dims": 3, "whole": False, "patch_size": [8, 8, 8], "canvas_size": [12, 16, 14], "position": True}
SHAPES, SCALE = ((12, 20, 14), (7, 16, 18), (12, 24, 14)), 10_000
QUICK = {"samples": 1, "steps": 4}
GEOMETRY = Geometry((0.0,) * 3, tuple(np.eye(3).ravel().tolist()))


def write(raw, name: str, pairs: list[tuple[np.ndarray, np.ndarray]], channels: int, classes: int) -> RawDataset:
    """A dataset of volumes (image, label) of a spacing of 1, whose intensities nnU-Net leaves as they are."""
    for number, (image, label) in enumerate(pairs):
        write_case(raw / name, Pair(f"case_{number}", image, label, (1.0,) * 3, GEOMETRY), ".nii.gz")
    labels = {"background": 0, **{f"class{value}": value for value in range(1, classes)}}
    names = ["noNorm"] * channels
    write_dataset_json(raw / name, channel_names=names, labels=labels, file_ending=".nii.gz", num_training=len(pairs))
    return read_dataset(raw / name)


def shown(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a case that shows where its voxels lie."""
    ends = [(2 * np.arange(side) + 1) / side - 1 for side in shape]
    where = np.stack(np.meshgrid(*ends, indexing="ij"))
    return np.rint(SCALE * where).astype(np.int16), octants(where).astype(np.uint8)


def octants(where):
    """Number of the octant of coordinates (3, *spatial)."""
    return 4 * (where[0] > 0) + 2 * (where[1] > 0) + (where[2] > 0)


@pytest.fixture(scope="module")
def placed(module_folders):
    dataset = write(module_folders["nnUNet_raw"], "Dataset041_Placed", [shown(shape) for shape in SHAPES], 3, 8)
    return tiny_run(dataset, data=PATCH, train={"steps": 1})


def spans_of(facts: Fingerprint) -> torch.Tensor:
    """What an encoded image is multiplied with to give coordinates, (channels, 1, 1, 1)."""
    return torch.tensor(facts.high).reshape(3, 1, 1, 1) / SCALE


@pytest.fixture
def calls(placed, monkeypatch):
    """Every call of the network: decoded image channels, mask channels, coordinates, each (B, ...), and levels."""
    made, predict = [], Denoiser.predict

    def recorded(self, x, sigma, condition=None):
        image, mask, places = (part.detach().float() for part in x.split([3, 8, 3], dim=1))
        made.append((image * spans.to(image), mask, places, sigma[:, 0], sigma[:, 1]))
        return predict(self, x, sigma, condition)

    spans = spans_of(placed.config.facts)
    monkeypatch.setattr(Denoiser, "predict", recorded)
    return made


def image_shows_coordinates(calls) -> int:
    """Checks calls whose image is nearly clean, as far as it is known; returns how many windows these are."""
    count = 0
    for image, _, places, level, _ in calls:
        for number in torch.nonzero(level < 0.03)[:, 0]:
            assert (image[number] - places[number]).abs().flatten(1).median(1).values.max() < 0.1  # along each axis
            count += 1
    return count


def mask_shows_coordinates(calls) -> int:
    """The same of masks that are known."""
    count = 0
    for _, mask, places, _, level in calls:
        for number in torch.nonzero(level == 0)[:, 0]:
            assert torch.equal(mask[number].argmax(0), octants(places[number]))
            count += 1
    return count


def test_coordinates_go_from_face_to_face_whatever_is_cut_out():
    whole = coordinates((4, 5, 10), (slice(0, 4), slice(0, 5), slice(0, 10)))
    np.testing.assert_allclose(whole[0, :, 0, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(whole[2, 0, 0, [0, -1]], [-0.9, 0.9], rtol=1e-6)
    part = coordinates((4, 5, 10), (slice(1, 3), slice(2, 5), slice(4, 6)))
    np.testing.assert_array_equal(part, whole[:, 1:3, 2:5, 4:6])
    padded = coordinates((4, 5, 10), (slice(0, 8), slice(0, 5), slice(0, 10)))  # mirrored like the image
    np.testing.assert_allclose(padded[0, :, 0, 0], [-0.25, -0.75, -0.75, -0.25, 0.25, 0.75, 0.75, 0.25])


def test_the_plan_gives_coordinates_to_patches_of_volumes_alone(placed, nnunet_folders):
    machine = Machine(precision="fp32")
    image = {"image_bands": ((0.5,) * 64,) * 3}

    def decided(found: Fingerprint, **settings):
        made = plan(found, usual_size("default", machine), machine, settings=settings)
        return made.config.data.position, made.reasons["data.position"]

    volumes = dataclasses.replace(placed.config.facts, **image)
    assert decided(volumes) == (False, "whole volumes show where everything lies")
    patches = {"patch_size": [8, 8, 8]}
    assert decided(volumes, data=patches) == (True, "a patch does not show where in the volume it lies")
    assert decided(volumes, data={**patches, "position": False})[0] is False
    assert decided(facts(sizes=(((500, 500), 1, 30),)))[0] is False
    with pytest.raises(ConfigError, match=r"data\.position is True; expected volumes"):
        decided(facts(), data={"position": True})


def test_augmented_training_samples_keep_the_coordinates_of_their_voxels(placed):
    ways = {"probability": 1.0, "mirror_axes": (0, 1, 2), "quarter_turns": True, "contrast": 0.0, "scale": 0.3}
    config = tiny_plan(placed.real(), list(placed.real().cases), data=PATCH, augment=ways)
    pairs = PairDataset(placed.real(), list(placed.real().cases), config)
    spans = spans_of(config.facts)
    x0, condition = Batches(pairs, 100, seed=0)[0]
    assert x0.shape == (100, 3 + 8 + 3, 8, 8, 8) and (condition != 0).any(1).float().mean() > 0.9
    for image, mask, places in (x.split([3, 8, 3]) for x in x0):
        assert torch.equal(mask.argmax(0), octants(places))
        assert (image * spans - places).abs().max() < 0.3  # the image is linear, coordinates those of the nearest voxel
    starts = {tuple(x[-3:, 0, 0, 0].tolist()) for x in x0}
    assert len(starts) > 50


def test_the_network_works_on_the_mean_coordinates_of_blocks(placed):
    denoiser = placed.checkpoint.denoiser("cpu")
    denoiser.haar_levels, bands = (1, 1, 0), 4
    denoiser.image_bands = torch.full((3 * bands,), 0.5, dtype=torch.float64)
    seen = []

    def network(x, levels, condition):
        seen.append(x)
        return torch.zeros(len(x), bands * 11, *x.shape[2:])

    denoiser.network = Wrapped(network)
    places = torch.from_numpy(coordinates((8, 8, 8), (slice(0, 8),) * 3))[None]
    denoiser(torch.cat([torch.zeros(1, 11, 8, 8, 8), places], 1), torch.ones(1, 2))
    assert seen[0].shape == (1, 11 * bands + 3, 4, 4, 8)
    torch.testing.assert_close(
        seen[0][0, -3:], torch.from_numpy(coordinates((4, 4, 8), (slice(0, 4), slice(0, 4), slice(0, 8))))
    )


class Wrapped(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def asked(kind, **changes):
    return kind("41", "all", **changes)


@pytest.mark.parametrize("way", ["segment", "vary", "channels", "inpaint", "likelihood", "interpolate"])
def test_every_window_of_a_known_image_gets_the_coordinates_that_it_shows(placed, calls, tmp_path, way):
    requests = {
        "segment": asked(jdm.SegmentRequest, images=placed.real().folder / "imagesTr", samples=1),
        "vary": asked(jdm.VaryRequest, cases=("case_0", "case_1"), level=0.02, **QUICK),
        "channels": asked(jdm.ChannelsRequest, known=("0", "1", "2"), cases=("case_0", "case_1"), **QUICK),
        "inpaint": asked(jdm.InpaintRequest, case="case_2", box=(2, 15, 3, 5, 18, 6), **QUICK),
        "likelihood": asked(jdm.LikelihoodRequest, samples=2, tolerance=0.1, cases=("case_0", "case_1")),
        "interpolate": asked(jdm.InterpolateRequest, between=("case_0", "case_0"), points=2, steps=4),
    }
    jdm.sample(dataclasses.replace(requests[way], out=tmp_path / "out"))
    if way == "interpolate":  # after the inversion, whose first step is at the lowest level, the image is another
        del calls[2:]
    assert image_shows_coordinates(calls) >= 4


def test_every_window_of_a_known_mask_gets_the_coordinates_that_it_shows(placed, calls, tmp_path):
    jdm.sample(asked(jdm.ImagesRequest, masks=placed.real().folder / "labelsTr", out=tmp_path / "out", **QUICK))
    of_images = mask_shows_coordinates(calls)
    assert of_images > 3
    calls.clear()
    whole = {"count": 3, "steps": 3, "anyway": True, "no_audit": True, "margin": 100.0}
    jdm.export(asked(jdm.ExportRequest, id=541, given_masks="real", **whole))
    assert mask_shows_coordinates(calls) > 3


def test_exported_canvases_lie_in_a_volume_as_training_patches_do(placed, monkeypatch):
    jobs, samples = [], Drawer.samples

    def recorded(self, some, **options):
        jobs.extend(some)
        return samples(self, some, **options)

    monkeypatch.setattr(Drawer, "samples", recorded)
    whole = {"count": 8, "steps": 3, "anyway": True, "no_audit": True, "margin": 100.0}
    jdm.export(asked(jdm.ExportRequest, id=542, **whole))
    made, seen = open_dataset(542), set()
    for number, job in enumerate(jobs):
        shape = read_case(made, f"syn_{number:06d}").label.shape
        inside = [slice((c - s) // 2, (c - s) // 2 + s) for c, s in zip(job.x.shape[1:], shape, strict=True)]
        along = [job.beside[axis][tuple(p if k == axis else 0 for k, p in enumerate(inside))] for axis in range(3)]
        steps = [np.diff(values) for values in along]
        sizes = tuple(round(2 / step.mean()) for step in steps)
        assert sizes in SHAPES[:2]  # of the training cases
        assert shape == tuple(np.minimum(sizes, (12, 16, 14)))
        assert job.beside.shape[1:] == job.x.shape[1:] == tuple(np.maximum(shape, 8))  # padded to the patch, as trained
        for values, step, side in zip(along, steps, sizes, strict=True):
            np.testing.assert_allclose(step, 2 / side, rtol=1e-4)
            start = (values[0] + 1) * side / 2 - 0.5
            assert start == pytest.approx(round(start), abs=1e-4) and 0 <= round(start) <= side - len(values)
        seen.add((sizes, *(round(float(values[0]), 4) for values in along)))
    assert len({sizes for sizes, *_ in seen}) == 2 and len(seen) >= 5


def test_a_middle_sampled_first_gets_the_coordinates_of_the_middle():
    given, beside = [], torch.arange(10.0).reshape(1, 1, 10)

    def denoise(x, sigma):
        given.append(x[:, 1])
        return x

    with_beside(denoise, beside)(torch.zeros(2, 1, 4), torch.ones(2, 2))
    assert torch.equal(given[0], torch.tensor([[3.0, 4.0, 5.0, 6.0]] * 2))


def organs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume with two organs that look alike: class 1 on the left, class 2 on the right."""
    rng = np.random.default_rng(seed)
    label = np.zeros((8, 8, 32), np.uint8)
    for value, middle in ((1, 8), (2, 24)):
        first = middle - 3 + rng.integers(-1, 2)
        label[:, :, first : first + 6] = value
    image = 1000 * (label > 0) + rng.normal(0, 100, label.shape)
    return image.astype(np.int16)[None], label


def rightly_placed(label: np.ndarray) -> float:
    """Share of the foreground that has the class of its half."""
    left, right = label[..., :16], label[..., 16:]
    return ((left == 1).sum() + (right == 2).sum()) / max(np.count_nonzero(label), 1)


@pytest.mark.slow
def test_canvases_of_several_patches_place_organs_with_coordinates_alone(nnunet_folders):
    real = write(nnunet_folders["nnUNet_raw"], "Dataset042_Organs", [organs(seed) for seed in range(9)], 1, 3)
    train = {"steps": 250, "batch_size": 8, "validate_every": 200, "learning_rate": 3e-3, "select": "last"}
    placing = {}
    for position in (True, False):
        data = {**PATCH, "patch_size": [8, 8, 16], "canvas_size": [8, 8, 32], "position": position}
        tiny_run(real, train=train, data=data)
        whole = {"count": 16, "steps": 8, "batch_size": 16, "anyway": True, "no_audit": True, "margin": 100.0}
        jdm.export(jdm.ExportRequest("42", "all", id=543 + position, name=f"made{position:d}", **whole))
        made = open_dataset(543 + position)
        placing[position] = float(np.mean([rightly_placed(read_case(made, case).label) for case in made.cases]))
    assert placing[True] > 0.9 > 0.7 > placing[False], placing

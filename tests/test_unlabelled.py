"""Images without masks in the batches of annotated ones: what they teach, where they come from, who may see them."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from export_runs import contents
from small_runs import picture, tiny_plan
from torch import nn

from jdm.data.image_folder import image_folder
from jdm.data.pairs import Batches, PairDataset, condition_features
from jdm.data.raw_dataset import Pair, open_dataset, read_case, write_case
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.mask_estimate import UNSEEN
from jdm.diffusion.model import build_denoiser
from jdm.train.checkpoint import load_checkpoint, run_folder
from jdm.train.missing_masks import expected_dice, with_estimates
from jdm.train.objective import loss_and_gradients, sample_losses

PLAN = """
[network]
base_channels = 8
channel_multipliers = [1, 1]
blocks_per_level = 1
attention_factors = [2]
attention_heads = 2
[train]
steps = 4
batch_size = 2
precision = "fp32"
checkpoint_minutes = 0.0
"""


@pytest.fixture
def with_images(real):
    """The dataset with three more images in imagesUn."""
    for index in range(3):
        write_case(
            real.folder, picture(f"more_{index}", 90 + index, (16, 24)), ".png", images_folder="imagesUn", mask=False
        )
    return open_dataset(real.id)


@pytest.fixture
def train(typed, tmp_path):
    (tmp_path / "tiny.toml").write_text(PLAN)
    return lambda *words: typed("jdm-train", 21, 0, "--plan", tmp_path / "tiny.toml", *words)


def known(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_a_share_of_the_samples_comes_from_the_folder_and_has_no_mask(with_images):
    config = tiny_plan(with_images, list(with_images.cases), train={"unlabelled_share": 0.25})
    images = image_folder(with_images, with_images.folder / "imagesUn")
    pairs, unlabelled = (
        PairDataset(with_images, list(with_images.cases), config),
        PairDataset(images, list(images.cases), config),
    )
    labelled, _ = Batches(pairs, 400, 0, augmented=False)[0]
    x, _ = Batches(pairs, 400, 0, augmented=False, unlabelled=unlabelled)[0]
    missing = x[:, 1:].isnan().flatten(1).all(1)
    assert torch.equal(missing, x.isnan().flatten(1).any(1)) and 0.18 < missing.float().mean() < 0.32
    assert torch.equal(x[~missing], labelled[~missing])  # the others are those of a run without the folder
    rng = np.random.default_rng(0)
    theirs = known(torch.stack([torch.from_numpy(unlabelled.sample(k, rng)[:1]) for k in range(3)]))
    assert known(x[missing, :1]) == theirs and not known(labelled[:, :1]) & theirs
    augmented, _ = Batches(pairs, 400, 0, unlabelled=unlabelled)[0]
    assert torch.equal(augmented[:, 1:].isnan().flatten(1).all(1), augmented.isnan().flatten(1).any(1))


def test_a_missing_mask_has_no_loss_and_the_image_learns_as_behind_any_hidden_mask(real):
    config = tiny_plan(
        real, list(real.cases), noise={"equal": 0.0, "independent": 0.0, "known_mask": 0.0, "known_image": 1.0}
    )
    denoiser = build_denoiser(config, condition_features(2))
    for parameter in denoiser.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    x0, condition = Batches(PairDataset(real, list(real.cases), config), 4, 0)[0]
    x0[1:, 1:] = math.nan
    losses = sample_losses(denoiser, x0, condition, config, torch.Generator().manual_seed(0))
    assert losses.isfinite().all() and (losses[1:] > 0).all()  # though every image was to be known, those are not
    loss_and_gradients(denoiser, x0[1:], condition[1:], config, torch.Generator().manual_seed(0))
    [last] = [module for module in denoiser.network.modules() if isinstance(module, nn.Conv2d)][-1:]
    bands = 4**config.network.haar_levels
    assert last.weight.grad is not None and last.weight.grad[:bands].abs().sum() > 0
    assert (last.weight.grad[bands:] == 0).all()  # the outputs for classes learn nothing


class Bright(nn.Module):
    """Bright pixels are foreground, the brighter the surer; it must see the image as it is, and no mask."""

    def forward(self, x, levels, condition):
        assert (levels[:, 0] < levels[:, 1]).all()
        return torch.cat([torch.zeros_like(x[:, :1]), -20 * x[:, :1], 20 * x[:, :1]], dim=1)


def test_masks_are_estimated_where_the_average_model_is_sure_and_sees_foreground():
    words = torch.tensor([[-0.5], [0.5]])
    denoiser = Denoiser(Bright(), (0.0,), ((1.0,),), ((1.0,) * 16,), words, (0.5, 0.5))
    x0 = torch.full((4, 2, 8, 8), -1.0)
    x0[:2, 0, 2:6, 2:6] = 1.0  # an object; in the third image a faint one, in the fourth none
    x0[2, 0] = torch.linspace(-0.01, 0.02, 64).reshape(8, 8)
    given = torch.where(x0[:1, :1] > 0, -0.5, 0.5)
    x0[:, 1:] = math.nan
    x0[:1, 1:] = given  # an annotation the model would not give stays
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    found = with_estimates(denoiser, x0, torch.zeros(4, condition_features(2)), noise)
    assert torch.equal(found[:, :1], x0[:, :1]) and torch.equal(found[0], x0[0])
    assert torch.equal(found[1, 1] > 0, x0[1, 0] > 0) and found[1, 1].abs().unique().tolist() == [0.5]
    assert found[2:, 1].isnan().all()
    assert UNSEEN > 10


def test_expected_dice_is_that_of_masks_drawn_from_the_probabilities():
    shares = torch.tensor([[[0.9, 0.4, 0.2, 0.3], [0.1, 0.6, 0.8, 0.7]]], dtype=torch.float64)
    drawn = torch.rand((200_000, 4), generator=torch.Generator().manual_seed(0)) < shares[0, 1]
    best = shares[0].argmax(0) == 1
    dice = 2 * (drawn & best).sum().double() / (drawn.sum() + len(drawn) * best.sum())
    assert float(expected_dice(shares)) == pytest.approx(float(dice), abs=0.002)
    assert expected_dice(torch.tensor([[[0.9, 0.8], [0.1, 0.2]], [[0.0, 1.0], [1.0, 0.0]]])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("way", ["marginal", "estimated"])
def test_a_killed_run_goes_on_to_the_same_weights_and_says_what_it_saw(with_images, train, typed, way):
    folder, words = run_folder(with_images.name, 0), ("--train.missing-mask", way)
    assert train("--unlabelled", "imagesUn", *words)[0] == 0
    whole = load_checkpoint(folder)
    assert whole.metadata["unlabelled"]["cases"] == ["more_0", "more_1", "more_2"]
    assert not whole.metadata["unlabelled"]["evaluated"]
    assert train("--overwrite", *words)[0] == 0
    assert load_checkpoint(folder).sha256 != whole.sha256 and "unlabelled" not in load_checkpoint(folder).metadata
    assert train("--overwrite", "--unlabelled", with_images.folder / "imagesUn", "--train.steps", 2, *words)[0] == 0
    status, _, told = typed("jdm-train", 21, 0, "--resume", "--train.steps", 4, "--train.decay", "linear")
    assert status == 0, told
    assert load_checkpoint(folder).metadata["unlabelled"] == whole.metadata["unlabelled"]
    write_case(with_images.folder, picture("more_1", 7, (16, 24)), ".png", images_folder="imagesUn", mask=False)
    status, _, told = typed("jdm-train", 21, 0, "--resume", "--train.steps", 6)
    assert status == 2 and "unlabelled" in told and "Traceback" not in told


@pytest.mark.parametrize("of_test", [True, False])
def test_images_that_are_evaluated_are_refused_or_named_to_the_end(with_images, train, typed, of_test):
    case = with_images.cases[0]
    if of_test:
        for index in range(2):
            seen = picture(f"test_{index}", 60 + index, (16, 24))
            write_case(with_images.folder, seen, ".png", images_folder="imagesTs", mask=False)
        image = seen.image
    else:
        splits = [{"train": list(with_images.cases[1:]), "val": [case]}]
        (with_images.folder / "splits_final.json").write_text(json.dumps(splits))
        image = read_case(with_images, case).image
    turned = np.ascontiguousarray(image[:, ::-1, ::-1] * np.array(0.9)).astype(image.dtype)  # half a turn, and darker
    copy = Pair("innocent", turned, np.zeros(turned.shape[1:], np.uint8), (1.0, 1.0))
    write_case(with_images.folder, copy, ".png", images_folder="imagesUn", mask=False)
    status, _, told = train("--unlabelled", "imagesUn")
    assert status == 2 and "innocent" in told and "--transductive" in told and "Traceback" not in told
    assert not run_folder(with_images.name, 0).exists()
    status, _, told = train("--unlabelled", "imagesUn", "--transductive")
    assert status == 0, told
    words = ("--id", 521, "--count", 2, "--steps", 2, "--margin", 100, "--anyway", "--no-audit")
    status, _, told = typed("jdm-export", 21, 0, *words)
    assert status == 0, told
    origin = json.loads((open_dataset(521).folder / "provenance.json").read_text())["generator"]
    assert len(origin["unlabelled"]["evaluated"]) == 1 and "innocent" in origin["unlabelled"]["evaluated"][0]


def test_folders_and_plans_that_cannot_be_used_are_one_line(with_images, train):
    wrong = with_images.folder.parent / "elsewhere"
    wrong.mkdir()
    shutil.copy(with_images.folder / "imagesUn" / "more_0_0000.png", wrong / "picture.png")
    before = contents(with_images.folder)
    for words, named in (
        (("--unlabelled", "nowhere"), "nowhere"),
        (("--unlabelled", wrong), "picture.png"),
        (("--transductive",), "--unlabelled"),
        (("--unlabelled", "imagesUn", "--preset", "thesis"), "thesis"),
    ):
        status, _, told = train(*words)
        assert status == 2 and named in told and "Traceback" not in told, told
    assert contents(with_images.folder) == before and not run_folder(with_images.name, 0).exists()

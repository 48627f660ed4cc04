"""GAN baselines: the parts of StyleGAN2 against their definitions; datasets that jdm-classify takes or refuses."""

import copy
import json
import shutil

import gan_baselines
import model_per_class
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import varied_dataset
from gan_ada import TARGET, Augmentation
from gan_baselines import Options
from gan_dcgan import DCGAN
from gan_stylegan2 import StyleGAN2, modulated, r1, spread_over_batch
from test_classify import QUICK, write

from jdm.classify.images import Images
from jdm.classify.request import ClassifyOptions
from jdm.classify.run import classify
from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import open_dataset, read_image, write_json_like
from jdm.data.splits import fold_split
from jdm.errors import DataError, ExistsError

SMALL = {"minutes": 0.01, "count": 6, "width": 8, "batch_size": 4}


@pytest.mark.parametrize("demodulate", [True, False])
def test_a_modulated_convolution_is_one_of_each_image_s_own_weights(demodulate):
    torch.manual_seed(0)
    x, weight, style = torch.randn(3, 5, 7, 6), torch.randn(4, 5, 3, 3), torch.randn(3, 5)
    expected = []
    for image, scale in zip(x, style, strict=True):
        own = weight * scale[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected.append(F.conv2d(image[None], own, padding=1)[0])
    torch.testing.assert_close(modulated(x, weight, style, demodulate), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_demodulation_gives_unit_variance_whatever_the_style():
    torch.manual_seed(0)
    y = modulated(torch.randn(4, 16, 96, 96), torch.randn(8, 16, 3, 3), 10 * torch.randn(4, 16))
    torch.testing.assert_close(y[:, :, 1:-1, 1:-1].std((2, 3)), torch.ones(4, 8), rtol=0.05, atol=0)


def test_the_spread_over_a_batch_is_its_closed_form():
    x = torch.zeros(4, 2, 3, 3)
    x[:, 0] = torch.tensor([1.0, 3.0, 1.0, 3.0])[:, None, None]  # standard deviations 1 and 0: mean 1/2
    torch.testing.assert_close(spread_over_batch(x)[:, 2], torch.full((4, 3, 3), 0.5), rtol=1e-3, atol=0)
    torch.testing.assert_close(spread_over_batch(x, group=2)[:, 2], torch.full((4, 3, 3), 5e-5), rtol=0, atol=1e-4)


def test_r1_is_the_squared_gradient_by_finite_differences():
    torch.manual_seed(0)
    layers = (torch.nn.Flatten(), torch.nn.Linear(9, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    network = torch.nn.Sequential(*layers).double()
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    found = r1(network(x)[:, 0], x)
    steps = 1e-5 * torch.eye(9, dtype=torch.float64).reshape(9, 1, 3, 3)
    for image, value in zip(x.detach(), found, strict=True):
        slope = (network(image + steps) - network(image - steps))[:, 0] / 2e-5
        torch.testing.assert_close(value, slope.square().sum())
    found.mean().backward()
    slope = layers[1].weight.grad
    assert slope is not None and slope.abs().sum() > 0  # the penalty trains the discriminator


def test_the_probability_of_augmentation_follows_overfitting():
    augmentation = Augmentation()
    augmentation.control(0.0, 1000)
    assert augmentation.probability == 0.0
    augmentation.control(TARGET + 0.1, 5000)
    assert augmentation.probability == pytest.approx(0.01)  # 500,000 images from 0 to 1
    augmentation.control(TARGET - 0.1, 2500)
    assert augmentation.probability == pytest.approx(0.005)
    augmentation.control(1.0, 10**6)
    assert augmentation.probability == 1.0
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    augmentation(x).sum().backward()
    assert not torch.equal(augmentation(x), x) and x.grad is not None and x.grad.abs().sum() > 0
    assert torch.equal(Augmentation()(x), x)


@pytest.mark.parametrize("kind", [DCGAN, StyleGAN2])
def test_a_restored_gan_goes_on_exactly(kind):
    torch.manual_seed(0)
    real, classes = torch.rand(4, 1, 64, 64), torch.zeros(4, dtype=torch.long)
    gan, other = kind(1, 1, 8), kind(1, 1, 8)
    gan.update(real, classes)
    other.load(copy.deepcopy(gan.state()))
    found = []
    for each in (gan, other):
        torch.manual_seed(1)
        each.update(real, classes)
        found.append(each.sample(classes))
    torch.testing.assert_close(found[0], found[1])


def test_a_killed_training_goes_on_from_its_last_save(tmp_path, monkeypatch):
    images = Images(tuple("abcd"), torch.rand(4, 1, 64, 64), torch.zeros(4, dtype=torch.long))
    monkeypatch.setattr(gan_baselines, "_SAVE_EVERY", 0.0)
    calls, update = [], DCGAN.update

    def dies(gan, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return update(gan, *arguments)

    monkeypatch.setattr(DCGAN, "update", dies)
    file, options = tmp_path / "0.pt", Options("dcgan", "71", 571, width=8, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        gan_baselines.train(DCGAN, images, 1, file, options, minutes=10.0)
    saved = torch.load(file, weights_only=True)
    assert saved["updates"] == 3 and 0 < saved["seconds"] < 600
    _, updates = gan_baselines.train(DCGAN, images, 1, file, options, minutes=saved["seconds"] / 60 + 1e-6)
    assert updates == 4
    assert torch.load(file, weights_only=True)["seconds"] > saved["seconds"]


@pytest.mark.parametrize("gan", ["dcgan", "stylegan2"])
def test_its_dataset_is_compared_and_its_training_cases_are_guarded(gan, nnunet_folders, monkeypatch, capsys):
    write(nnunet_folders["nnUNet_raw"], "Dataset071_Real", 20, seed=0)
    monkeypatch.setattr(gan_baselines, "_SAVE_EVERY", 0.0)
    gan_baselines.main(Options(gan, "71", 571, **SMALL))
    saved = capsys.readouterr().err
    made = open_dataset(571)
    assert read_generator(made)["training_ids"] == fold_split(open_dataset(71), "0")[0]
    image = read_image(made, made.cases[0])[0]
    assert image.shape == (1, 64, 64) and image.dtype == np.uint8 and np.ptp(image) > 0
    assert len(made.cases) == 6 and len((made.folder / "manifest.jsonl").read_text().splitlines()) == 6
    results = classify(ClassifyOptions("71", "571", arms=("real", "mixed"), **QUICK))[1]
    assert results["arms"].keys() == {"real", "mixed"}
    with pytest.raises(DataError, match="trained on"):
        classify(ClassifyOptions("71", "571", folds=("1",), **QUICK))
    gan_baselines.main(Options(gan, "71", 572, **SMALL))  # nothing is left to train
    assert "updates" in saved and "updates" not in capsys.readouterr().err
    again = open_dataset(572)
    assert np.array_equal(read_image(again, again.cases[0])[0], image)
    with pytest.raises(ExistsError, match="seed"):
        gan_baselines.main(Options(gan, "71", 573, seed=1, **SMALL))
    with pytest.raises(ExistsError, match="571"):
        gan_baselines.main(Options(gan, "71", 571, **SMALL))
    assert json.loads((made.folder / "provenance.json").read_text())["gan"]["updates"]


def test_parts_of_one_class_join_to_a_set_that_knows_all_their_training_cases(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    write(raw, "Dataset071_Real", 8, seed=0, test=4)
    model_per_class.main("split", "71", (81, 82))
    parts = [open_dataset(81), open_dataset(82)]
    real = open_dataset(71)
    assert sorted(case for part in parts for case in part.cases) == list(real.cases)
    assert all(name in case for part, name in zip(parts, ("bright", "dark"), strict=True) for case in part.cases)
    for number, part in zip((91, 92), parts, strict=True):
        made = raw / f"Dataset0{number}_Made"
        shutil.copytree(part.folder, made)
        origin = {"dataset": part.name, "training_ids": list(part.cases)}
        (made / "provenance.json").write_text(json.dumps({"generator": origin}))
    model_per_class.main("join", "71", (91, 92), id=93)
    assert read_generator(open_dataset(93))["training_ids"] == list(real.cases)
    assert classify(ClassifyOptions("71", "93", folds=("all",), arms=("real", "mixed"), **QUICK))[1]["images"] == 4


def test_varied_cases_count_as_training_cases(nnunet_folders, tmp_path):
    raw = nnunet_folders["nnUNet_raw"]
    write(raw, "Dataset071_Real", 8, seed=0)
    real, samples = open_dataset(71), tmp_path / "varied"
    source, trained = real.cases[0], list(real.cases[2:])
    (samples / "imagesTr").mkdir(parents=True)
    shutil.copy(real.training_files[source].images[0], samples / "imagesTr" / f"{source}_s0_0000.png")
    write_json_like(samples, real, 1)
    origin = {"dataset": real.name, "training_ids": trained}
    content = {"mode": "vary", "samples": 1, "cases": [source], "generator": origin}
    (samples / "samples.json").write_text(json.dumps(content))
    varied_dataset.main(samples, 581)
    assert read_generator(open_dataset(581))["training_ids"] == [source, *trained]
    (samples / "samples.json").write_text(json.dumps({**content, "mode": "inpaint"}))
    with pytest.raises(DataError, match="vary"):
        varied_dataset.main(samples, 582)

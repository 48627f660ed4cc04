"""What a training step minimises."""

import pytest
import torch
from small_runs import TINY, config_of, of_classes

from jdm.config.files import to_dict
from jdm.data.pairs import condition_features
from jdm.diffusion.loss import denoising_losses
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.noise import draw_sigmas
from jdm.train.objective import sample_losses


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_image_and_mask_weigh_the_same_however_many_channels_each_has(classes):
    code = "binary" if classes == 2 else "one-hot" if classes <= 8 else "bits"
    config = config_of(of_classes(classes), codec={"mask_code": code}, network=to_dict(TINY))
    denoiser = build_denoiser(config, condition_features(2))
    x0 = torch.cat(
        [torch.zeros(6, 1, 64, 64), torch.tensor(config.words)[1].reshape(1, -1, 1, 1).expand(6, -1, 64, 64)], 1
    )
    condition = torch.zeros(6, condition_features(2))
    found = sample_losses(denoiser, x0, condition, config, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x0.shape, generator=generator)
    sides = denoising_losses(denoiser, x0, draw_sigmas(config.noise, 6, generator), noise, condition)
    torch.testing.assert_close(found, sides.mean(1))

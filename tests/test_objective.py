"""What a training step minimises: the weights of its parts."""

import pytest
import torch
from small_runs import config_of, of_classes
from torch import nn

from jdm.train.objective import sample_losses


class Silent(nn.Module):
    """A network that is right about the image channel and says nothing of the mask, or the other way round."""

    def __init__(self, x0: torch.Tensor, known: slice) -> None:
        super().__init__()
        self.x0, self.known = x0, known

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        guess = x.clone()
        guess[:, self.known] = self.x0[:, self.known]
        return guess


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_image_and_mask_weigh_the_same_however_many_channels_each_has(classes):
    joint = {"equal": 1.0, "independent": 0.0, "known_mask": 0.0, "known_image": 0.0}
    settings = {"codec": {"mask_code": "binary" if classes == 2 else "one-hot"}, "noise": joint}
    _, deviation = config_of(of_classes(classes), **settings).sigma_data
    config = config_of(of_classes(classes, image_std=deviation), **settings)
    x0 = torch.zeros(16, config.image_channels + config.mask_channels, 32, 32)
    losses = []
    for known in (slice(0, 1), slice(1, None)):
        denoise = Silent(x0, known)
        loss = sample_losses(denoise, x0, torch.zeros(16, 11), config, torch.Generator().manual_seed(0))
        assert loss.shape == (16,)
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=0.2, atol=0)

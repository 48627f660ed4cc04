"""Training samples whose mask is missing: images without annotation, in the batches of annotated ones.

`jdm.data.pairs.Batches` marks a missing mask by NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.mask_estimate import UNSEEN

SURE = 0.8
"""Expected Dice from which an estimated mask is trained on."""
ESTIMATES_FROM = 0.5
"""Share of the training after which masks are estimated: earlier estimates are empty, and would teach to leave masks
empty."""


def is_missing(x0: Tensor, image_channels: int) -> Tensor:
    """(B,): whether the mask of each sample (B, C, *spatial) is missing."""
    return x0[:, image_channels:].isnan().flatten(1).any(1)


def hidden(x0: Tensor, sigma: Tensor, image_channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Samples and levels (B, 2) with missing masks behind noise that hides them; and which are missing, (B,).

    Such a sample teaches the image's marginal: its mask is at the level of the image, or at one that hides every mask,
    whichever is higher, and its image is never given.
    """
    missing = is_missing(x0, image_channels)
    image = sigma[:, 0].where(sigma[:, 0] > 0, sigma[:, 1])
    levels = torch.stack([image, image.clamp(min=UNSEEN)], dim=1)
    x0 = torch.cat([x0[:, :image_channels], x0[:, image_channels:].nan_to_num(0.0)], dim=1)
    return x0, levels.where(missing[:, None], sigma), missing


@torch.no_grad()
def with_estimates(denoiser: Denoiser, x0: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
    """x0 with the most probable mask where one is missing and the model is sure of it; the others stay missing.

    A teacher that is the average of its student: Tarvainen and Valpola 2017 (arXiv:1703.01780). Sure: `expected_dice`
    is at least `SURE`; it is 0 for an empty mask, so that the model does not teach itself to leave masks empty.

    Args: x0: the channels beside a sample may follow. denoiser: the averaged weights. noise: standard normal, like x0.
    """
    masks = slice(denoiser.image_channels, denoiser.channels)
    missing = is_missing(x0, masks.start)
    if not missing.any():
        return x0
    some = x0[missing]
    some[:, masks] = UNSEEN * noise[missing, masks]
    _, logits = denoiser.predict(some, some.new_tensor([0.0, UNSEEN]).expand(len(some), 2), condition[missing])
    shares = logits.softmax(1)
    mask = torch.einsum("b...m->bm...", denoiser.words.to(x0)[shares.argmax(1)])
    mask[expected_dice(shares) < SURE] = torch.nan
    x0 = x0.clone()
    x0[missing, masks] = mask
    return x0


def expected_dice(shares: Tensor) -> Tensor:
    """Of the most probable labels with a mask drawn from the probabilities (B, K, *spatial), by ratio of expectations.

    Returns: (B,), the mean over the foreground classes that the labels hold; 0 without foreground.
    """
    labels = torch.nn.functional.one_hot(shares.argmax(1), shares.shape[1]).movedim(-1, 1).to(shares)
    both, found, probable = ((labels * shares).flatten(2).sum(2), labels.flatten(2).sum(2), shares.flatten(2).sum(2))
    held = found[:, 1:] > 0
    dice = (2 * both / (found + probable))[:, 1:]
    return (dice * held).sum(1) / held.sum(1).clamp(min=1)

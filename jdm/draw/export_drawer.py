"""The samples of an export, from their seeds: joint, or with their masks given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from jdm.config.settings import Config
from jdm.data.pairs import class_condition
from jdm.diffusion.conditioning import Known, known_channels
from jdm.diffusion.mask_estimate import UNSEEN, estimated_mask
from jdm.diffusion.named import named_sampler
from jdm.diffusion.noise import Denoise, Denoiser
from jdm.diffusion.sampling import CaseNoise, karras_sigmas, sample_ancestral
from jdm.diffusion.sde import SDE
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.windows import windowed
from jdm.draw.guidance import directed
from jdm.export.request import ExportRequest
from jdm.train.checkpoint import Checkpoint


class PairDrawer:
    """The checkpoint's denoiser with the request's sampler."""

    def __init__(
        self, checkpoint: Checkpoint, request: ExportRequest, device: str, weaker: Checkpoint | None = None
    ) -> None:
        """Args: weaker: guides, with the request's scale."""
        self.config, self.request, self.device = checkpoint.config, request, device
        self.denoiser = checkpoint.denoiser(device)
        self.weaker = None if weaker is None else weaker.denoiser(device)

    def samples(self, seeds: Sequence[int], given: np.ndarray | None = None, class_name: str = "") -> np.ndarray:
        """Encoded samples (n, channels, *canvas_size), each a function of its seed, its class and the mask given it.

        Args: given: encoded masks, (n, mask channels, *canvas_size). class_name: of all; empty: none.
        """
        config, request, denoiser = self.config, self.request, self.denoiser
        draw = CaseNoise(seeds, (config.image_channels + config.mask_channels, *request.canvas_size), self.device)
        noise = draw()
        known = None if given is None else self._known(noise, given, draw)
        if request.sampler == "ancestral":
            assert isinstance(denoiser, VPDenoiser)  # see check_request
            respaced = denoiser.respaced(request.steps)
            told = class_condition(config, class_name).to(self.device).expand(len(noise), -1) if class_name else None
            predict = functools.partial(respaced.predict, condition=told)
            return sample_ancestral(predict, respaced.process, noise, draw, known, clip=1.0).cpu().numpy()
        denoise = self._denoise(class_name, request.guidance)
        sample = named_sampler(request.sampler, request.sampling, draw, sde_of(denoiser))
        sigmas = karras_sigmas(request.steps, *level_span(denoiser, config))
        if isinstance(denoiser, VPDenoiser):
            noise = denoiser.process.begun(denoise, noise, sigmas[0].item(), known)
        x = sample(denoise, noise, sigmas, known)
        if request.masks == "estimated":
            # Guided, the estimate would leave the mean: not the most probable class any more.
            x = estimated_mask(self._denoise(class_name), x, config.image_channels, UNSEEN, draw())
        return x.cpu().numpy()

    def _denoise(self, class_name: str, guidance: float = 1.0) -> Denoise:
        """The denoiser of a canvas, told a class and guided."""
        one = directed(self.denoiser, self.config, class_name, guidance, self.weaker)
        return windowed(one, self.config.data.patch_size, self.request.overlap, self.request.batch_size)

    def _known(self, noise: Tensor, given: np.ndarray, fresh: Callable[[], Tensor]) -> Known:
        values = torch.zeros_like(noise)
        values[:, self.config.image_channels :] = torch.from_numpy(given).to(noise)
        levels = 1 if isinstance(self.denoiser, VPDenoiser) else 2
        mask = range(self.config.image_channels, noise.shape[1])
        return known_channels(values, mask, self.config.image_channels, fresh, levels=levels)


def sde_of(denoiser: Denoiser | VPDenoiser) -> SDE:
    """The process that a denoiser was trained on."""
    return "vp" if isinstance(denoiser, VPDenoiser) else "ve"


def level_span(denoiser: Denoiser | VPDenoiser, config: Config) -> tuple[float, float]:
    """Lowest and highest noise level to sample over: the plan's, or those of the thesis's process."""
    if isinstance(denoiser, VPDenoiser):
        return denoiser.process.span()
    return config.noise.sigma_min, config.noise.sigma_max

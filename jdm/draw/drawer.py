"""Draws samples of canvases of any sizes, with part of each known, in batches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from jdm.config.samplers import evaluations as sampler_evaluations
from jdm.config.settings import Config
from jdm.diffusion.conditioning import Known, Noise, fitting_known
from jdm.diffusion.editing import invert_heun, vary
from jdm.diffusion.mask_estimate import UNSEEN, estimated_mask
from jdm.diffusion.named import named_sampler
from jdm.diffusion.noise import Denoise
from jdm.diffusion.repaint import Resampling, Sample, sample_repaint
from jdm.diffusion.sampling import CaseNoise, karras_sigmas
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.windows import windowed
from jdm.draw.export_drawer import level_span, sde_of
from jdm.draw.guidance import directed
from jdm.export.amount import batches_of, export_seconds, network_calls
from jdm.export.pairs import case_seed
from jdm.export.request import ExportRequest
from jdm.sample.request import SampleRequest, estimates, resamples
from jdm.sample.starts import Plane
from jdm.train.checkpoint import Checkpoint


@dataclass(frozen=True)
class Job:
    """One sample to draw."""

    x: np.ndarray
    """Encoded, (channels, *spatial)."""
    where: np.ndarray
    """bool, broadcastable to x: which entries of it are known."""
    seed: int


def job(plane: Plane, request: SampleRequest, start: int, sample: int) -> Job:
    """The job of a plane, by the numbers of its start and sample; its seed does not depend on how many there are."""
    return Job(plane.canvas.x, plane.where, case_seed(request.seed, start, (sample << 32) + plane.number))


class Drawer:
    """The checkpoint's denoiser with the request's sampler."""

    def __init__(
        self, checkpoint: Checkpoint, request: SampleRequest, device: str, weaker: Checkpoint | None = None
    ) -> None:
        """Args: weaker: guides, with the request's scale."""
        self.config, self.request, self.device = checkpoint.config, request, device
        self.denoiser = checkpoint.denoiser(device)
        patch = self.config.data.patch_size
        weak = None if weaker is None else weaker.denoiser(device)
        denoise = directed(self.denoiser, self.config, request.class_label, request.guidance, weak)
        self.denoise: Denoise = windowed(denoise, patch, request.overlap, request.batch_size)
        self.sigmas = karras_sigmas(request.steps, *level_span(self.denoiser, self.config))

    def conditional(self, jobs: Sequence[Job], exact: bool = True) -> list[np.ndarray]:
        """A sample of each job, (channels, *spatial), with what is known in it as it was.

        Args: exact: tell the network what is known where that is possible; else replace it at every step.
        """

        def draw(x: Tensor, where: Tensor, fresh: Noise) -> Tensor:
            levels = 2 if exact and not isinstance(self.denoiser, VPDenoiser) else 1
            known = fitting_known(where, x, self.config.image_channels, fresh, levels=levels)
            return self._known(self._begun(fresh(), known), known, fresh)

        return self._batches(jobs, draw)

    def estimates(self, jobs: Sequence[Job]) -> list[np.ndarray]:
        """Each job's image with the mean of its mask given the image, (channels, *spatial); its mask is not seen."""
        images = self.config.image_channels
        mean = torch.tensor(self.config.noise.data_mean[images:] or [0.0] * self.config.mask_channels)

        def draw(x: Tensor, _: Tensor, fresh: Noise) -> Tensor:
            unseen = mean.to(x).reshape(-1, *[1] * (x.ndim - 2)).expand_as(x[:, images:])
            return estimated_mask(self.denoise, torch.cat([x[:, :images], unseen], dim=1), images, UNSEEN, fresh())

        return self._batches(jobs, draw, quiet=True)

    def variations(self, jobs: Sequence[Job], level: float) -> list[np.ndarray]:
        """A variation of each job's x, from noise of `level`."""
        lowest, _ = level_span(self.denoiser, self.config)
        sigmas = karras_sigmas(self.request.steps, lowest, level)
        return self._batches(jobs, lambda x, _, fresh: vary(self.denoise, x, fresh(), sigmas, self._sampler(fresh)))

    def inverted(self, x: np.ndarray) -> Tensor:
        """The noises (B, channels, *spatial) that encoded pairs come from."""
        return invert_heun(self.denoise, torch.from_numpy(x).to(self.device), self.sigmas)

    def noise(self, seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Standard normal noise, (B, *shape), from which samples start."""
        return self._begun(CaseNoise(seeds, shape, self.device)())

    def from_noise(self, noise: Tensor) -> np.ndarray:
        """The samples of given noises, by a sampler that renews none."""
        parts, sample = noise.split(self.request.batch_size), self._sampler(CaseNoise([], ()))
        made = [sample(self.denoise, part, self.sigmas, None) for part in tqdm(parts, disable=None, unit="batch")]
        return torch.cat(made).cpu().numpy()

    def _known(self, noise: Tensor, known: Known, fresh: Noise) -> Tensor:
        sample = self._sampler(fresh)
        if known.mode == "exact":
            return sample(self.denoise, noise, self.sigmas, known)
        resampling = Resampling(self.request.jump_length, self.request.repetitions)
        return sample_repaint(self.denoise, noise, self.sigmas, known, fresh, resampling, sample)

    def _begun(self, noise: Tensor, known: Known | None = None) -> Tensor:
        if not isinstance(self.denoiser, VPDenoiser):
            return noise
        return self.denoiser.process.begun(self.denoise, noise, self.sigmas[0].item(), known)

    def _sampler(self, fresh: Noise) -> Sample:
        return named_sampler(self.request.sampler, self.request.sampling, fresh, sde_of(self.denoiser))

    def _batches(
        self, jobs: Sequence[Job], draw: Callable[[Tensor, Tensor, Noise], Tensor], quiet: bool = False
    ) -> list[np.ndarray]:
        """`draw` of the jobs, those of one size together; results in the order of the jobs."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, job in enumerate(jobs):
            by_shape[job.x.shape].append(number)
        size = self.request.batch_size
        chunks = [same[k : k + size] for same in by_shape.values() for k in range(0, len(same), size)]
        results: dict[int, np.ndarray] = {}
        for chunk in tqdm(chunks, disable=quiet or None, unit="batch"):
            x = torch.from_numpy(np.stack([jobs[n].x for n in chunk])).to(self.device)
            where = np.stack([np.broadcast_to(jobs[n].where, jobs[n].x.shape) for n in chunk])
            fresh = CaseNoise([jobs[n].seed for n in chunk], x.shape[1:], self.device)
            made = draw(x, torch.from_numpy(where).to(self.device), fresh)
            results.update(zip(chunk, made.cpu().numpy(), strict=True))
        return [results[number] for number in range(len(jobs))]


def evaluations(config: Config, request: SampleRequest) -> int:
    """Calls of the denoiser that one sample takes."""
    if estimates(config, request):
        return 1
    steps = request.steps
    if resamples(config, request):
        ways = Resampling(request.jump_length, request.repetitions).stretches(steps)
        steps = sum(last - first for first, last in ways)
    inverting = 2 * steps if request.mode == "interpolate" else 0
    return (sampler_evaluations(request.sampler, steps) + inverting) * (1 if request.guidance == 1 else 2)


def planned_seconds(
    checkpoint: Checkpoint, request: SampleRequest, shapes: Sequence[tuple[int, ...]], device: str
) -> float:
    """Estimated wall-clock seconds of sampling canvases of some shapes on this machine, from a timed call."""
    config, steps = checkpoint.config, evaluations(checkpoint.config, request)
    exports = [
        ExportRequest(
            1, "", count, shape, sampler="ddim", steps=steps, batch_size=request.batch_size, overlap=request.overlap
        )
        for shape, count in Counter(shapes).items()
    ]
    calls = [network_calls(config, export, batches_of(export)) for export in exports]
    first = export_seconds(checkpoint.denoiser(device), config, exports[0], batches_of(exports[0]), device)
    return first / calls[0] * sum(calls)

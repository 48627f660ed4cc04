"""Draws samples in batches: canvases of any size, unconditional, partly known, or with image or mask known."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jdm.config.settings import Config
from jdm.data.pairs import previous_condition, sampling_condition
from jdm.diffusion.conditioning import Known, Noise, fitting_known
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.editing import invert_heun, vary
from jdm.diffusion.mask_estimate import OUTLINED, UNSEEN, estimated_mask
from jdm.diffusion.named import named_sampler
from jdm.diffusion.noise import Denoise
from jdm.diffusion.repaint import Resampling, Sample, sample_repaint
from jdm.diffusion.sampling import CaseNoise, karras_sigmas, sample_ancestral
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.windows import windowed, with_beside, with_one_look
from jdm.draw.guidance import directed
from jdm.draw.request import Sampling, Way, can_estimate_masks
from jdm.system.progress import progress
from jdm.train.checkpoint import Checkpoint

_PREVIOUS_NOISE = 0.1
"""Level of the noise through which a network of slices sees the sampled slice before."""


@dataclass(frozen=True)
class Job:
    """One sample to draw."""

    x: np.ndarray
    """Encoded, (channels, *spatial); unknown entries are ignored."""
    where: np.ndarray
    """bool, broadcastable to x: known entries."""
    seed: int
    class_name: str = ""
    """Class to sample; empty: none."""
    position: float | None = None
    """Of a slice in its volume, from -1 to 1; None: unknown, or the model is not told."""
    beside: np.ndarray | None = None
    """What the network is given beside x, (channels, *spatial): the slice before, where there is one, or coordinates
    (`jdm.data.crops`)."""


@dataclass(frozen=True)
class _Told:
    """What the denoiser is told of every sample of a batch."""

    class_name: str = ""
    position: float | None = None
    beside: Tensor | None = None
    """(B or 1, channels, *spatial)."""


class Drawer:
    """A checkpoint's denoiser with a sampler."""

    def __init__(
        self, checkpoint: Checkpoint, sampling: Sampling, way: Way, device: str, *,
        weaker: Checkpoint | None = None, resampling: Resampling | None = None,
    ) -> None:  # fmt: skip
        """Args:
        weaker: guides, with the scale of `sampling`.
        resampling: RePaint, where something is known by replacement; None: plain replacement.
        """
        self.config, self.sampling, self.way, self.device = checkpoint.config, sampling, way, device
        self.resampling = resampling or Resampling(1, 1)
        self.denoiser = checkpoint.denoiser(device)
        self._weaker = None if weaker is None else weaker.denoiser(device)
        self.sigmas = karras_sigmas(way.steps, *level_span(self.denoiser, self.config))

    def samples(self, jobs: Sequence[Job], *, exact: bool = True, estimate: bool = False) -> list[np.ndarray]:
        """One sample per job, (channels, *spatial); known entries are unchanged.

        Args:
            exact: condition the network on the known entries if possible, else replace them at every step.
            estimate: replace the mask by the most probable one given the finished image alone.
        """
        images = self.config.image_channels

        def draw(x: Tensor, where: Tensor, fresh: Noise, told: _Told) -> Tensor:
            two = exact and not isinstance(self.denoiser, VPDenoiser)
            known = fitting_known(where, x, images, fresh, levels=2 if two else 1)
            if told.beside is not None and self.config.data.previous_slice:
                told = dataclasses.replace(told, beside=told.beside + _PREVIOUS_NOISE * fresh())
            made = self._drawn(known, fresh, told)
            if where[:, images:].all():
                return made
            return torch.where(where, x, self._outlined(made, fresh(), told, UNSEEN if estimate else None))

        return self._batches(jobs, draw)

    def estimates(self, jobs: Sequence[Job]) -> list[np.ndarray]:
        """Each job's image with the mean mask given that image, (channels, *spatial); the job's own mask is ignored."""
        images = self.config.image_channels
        denoiser = self.denoiser
        assert isinstance(denoiser, Denoiser)  # see `can_estimate_masks`
        mean, _ = denoiser.mask_moments

        def draw(x: Tensor, _: Tensor, fresh: Noise, told: _Told) -> Tensor:
            unseen = mean.to(x).reshape(-1, *[1] * (x.ndim - 2)).expand_as(x[:, images:])
            start = torch.cat([x[:, :images], unseen], dim=1)
            return estimated_mask(self._denoise(told), start, images, UNSEEN, fresh())

        return self._batches(jobs, draw)

    def variations(self, jobs: Sequence[Job], level: float) -> list[np.ndarray]:
        """A variation of each job's x: noise of `level` is added and removed again."""
        lowest, _ = level_span(self.denoiser, self.config)
        seen = min(level, self._outline_level)  # a small variation leaves the outlines
        sigmas = karras_sigmas(self.way.steps, lowest, level)
        return self._batches(
            jobs,
            lambda x, _, fresh, told: self._outlined(
                vary(self._denoise(told), x, fresh(), sigmas, self._sampler(fresh)), fresh(), told, seen
            ),
        )

    def inverted(self, x: np.ndarray, class_name: str = "", beside: np.ndarray | None = None) -> Tensor:
        """The noise (B, channels, *spatial) from which the sampler would produce the given encoded pairs.

        Args: beside: of all pairs, (B or 1, channels, *spatial), see `Job`.
        """
        denoise = self.denoise(class_name, beside=beside)
        return invert_heun(denoise, torch.from_numpy(x).to(self.device), self.sigmas)

    def noise(self, seeds: Sequence[int], shape: Sequence[int], class_name: str = "") -> Tensor:
        """Initial standard normal noise, (B, *shape)."""
        return self._begun(CaseNoise(seeds, shape, self.device)(), None, _Told(class_name))

    def from_noise(self, noise: Tensor, class_name: str = "", beside: np.ndarray | None = None) -> np.ndarray:
        """Samples from given initial noise, by a deterministic sampler. Args: beside: as for `inverted`, B = 1."""
        parts, sample = noise.split(self.sampling.batch_size), self._sampler(CaseNoise([], ()))
        told = self._told(class_name, beside)
        made = [
            self._outlined(sample(self._denoise(told), part, self.sigmas, None), part, told)
            for part in progress(parts, "batches")
        ]
        return torch.cat(made).cpu().numpy()

    def denoise(self, class_name: str, guidance: float | None = None, beside: np.ndarray | None = None) -> Denoise:
        """The denoiser of canvases, conditioned on a class and guided. Args: beside: as for `inverted`."""
        return self._denoise(self._told(class_name, beside), guidance)

    def _told(self, class_name: str, beside: np.ndarray | None) -> _Told:
        return _Told(class_name, beside=None if beside is None else torch.from_numpy(beside).to(self.device))

    def _denoise(self, told: _Told, guidance: float | None = None) -> Denoise:
        scale = self.sampling.guidance if guidance is None else guidance
        word = None
        if told.position is not None:
            word = previous_condition(told.position, None if told.beside is None else _PREVIOUS_NOISE)
        one = directed(self.denoiser, self.config, told.class_name, scale, self._weaker, word)
        whole = windowed(one, self.config.data.patch_size, self.sampling.overlap, self.sampling.batch_size)
        return whole if told.beside is None else with_beside(whole, told.beside)

    def _drawn(self, known: Known, fresh: Noise, told: _Told) -> Tensor:
        noise = fresh()
        if self.way.sampler == "ancestral":
            return self._ancestral(noise, known, fresh, told.class_name)
        denoise, sample = self._denoise(told), self._sampler(fresh)
        noise = self._begun(noise, known, told)
        if known.mode == "exact" or self.resampling.repetitions == 1:
            levels = self.sigmas
            if not known.where[:, : self.config.image_channels].any():
                window, spread = self.config.data.patch_size, self.config.facts.window_spread
                noise, levels = with_one_look(sample, denoise, noise, fresh, levels, window, spread, known)
            return sample(denoise, noise, levels, known)
        return sample_repaint(denoise, noise, self.sigmas, known, fresh, self.resampling, sample)

    def _ancestral(self, noise: Tensor, known: Known, fresh: Noise, class_name: str) -> Tensor:
        assert isinstance(self.denoiser, VPDenoiser)  # checked with the request
        respaced = self.denoiser.respaced(self.way.steps)
        condition = None
        if class_name:
            condition = sampling_condition(self.config, class_name).to(self.device).expand(len(noise), -1)
        predict = functools.partial(respaced.predict, condition=condition)
        return sample_ancestral(predict, respaced.process, noise, fresh, known, clip=1.0)

    def _outlined(self, made: Tensor, noise: Tensor, told: _Told, level: float | None = None) -> Tensor:
        """Samples with their masks decided anew given the finished images, where the mask code allows it.

        Args: level: of the noise through which the sampled masks are seen; None: their outlines are.
        """
        if not can_estimate_masks(self.config):
            return made
        level = self._outline_level if level is None else level
        # With guidance the estimate is not the mean, so it would not give the most probable class.
        plain = self._denoise(told, guidance=1.0)
        return estimated_mask(plain, made, self.config.image_channels, level, noise)

    @property
    def _outline_level(self) -> float:
        return OUTLINED * self.config.codec.mask_amplitude

    def _begun(self, noise: Tensor, known: Known | None, told: _Told) -> Tensor:
        if not isinstance(self.denoiser, VPDenoiser):
            return noise
        return self.denoiser.process.begun(self._denoise(told), noise, self.sigmas[0].item(), known)

    def _sampler(self, fresh: Noise) -> Sample:
        sde = "vp" if isinstance(self.denoiser, VPDenoiser) else "ve"
        return named_sampler(self.way.sampler, self.way.settings, fresh, sde)

    def _batches(self, jobs: Sequence[Job], draw: Callable[[Tensor, Tensor, Noise, _Told], Tensor]) -> list[np.ndarray]:
        """`draw` the jobs in batches of which all samples have one size, class and position; in the jobs' order."""
        alike: dict[Any, list[int]] = defaultdict(list)
        for number, job in enumerate(jobs):
            alike[job.x.shape, job.class_name, job.position, job.beside is None].append(number)
        size = self.sampling.batch_size
        chunks = [same[k : k + size] for same in alike.values() for k in range(0, len(same), size)]
        results: dict[int, np.ndarray] = {}
        for chunk in progress(chunks, "batches", active=len(chunks) > 1):
            some = [jobs[n] for n in chunk]
            x = torch.from_numpy(np.stack([job.x for job in some])).to(self.device)
            where = np.stack([np.broadcast_to(job.where, job.x.shape) for job in some])
            given = [job.beside for job in some if job.beside is not None]
            beside = torch.from_numpy(np.stack(given)).to(self.device) if given else None
            fresh = CaseNoise([job.seed for job in some], x.shape[1:], self.device)
            told = _Told(some[0].class_name, some[0].position, beside)
            made = draw(x, torch.from_numpy(where).to(self.device), fresh, told)
            results.update(zip(chunk, made.cpu().numpy(), strict=True))
        return [results[number] for number in range(len(jobs))]


def level_span(denoiser: Denoiser | VPDenoiser, config: Config) -> tuple[float, float]:
    """Lowest and highest noise level for sampling: the plan's, or those of the thesis's process."""
    if isinstance(denoiser, VPDenoiser):
        return denoiser.process.span()
    return config.noise.sigma_min, config.noise.sigma_max

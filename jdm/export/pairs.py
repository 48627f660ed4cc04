"""Export: sample, decode, check, and write another nnU-Net raw dataset.

A dataset is written to a hidden folder beside its final place and renamed when the last batch is done. Every case has
its own seed, and its index determines its batch, so that repeated, resumed and sharded exports are identical to the
byte on the same processor with the same number of threads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jdm.data.codec import PairCodec
from jdm.data.crops import Window, coordinates, drawn_window
from jdm.data.raw_dataset import Pair
from jdm.data.regions import without_specks
from jdm.draw.canvas import volume_geometry
from jdm.draw.cost import call_seconds, evaluations, network_calls, windows
from jdm.draw.drawer import Drawer, Job
from jdm.draw.guidance import check_guidance
from jdm.draw.request import can_estimate_masks
from jdm.draw.run import Run, origin
from jdm.draw.seeds import case_seed
from jdm.errors import DataError
from jdm.export.amount import Order, order_of, real_amount
from jdm.export.choice import Judge
from jdm.export.copies import Training
from jdm.export.judge import judge, refusal
from jdm.export.masks import GivenMasks, folder_sha256
from jdm.export.plausible import real_range
from jdm.export.request import ExportRequest
from jdm.plan.survey import class_shares
from jdm.system.parallel import on_all_cores
from jdm.train.checkpoint import Checkpoint, load_checkpoint

PREFIX = "syn_"
_MOST_ATTEMPTS = 20
_MOST_SPECKS = 0.02
"""Share of the pixels that may change when specks are left out of a mask: a mask of noise stays what it is."""


@dataclass(frozen=True)
class _Draw:
    """One accepted image or slice."""

    x: np.ndarray
    """Encoded, (channels, *spatial): as large as the canvas, or smaller as the real volume that it lies in."""
    image: np.ndarray
    label: np.ndarray
    seed: int
    attempt: int
    """Number of degenerate draws before this one."""


class PairFactory:
    """Makes the pairs of one export."""

    def __init__(
        self, run: Run, order: Order, device: str, weaker: Checkpoint | None = None, masks: GivenMasks | None = None
    ) -> None:
        self.run, self.order, self.device, self.masks = run, order, device, masks
        self.config, self.codec = run.config, PairCodec(run.config)
        self.weaker = weaker
        self.judge: Judge | None = None
        self.real = real_range(run.config.facts, order.canvas_size, order.request.margin)
        self.drawer = Drawer(run.checkpoint, order.request, order.way, device, weaker=weaker)
        self.audited = not order.request.no_audit and run.real() is not None
        self.training = Training(run, order) if self.audited else None

    @classmethod
    def of(cls, run: Run, request: ExportRequest, device: str) -> PairFactory:
        """The factory of a request, after checking it. Raises: ConfigError or DataError if it cannot be sampled."""
        checkpoint = run.checkpoint
        weaker = None if request.guide is None else load_checkpoint(request.guide)
        order = order_of(checkpoint, request)
        check_guidance(checkpoint, [name for name, _ in order.classes], request.guidance, weaker)
        run.real()  # where the real dataset is here, it must be the one trained on
        masks = None
        if order.given_masks:
            masks = GivenMasks(run, order)
            order = dataclasses.replace(order, given_masks_sha256=folder_sha256(run, order))
        order = dataclasses.replace(order, guide_sha256="" if weaker is None else weaker.sha256)
        return cls(run, order, device, weaker, masks)

    def seconds(self, batches: Iterable[range]) -> float:
        """Estimated seconds for some batches, without redraws; calls the network."""
        order, request = self.order, self.order.request
        sizes = [(len(batch) * order.slices, order.canvas_size) for batch in batches]
        calls = evaluations(self.config, request, order.way)
        most = order.count * order.slices * windows(self.config, request, order.canvas_size)
        one = call_seconds(on_all_cores(self.drawer.denoiser), self.config, min(request.batch_size, most), self.device)
        return one * calls * network_calls(self.config, request, sizes)

    @property
    def judges(self) -> bool:
        """Whether the first pairs are compared with real ones; never with given masks, nor if told to go on anyway."""
        return not self.order.request.anyway and self.masks is None

    def batch(self, indices: range, *, judged: bool = False) -> list[tuple[Pair, dict[str, Any]]]:
        """The pairs with these case indices, and their manifest records.

        Args: judged: check that they look like real pairs.
        Raises: DataError if they do not, unless the request has `anyway`.
        """
        slices = self.order.slices
        if self.config.data.previous_slice:
            draws = self._slice_by_slice(indices)
        else:
            draws = self.plausible([index * slices + part for index in indices for part in range(slices)])
        if judged and self.judges:
            self._judge(draws[: self.order.request.batch_size], indices[0])
        return [self.case(index, draws[n * slices : (n + 1) * slices]) for n, index in enumerate(indices)]

    def _slice_by_slice(self, indices: range) -> list[_Draw]:
        """The slices of some volumes, those of one volume in a row; each slice is given the one before."""
        slices, before = self.order.slices, dict[int, np.ndarray]()
        made: dict[int, _Draw] = {}
        for part in range(slices):
            numbers = [index * slices + part for index in indices]
            made.update(zip(numbers, self.plausible(numbers, before), strict=True))
            before = {number + 1: made[number].x for number in numbers}
        return [made[number] for number in sorted(made)]

    def _judge(self, draws: list[_Draw], first: int) -> None:
        """Args: first: index of the case of the first draw."""
        readings = None
        if can_estimate_masks(self.config):
            places = [self._place(first + n // self.order.slices) for n in range(len(draws))]
            jobs = [
                Job(draw.x, np.zeros(draw.x.shape, bool), draw.seed, beside=place)
                for draw, place in zip(draws, places, strict=True)
            ]
            readings = [self.codec.decode(x)[1] for x in self.drawer.estimates(jobs)]
        problems = judge(self.config.facts, [self.codec.decode(draw.x) for draw in draws], readings)
        if problems:
            raise refusal(problems, self.run.checkpoint.metadata, len(draws))

    def plausible(self, wanted: list[int], before: Mapping[int, np.ndarray] | None = None) -> list[_Draw]:
        """Images or slices by number, all of one class, `batch_size` at a time; degenerate ones are redrawn.

        Args: before: encoded slices before those wanted, by the number of the latter.
        Raises: DataError if one is still degenerate after the last redraw.
        """
        made: dict[int, _Draw] = {}
        waiting, problem = wanted, ""
        for attempt in range(_MOST_ATTEMPTS):
            failed: list[int] = []
            seeds = [case_seed(self.order.request.seed, number, attempt) for number in waiting]
            for number, seed, sample in zip(waiting, seeds, self.samples(waiting, seeds, before or {}), strict=True):
                draw = _Draw(sample, *self.codec.decode(self.cut(number // self.order.slices, sample)), seed, attempt)
                found = self.real.problem(draw.label) if self.masks is None else None
                if found is None and self.training is not None and not self.order.request.keep_copies:
                    found = self.training.problem(draw.image)
                if found is None:
                    made[number] = self._tidied(draw)
                else:
                    failed.append(number)
                    problem = found
            waiting = failed
            if not waiting:
                return [made[number] for number in wanted]
        raise DataError(
            f"case {waiting[0] // self.order.slices} is refused in {_MOST_ATTEMPTS} draws: {problem}; expected new "
            "pairs like the real ones; train longer or on more cases, or increase --margin or give --keep-copies, and "
            "run again with --overwrite"
        )

    def _tidied(self, draw: _Draw) -> _Draw:
        """The draw without specks in its label: where the model is undecided, single pixels differ from all around."""
        label = without_specks(draw.label, 0 if self.masks is not None else self.config.facts.least_region)
        lost = len(np.unique(label)) < len(np.unique(draw.label))  # rather specks than no lesion
        noise = np.mean(label != draw.label) > _MOST_SPECKS
        return draw if lost or noise else dataclasses.replace(draw, label=label)

    def samples(
        self, numbers: list[int], seeds: list[int], before: Mapping[int, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Encoded samples (channels, *spatial) of images or slices; each depends only on its seed and number, and
        on the slice before, if that is given.
        """
        config, order = self.config, self.order
        channels = config.image_channels + config.mask_channels
        jobs = []
        for number, seed in zip(numbers, seeds, strict=True):
            case, part = divmod(number, order.slices)
            place = self._place(case)
            shape = (channels, *(order.canvas_size if place is None else place.shape[1:]))
            x, where = np.zeros(shape, np.float32), np.zeros((shape[0], *[1] * len(order.canvas_size)), bool)
            if self.masks is not None:
                x[config.image_channels :] = self.masks.encoded(number)
                where[config.image_channels :] = True
            position = 2 * part / max(order.slices - 1, 1) - 1 if config.data.previous_slice else None
            beside = (before or {}).get(number, place)
            jobs.append(Job(x, where, seed, order.class_of(case), position, beside))
        return self.drawer.samples(jobs, estimate=order.request.masks == "estimated")

    def cut(self, case: int, sample: np.ndarray) -> np.ndarray:
        """Crop a sample to the size of its given mask or else of a randomly drawn real case, at most the canvas."""
        if self.masks is not None:
            return self.masks.cut(sample, case)
        keep = [slice(None)]
        for side, want in zip(sample.shape[1:], self._window(case)[0], strict=True):
            start = max(side - want, 0) // 2
            keep.append(slice(start, start + min(side, want)))
        return sample[tuple(keep)]

    def _window(self, case: int) -> tuple[tuple[int, ...], Window]:
        """The real size that a pair gets, at most the canvas, and the part of such a case that is sampled."""
        rng, patch = np.random.default_rng(case_seed(self.order.request.seed, case, 0)), self.config.data.patch_size
        shape, window = drawn_window(self.config.facts, self.order.canvas_size, rng)
        # As in training, nothing is padded that is as large as a patch.
        ends = [min(along.stop, max(side, least)) for along, side, least in zip(window, shape, patch, strict=True)]
        return shape, tuple(slice(along.start, end) for along, end in zip(window, ends, strict=True))

    def _place(self, case: int) -> np.ndarray | None:
        """Coordinates of the voxels sampled for a case, (axes, *spatial), at most the canvas, for a network that takes
        them."""
        if not self.config.data.position:
            return None
        return coordinates(*self._window(case)) if self.masks is None else self.masks.place(case)

    def case(self, index: int, draws: list[_Draw]) -> tuple[Pair, dict[str, Any]]:
        """One image, or one volume of slices with the real cases' spacing and direction, and its manifest record."""
        facts, order, axis = self.config.facts, self.order, self.config.data.slice_axis
        spacing, geometry = facts.spacing, volume_geometry(facts)
        if axis is None:
            image, label = draws[0].image, draws[0].label
        else:
            image = np.stack([draw.image for draw in draws], axis + 1)
            label = np.stack([draw.label for draw in draws], axis)
            spacing = (*spacing[:axis], facts.slice_spacing, *spacing[axis:])
        shares = class_shares(label, facts.classes)
        record = {
            "case_id": f"{PREFIX}{index:06d}",
            "seed": draws[0].seed if axis is None else [draw.seed for draw in draws],
            "attempt": sum(draw.attempt for draw in draws),
            "checkpoint_sha256": self.run.checkpoint.sha256,
            "sampler": order.way.sampler,
            "steps": order.way.steps,
            "masks": order.request.masks,
            "foreground_share": {facts.labels[v]: round(float(s), 6) for v, s in enumerate(shares) if v > 0},
        }
        if self.masks is not None:
            record["mask_of"] = self.masks.source(index)
        if order.classes:
            record["class"] = order.class_of(index)
        return Pair(record["case_id"], image, label, spacing, geometry), record


def provenance(factory: PairFactory, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Provenance of a synthetic dataset; the trainers read the generator's case ids from it."""
    data = factory.config.data
    return {
        **origin(factory.run.checkpoint, factory.weaker),
        **factory.order.to_dict(),
        "whole_volumes": data.dims == 3 or (data.previous_slice and factory.order.slices > 1),
        "real_amount": real_amount(factory.config, factory.order.canvas_size),
        "judged": factory.judges,
        "audited": factory.audited,
        "redrawn": sum(record["attempt"] for record in records),
        "real_foreground_range": asdict(factory.real),
    }

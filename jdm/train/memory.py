"""Memory of a training step, found without allocating it, and the largest step that fits."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jdm.config.settings import Config
from jdm.data.pairs import condition_features, condition_length
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.loss import denoising_losses
from jdm.diffusion.model import build_denoiser
from jdm.errors import ConfigError
from jdm.plan.rules import Plan, Size

_RAM_SHARE = 1 / 3
_BUFFERS, _OVERHEAD = 200 * 2**20, 1.5
"""Of resident memory, beside and above what tensors hold: kernels' own buffers (results/volumes.md)."""
_FEWEST_VOXELS = 16**3
_COPIES = 3  # of the weights, beside themselves: two moments of Adam, and the moving average


def memory_target(config: Config, device: torch.device) -> int:
    """Bytes that a step may take: the setting, else the memory of the GPU, or a third of the machine's."""
    if config.train.memory_gigabytes is not None:
        return int(config.train.memory_gigabytes * 2**30)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return int(_RAM_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def step_bytes(config: Config) -> int:
    """Peak bytes of one training step of the default preset: weights, optimiser, activations, gradients, buffers.

    The step is run on tensors without memory (PyTorch's fake tensors), and the bytes that would be alive are counted.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), _Alive() as alive:
        denoiser = build_denoiser(config, condition_features(config.data.dims))
        assert isinstance(denoiser, Denoiser)
        parameters = list(denoiser.parameters())
        count, channels = config.train.batch_size, config.image_channels + config.mask_channels
        x0 = torch.zeros(count, channels, *config.data.patch_size)
        condition = torch.zeros(count, condition_length(config))
        beside = torch.zeros(count, config.beside_channels, *config.data.patch_size)
        losses = denoising_losses(denoiser, x0, torch.ones(count, 2), torch.zeros_like(x0), condition, beside)
        torch.autograd.grad(losses.mean(), parameters)  # kept alive while they are found, like all gradients
    held = alive.peak + _COPIES * sum(p.numel() * p.element_size() for p in parameters)
    return int(_BUFFERS + _OVERHEAD * held)


def fitted(size: Size, planned: Callable[[Size, bool], Plan], target: int) -> Size:
    """The size, or a smaller one, at which a step on volumes fits `target` bytes; of images, the size.

    First the batch becomes smaller, to 2; then activations are computed twice; then volumes become patches, or patches
    smaller.

    Args: planned: the plan of a size; without (False) the patch that was asked for.
    Raises: ConfigError if the patch that was asked for does not fit, with the one that does.
    """
    asked = planned(size, True).config
    if asked.data.dims == 2 or asked.preset == "thesis":
        return size
    needed, before = step_bytes(asked), asked
    if needed <= target:
        return size
    for patch_kept in (True, False):
        for smaller in _smaller(size, math.prod(asked.data.patch_size)):
            found = planned(smaller, patch_kept).config
            if found != before and step_bytes(found) <= target:
                if patch_kept:
                    return smaller
                fits = " ".join(map(str, found.data.patch_size))
                raise ConfigError(
                    f"a step on patches of {asked.data.patch_size} voxels takes {_gigabytes(needed)} of memory; "
                    f"expected at most {_gigabytes(target)} (train.memory_gigabytes); give --data.patch-size {fits}"
                )
            before = found
    raise ConfigError(
        f"the smallest step takes more than {_gigabytes(target)} of memory (train.memory_gigabytes); expected less; "
        "give --network.base-channels 16, or use a machine with more memory"
    )


def _smaller(size: Size, voxels: int) -> Iterator[Size]:
    while size.batch_size > 2:
        size = replace(size, batch_size=max(2, size.batch_size // 2))
        yield size
    size = replace(size, recompute=True)
    yield size
    while (voxels := int(0.7 * voxels)) >= _FEWEST_VOXELS:
        yield replace(size, voxels=voxels)


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2g} GiB"


class _Alive(TorchDispatchMode):
    """Counts the bytes of the storages that operations made and that are still referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

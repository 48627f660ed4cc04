"""Group normalisation, modulation and SiLU as one operation, with a gradient that is fast on a CPU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEWEST_POSITIONS = 1024
"""Pixels of a map from which this file's own gradient is faster than PyTorch's."""


def group_norm(width: int) -> nn.GroupNorm:
    """Group normalisation with 32 groups, or fewer so that each has at least four channels."""
    return nn.GroupNorm(math.gcd(32, max(1, width // 4)), width)


def norm_silu(norm: nn.GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """SiLU of norm(x) * (1 + scale) + shift.

    Args: x: (B, C, *spatial). scale, shift: (B, C), or both None for none.
    Returns: like x.
    """
    if x.device.type == "cpu" and x.requires_grad and math.prod(x.shape[2:]) >= _FEWEST_POSITIONS:
        gain, offset = norm.weight.expand(x.shape[:2]), norm.bias.expand(x.shape[:2])
        if scale is not None and shift is not None:
            gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
        return _NormSilu.apply(x, gain, offset, norm.num_groups, norm.eps)
    h = norm(x)
    if scale is not None and shift is not None:
        h = torch.addcmul(_per_pixel(shift, h), h, 1 + _per_pixel(scale, h))
    return F.silu(h)


def _per_pixel(values: Tensor, x: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, ...) in the dtype of x."""
    return values.to(x.dtype).reshape(*values.shape, *[1] * (x.ndim - 2))


class _NormSilu(torch.autograd.Function):
    """`norm_silu` with a gradient that passes over the map six times.

    PyTorch's gradient of group normalisation goes through a channels-last map channel by channel. For (8, 32, 64, 64)
    in bf16 it takes 8.4 ms, this one 2.5 ms: a fifth of a training step less. Only complete sums are rounded to the
    dtype of x; later steps use at least fp32.
    """

    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
        batch, width, positions = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        normal, _, inverse_std = torch.native_group_norm(x, None, None, batch, width, positions, groups, eps)
        h = torch.addcmul(_per_pixel(offset, x), normal, _per_pixel(gain, x))
        ctx.save_for_backward(normal, h, gain, inverse_std)
        return F.silu(h)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normal, h, gain, inverse_std = ctx.saved_tensors
        dh = torch.ops.aten.silu_backward(gradients[0], h)
        width, groups, spatial = normal.shape[1], inverse_std.shape[1], tuple(range(2, normal.ndim))
        wide = torch.promote_types(normal.dtype, torch.float32)
        d_offset = dh.sum(spatial).to(wide)  # (B, C)
        d_gain = (dh * normal).sum(spatial).to(wide)

        def mean_of_group(sums: Tensor) -> Tensor:  # (B, C) -> the mean over the group's pixels, (B, C)
            means = (sums * gain).unflatten(1, (groups, -1)).sum(-1) / (width // groups * math.prod(normal.shape[2:]))
            return means.repeat_interleave(width // groups, dim=1)

        # dx = inverse_std * (gain * dh - mean(gain * dh) - normal * mean(gain * dh * normal))
        inverse_std = inverse_std.to(wide).repeat_interleave(width // groups, dim=1)
        constant, slope = -inverse_std * mean_of_group(d_offset), -inverse_std * mean_of_group(d_gain)
        dx = torch.addcmul(_per_pixel(constant, dh), normal, _per_pixel(slope, dh))
        dx = torch.addcmul(dx, dh, _per_pixel(inverse_std * gain, dh))
        return dx, d_gain.to(gain.dtype), d_offset.to(gain.dtype), None, None

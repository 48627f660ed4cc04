"""The denoising network: one U-Net for images and volumes.

The architecture is that of Nichol & Dhariwal 2021 (arXiv:2102.09672), so that weights trained with theirs can be
imported (`jdm.train.imported_weights`). It differs in its inputs: any number of noise levels a sample and, optionally,
a condition vector and a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jdm.config.levels import Level, even_levels, multiples
from jdm.config.settings import NetworkConfig
from jdm.diffusion.normalization import group_norm, norm_silu
from jdm.errors import ConfigError


class UNet(nn.Module):
    """U-Net over (B, in_channels, *spatial) with residual blocks, self-attention and per-sample noise levels.

    Args:
        grids: kernels and strides of each level; None: three taps, and every axis of an image halved.
        levels: noise levels of each sample (2: image and mask; 1: the step of a variance-preserving process).
        condition_features: length of the condition vector without the class; 0: none.
        classes: classes of whole cases that the network can be conditioned on.
        bf16: compute in bfloat16 by autocast; weights, input and output stay float32.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        network: NetworkConfig,
        grids: Sequence[Level] | None = None,
        levels: int = 2,
        condition_features: int = 0,
        classes: int = 0,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        base, multipliers = network.base_channels, network.channel_multipliers
        if base % 4:
            raise ConfigError(f"setting network.base_channels is {base}; expected a multiple of 4; change it")
        grids = grids or even_levels(2, len(multipliers) - 1)
        self.dims, self.bf16, self.multiples = len(grids[0].kernel), bf16, multiples(grids)
        self.recompute, self.random = network.recompute, network.dropout > 0
        self.embedding = LevelEmbedding(base, levels, condition_features, classes)

        def block(width_in: int, width_out: int, level: int) -> nn.Module:
            return ResidualBlock(width_in, width_out, 4 * base, grids[level].kernel, network.dropout)

        def attention(width: int, level: int) -> list[nn.Module]:
            attended = 2**level in network.attention_factors
            return [SelfAttention(width, network.attention_heads)] if attended else []

        width = base * multipliers[0]
        self.down = nn.ModuleList([Stage(_conv(in_channels, width, grids[0].kernel))])
        skips = [width]
        for level, multiplier in enumerate(multipliers):
            for _ in range(network.blocks_per_level):
                self.down.append(Stage(block(width, base * multiplier, level), *attention(base * multiplier, level)))
                width = base * multiplier
                skips.append(width)
            if level < len(multipliers) - 1:
                self.down.append(Stage(Downsample(width, grids[level].stride)))
                skips.append(width)
        deepest = len(multipliers) - 1
        attended = SelfAttention(width, network.attention_heads)
        self.middle = Stage(block(width, width, deepest), attended, block(width, width, deepest))
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for index in range(network.blocks_per_level + 1):
                parts = [block(width + skips.pop(), base * multiplier, level), *attention(base * multiplier, level)]
                width = base * multiplier
                if level > 0 and index == network.blocks_per_level:
                    parts.append(Upsample(width, grids[level - 1].stride))
                self.up.append(Stage(*parts))
        self.out_norm = group_norm(width)
        self.out_conv = _zero(_conv(width, out_channels, grids[0].kernel))

    def forward(self, x: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
        """Args:
            x: (B, in_channels, *spatial); each side a multiple of that of `self.multiples`.
            levels: (B, levels), positions for the sinusoids, of order 1 to 1000.
            condition: (B, condition_features). A network with classes expects one more column, the last: the class's
                number from 1, or 0 for no class. None: all zeros.

        Returns: (B, out_channels, *spatial).
        Raises: ConfigError if a side is not such a multiple.
        """
        if any(side % factor for side, factor in zip(x.shape[2:], self.multiples, strict=True)):
            raise ConfigError(
                f"sample of {'x'.join(map(str, x.shape[2:]))} pixels does not fit the network; "
                f"expected sides that are multiples of {'x'.join(map(str, self.multiples))}; change data.patch_size"
            )
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self._denoise(x, levels, condition).to(x.dtype)

    def _denoise(self, x: Tensor, levels: Tensor, condition: Tensor | None) -> Tensor:
        if self.dims == 2:
            x = x.contiguous(memory_format=torch.channels_last)
        embedding = self.embedding(levels, condition)  # (B, 4 base)
        skips = []
        for stage in self.down:
            x = self._run(stage, x, embedding)
            skips.append(x)
        x = self._run(self.middle, x, embedding)
        for stage in self.up:
            x = self._run(stage, torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out_conv(norm_silu(self.out_norm, x))

    def _run(self, stage: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(stage, x, embedding, use_reentrant=False, preserve_rng_state=self.random)  # pyright: ignore
        return stage(x, embedding)


class Stage(nn.Module):
    """Blocks in sequence; residual blocks also get the embedding of the noise levels."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding) if isinstance(block, ResidualBlock) else block(x)
        return x


class LevelEmbedding(nn.Module):
    """Noise levels (B, levels) and a condition to one vector (B, 4 base).

    Source: sinusoids as in Ho et al. 2020, cosines first. The condition is mapped linearly without a bias, so that
    zeros mean "none" (Karras et al. 2022, appendix F.2). A class adds its row of a table to the result, as in Nichol &
    Dhariwal 2021; the last row is for no class.
    """

    def __init__(self, base: int, levels: int, condition_features: int, classes: int = 0) -> None:
        super().__init__()
        self.base = base
        self.linear1 = nn.Linear(levels * base, 4 * base)
        self.linear2 = nn.Linear(4 * base, 4 * base)
        self.condition = nn.Linear(condition_features, levels * base, bias=False) if condition_features else None
        self.condition_features = condition_features
        self.classes = nn.Embedding(classes + 1, 4 * base) if classes else None

    def forward(self, levels: Tensor, condition: Tensor | None) -> Tensor:
        features = sinusoids(levels.float(), self.base).flatten(1)  # (B, levels * base)
        if self.condition is not None and condition is not None:
            features = features + self.condition(condition[:, : self.condition_features])
        embedding = self.linear2(F.silu(self.linear1(features)))
        if self.classes is None:
            return embedding
        number = torch.zeros_like(levels[:, 0]) if condition is None else condition[:, -1]
        return embedding + self.classes((number.long() - 1) % self.classes.num_embeddings)


def sinusoids(positions: Tensor, features: int, longest: float = 10_000.0) -> Tensor:
    """Cosines and sines of `positions` at geometrically spaced frequencies from 1 down to 1 / longest.

    Returns: (*positions.shape, features), cosines in the first half.
    """
    half = features // 2
    frequencies = torch.exp(-math.log(longest) * torch.arange(half, device=positions.device) / half)
    angles = positions[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResidualBlock(nn.Module):
    """Two convolutions; the embedding gives the scale and shift between them (Nichol & Dhariwal 2021)."""

    def __init__(self, width_in: int, width_out: int, embedding: int, kernel: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in)
        self.conv1 = _conv(width_in, width_out, kernel)
        self.modulation = nn.Linear(embedding, 2 * width_out)
        self.norm2 = group_norm(width_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(_conv(width_out, width_out, kernel))
        flat = (1,) * len(kernel)
        self.skip = _conv(width_in, width_out, flat) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(norm_silu(self.norm1, x))
        scale, shift = self.modulation(F.silu(embedding)).chunk(2, dim=1)  # each (B, width_out)
        return self.skip(x) + self.conv2(self.dropout(norm_silu(self.norm2, h, scale, shift)))


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over all pixels.

    The output of the projection is laid out as (heads, 3, width / heads), the order in which improved-diffusion's
    checkpoints have queries, keys and values.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"setting network.attention_heads is {heads}; expected a divisor of {width} channels; change it"
            )
        self.heads = heads
        self.norm = group_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = _zero(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, width)
        qkv = self.qkv(tokens).unflatten(-1, (self.heads, 3, width // self.heads))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each (B, heads, N, width / heads)
        mixed = _attend(q, k, v).transpose(1, 2).flatten(2)  # (B, N, width)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention over (B, heads, N, width), on a CPU in fp32.

    On a CPU the bf16 kernel takes 1.6 (N = 256) to 4 (N = 64) times as long as the fp32 one, gradient included.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float())


class Downsample(nn.Module):
    """Halve some sides, those of stride 2, by a strided convolution with three taps along them."""

    def __init__(self, width: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = _conv(width, width, tuple(2 * step - 1 for step in stride), stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double some sides, those of stride 2, by nearest neighbours, then convolve with three taps along them.

    Both are computed as one transposed convolution. After nearest neighbours two of the three taps along an axis meet
    the same value; they are summed first. That leaves two taps an axis, and the enlarged map is never built.
    """

    def __init__(self, width: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.conv = _conv(width, width, tuple(2 * step - 1 for step in stride))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.conv.weight.transpose(0, 1)  # (in, out, 3, ...)
        for axis, step in enumerate(self.stride, 2):
            if step == 2:
                left, middle, right = kernel.unbind(axis)
                kernel = torch.stack([right, middle + right, left + middle, left], dim=axis)  # (in, out, 4, ...)
        transposed = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        return transposed(x, kernel, self.conv.bias, stride=self.stride, padding=[step - 1 for step in self.stride])


def _conv(
    width_in: int, width_out: int, kernel: tuple[int, ...], stride: tuple[int, ...] | int = 1
) -> nn.Conv2d | nn.Conv3d:
    """A convolution, padded so that only the stride changes the sides."""
    kind = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
    return kind(width_in, width_out, kernel, stride, padding=tuple(taps // 2 for taps in kernel))  # pyright: ignore


def _zero(module: nn.Module) -> nn.Module:
    """The module with all weights zero, so that residual blocks start as the identity and the network as zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module

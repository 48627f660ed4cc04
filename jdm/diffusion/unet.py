"""The denoising network: one U-Net for images and volumes.

The architecture is that of Nichol & Dhariwal 2021 (arXiv:2102.09672), so that weights trained with theirs can be
imported (`jdm.train.imported_weights`). It differs in its inputs: any number of noise levels a sample and, optionally,
a condition vector and a class.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jdm.config.settings import NetworkConfig
from jdm.diffusion.normalization import group_norm, norm_silu
from jdm.errors import ConfigError

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class UNet(nn.Module):
    """U-Net over (B, in_channels, *spatial) with residual blocks, self-attention and per-sample noise levels.

    Args:
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
        dims: int = 2,
        levels: int = 2,
        condition_features: int = 0,
        classes: int = 0,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        base, multipliers = network.base_channels, network.channel_multipliers
        if base % 4:
            raise ConfigError(f"setting network.base_channels is {base}; expected a multiple of 4; change it")
        self.dims, self.bf16 = dims, bf16
        self.multiple = 2 ** (len(multipliers) - 1)
        self.embedding = LevelEmbedding(base, levels, condition_features, classes)

        def block(width_in: int, width_out: int) -> nn.Module:
            return ResidualBlock(width_in, width_out, 4 * base, dims, network.dropout)

        def attention(width: int, level: int) -> list[nn.Module]:
            attended = 2**level in network.attention_factors
            return [SelfAttention(width, network.attention_heads)] if attended else []

        width = base * multipliers[0]
        self.down = nn.ModuleList([Stage(_CONV[dims](in_channels, width, 3, padding=1))])
        skips = [width]
        for level, multiplier in enumerate(multipliers):
            for _ in range(network.blocks_per_level):
                self.down.append(Stage(block(width, base * multiplier), *attention(base * multiplier, level)))
                width = base * multiplier
                skips.append(width)
            if level < len(multipliers) - 1:
                self.down.append(Stage(Downsample(width, dims)))
                skips.append(width)
        self.middle = Stage(block(width, width), SelfAttention(width, network.attention_heads), block(width, width))
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for index in range(network.blocks_per_level + 1):
                parts = [block(width + skips.pop(), base * multiplier), *attention(base * multiplier, level)]
                width = base * multiplier
                if level > 0 and index == network.blocks_per_level:
                    parts.append(Upsample(width, dims))
                self.up.append(Stage(*parts))
        self.out_norm = group_norm(width)
        self.out_conv = _zero(_CONV[dims](width, out_channels, 3, padding=1))

    def forward(self, x: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
        """Args:
            x: (B, in_channels, *spatial); each side a multiple of `self.multiple`.
            levels: (B, levels), positions for the sinusoids, of order 1 to 1000.
            condition: (B, condition_features). A network with classes expects one more column, the last: the class's
                number from 1, or 0 for no class. None: all zeros.

        Returns: (B, out_channels, *spatial).
        Raises: ConfigError if a side is not such a multiple.
        """
        if any(side % self.multiple for side in x.shape[2:]):
            raise ConfigError(
                f"sample of {'x'.join(map(str, x.shape[2:]))} pixels does not fit the network; "
                f"expected sides that are multiples of {self.multiple}; change data.patch_size"
            )
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self._denoise(x, levels, condition).to(x.dtype)

    def _denoise(self, x: Tensor, levels: Tensor, condition: Tensor | None) -> Tensor:
        if self.dims == 2:
            x = x.contiguous(memory_format=torch.channels_last)
        embedding = self.embedding(levels, condition)  # (B, 4 base)
        skips = []
        for stage in self.down:
            x = stage(x, embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for stage in self.up:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out_conv(norm_silu(self.out_norm, x))


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

    def __init__(self, width_in: int, width_out: int, embedding: int, dims: int, dropout: float) -> None:
        super().__init__()
        conv = _CONV[dims]
        self.norm1 = group_norm(width_in)
        self.conv1 = conv(width_in, width_out, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width_out)
        self.norm2 = group_norm(width_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(conv(width_out, width_out, 3, padding=1))
        self.skip = conv(width_in, width_out, 1) if width_in != width_out else nn.Identity()

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
    """Halve every side by a strided convolution."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.conv = _CONV[dims](width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double every side by nearest neighbours, then convolve with three taps an axis.

    Both are computed as one transposed convolution. After nearest neighbours two of the three taps along an axis meet
    the same value; they are summed first. That leaves two taps an axis, and the enlarged map is never built.
    """

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.conv = _CONV[dims](width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.conv.weight.transpose(0, 1)  # (in, out, 3, ...)
        for axis in range(2, x.ndim):
            left, middle, right = kernel.unbind(axis)
            kernel = torch.stack([right, middle + right, left + middle, left], dim=axis)  # (in, out, 4, ...)
        transposed = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        return transposed(x, kernel, self.conv.bias, stride=2, padding=1)


def _zero(module: nn.Module) -> nn.Module:
    """The module with all weights zero, so that residual blocks start as the identity and the network as zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module

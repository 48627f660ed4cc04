"""CPU time of one training step of jdm's U-Net and, if diffusers is installed, of its U-Net of the same size.

Both take 64 px, 4 channels in and out, 32 channels times 1, 2, 2, 4, two blocks per level, attention at 16 and 8 px,
batch 8, and run a forward pass, a mean square error, a backward pass and a fused AdamW step on one thread. They take
turns, so that a slowdown of the machine affects all of them.

  python scripts/step_time.py --steps 20 > results/step_time.json
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
import tyro
from shared import about
from torch import Tensor, nn

from jdm.config.settings import NetworkConfig
from jdm.diffusion.unet import UNet

SIDE, BATCH, CHANNELS, BASE, MULTIPLIERS, BLOCKS = 64, 8, 4, 32, (1, 2, 2, 4), 2
ATTENTION = (4, 8)  # downsampling factors: 16 and 8 px


def ours(bf16: bool) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """jdm's network and its forward pass."""
    config = NetworkConfig(BASE, MULTIPLIERS, BLOCKS, ATTENTION, 4)
    network = UNet(CHANNELS, CHANNELS, config, levels=2, bf16=bf16).to(memory_format=torch.channels_last)
    levels = torch.full((BATCH, 2), 100.0)
    return network, lambda x: network(x, levels)


def theirs(layout: torch.memory_format) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """diffusers' network and its forward pass in bf16 autocast. Raises: ImportError."""
    from diffusers import UNet2DModel

    attended = [2**level in ATTENTION for level in range(len(MULTIPLIERS))]
    network = UNet2DModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        layers_per_block=BLOCKS,
        block_out_channels=tuple(BASE * multiplier for multiplier in MULTIPLIERS),
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attended),
        up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attended)),
        attention_head_dim=16,
    ).to(memory_format=layout)
    steps = torch.full((BATCH,), 100)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(x, steps).sample

    return network, forward


def stepper(network: nn.Module, forward: Callable[[Tensor], Tensor]) -> Callable[[], float]:
    """A function that runs one training step and returns its CPU seconds."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x, target = torch.randn(2, BATCH, CHANNELS, SIDE, SIDE)

    def step() -> float:
        start = time.process_time()
        loss = F.mse_loss(forward(x).float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return time.process_time() - start

    return step


def main(steps: int = 20, warm_up: int = 3) -> None:
    """CPU time of a training step of jdm's and of diffusers' U-Net, as JSON.

    Args:
        steps: Timed steps per network; the median is reported.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    contestants = {"jdm bf16": ours(True), "jdm fp32": ours(False)}
    try:
        contestants["diffusers bf16"] = theirs(torch.contiguous_format)
        contestants["diffusers bf16, channels last"] = theirs(torch.channels_last)
    except ImportError:
        print("diffusers is not installed, so it is left out; type: pip install diffusers", file=sys.stderr)
    timed = {name: stepper(*parts) for name, parts in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(warm_up + steps):
        for name, step in timed.items():
            seconds = step()
            if turn >= warm_up:
                times[name].append(1000 * seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        **about(),
        "threads": 1,
        "n": steps,
        "median_ms": {name: round(value, 1) for name, value in medians.items()},
        "quartiles_ms": {
            name: [round(value, 1) for value in statistics.quantiles(values, n=4)[::2]]
            for name, values in times.items()
        },
        "parameters": {name: sum(p.numel() for p in parts[0].parameters()) for name, parts in contestants.items()},
        "ratio_to_jdm_bf16": {name: round(value / medians["jdm bf16"], 3) for name, value in medians.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    tyro.cli(main)

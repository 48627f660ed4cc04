"""CPU time of jdm's U-Net beside those of other libraries, of the same shape: a training step, and an evaluation.

All take images of 4 channels, with 32 channels times 1, 2, 2, 4, two blocks per level, attention at the two coarsest.
A training step is a forward pass, a mean square error, a backward pass and a fused AdamW step; an evaluation is a
forward pass without gradients, what a sampler repeats. Everything runs on one thread, in a new random order every turn,
so that a slowdown of the machine affects all. Each library is judged in its faster memory layout (jdm chooses its own).
Two medians that differ by less than 8 % are a tie.

pip install '.[peers]'
git clone https://github.com/openai/improved-diffusion
python scripts/step_time.py --folders improved-diffusion --out results
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
import tyro
from shared import about
from torch import Tensor, nn
from tqdm import tqdm

from jdm.cli import run_command
from jdm.config.settings import NetworkConfig
from jdm.diffusion.unet import UNet
from jdm.system.files import write_json, write_text

CHANNELS, BASE, MULTIPLIERS, BLOCKS, ATTENDED, HEADS = 4, 32, (1, 2, 2, 4), 2, (False, False, True, True), 4
TIE = 0.08
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
Peer = Literal["diffusers", "MONAI", "improved-diffusion", "denoising-diffusion-pytorch"]
Network = tuple[nn.Module, Callable[[Tensor], Tensor]]
"""A network, and its forward pass (B, CHANNELS, side, side) -> same at some noise level."""


@dataclass(frozen=True)
class Options:
    """Time a training step and an evaluation of jdm's U-Net and of those of other libraries, on one CPU thread."""

    out: Path
    """Folder for step_time.json and step_time.md."""
    peers: tuple[Peer, ...] = ("diffusers", "MONAI", "improved-diffusion", "denoising-diffusion-pytorch")
    """Libraries to compare with. Those that are not installed are left out, by name."""
    folders: tuple[Path, ...] = ()
    """Folders to import libraries from, such as a checkout of improved-diffusion."""
    steps: int = 10
    """Timed turns; medians are reported."""
    side: int = 64
    """Side of the images in pixels, a multiple of 8."""
    batch: int = 8
    """Images per step."""


def ours(bf16: bool, batch: int) -> Network:
    factors = tuple(2**level for level, here in enumerate(ATTENDED) if here)
    config = NetworkConfig(BASE, MULTIPLIERS, BLOCKS, factors, HEADS)
    network = UNet(CHANNELS, CHANNELS, config, levels=2, bf16=bf16).to(memory_format=torch.channels_last)
    levels = torch.full((batch, 2), 100.0)
    return network, lambda x: network(x, levels)


def theirs(peer: Peer, side: int) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """A library's network, and what takes the tensor from its output. Raises: ImportError."""
    widths = tuple(BASE * multiplier for multiplier in MULTIPLIERS)
    if peer == "diffusers":
        from diffusers import UNet2DModel

        kinds = ["AttnDownBlock2D" if here else "DownBlock2D" for here in ATTENDED]
        network = UNet2DModel(
            sample_size=side, in_channels=CHANNELS, out_channels=CHANNELS, layers_per_block=BLOCKS,
            block_out_channels=widths, down_block_types=tuple(kinds),
            up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
            attention_head_dim=widths[2] // HEADS,
        )  # fmt: skip
        return network, lambda found: found.sample
    if peer == "MONAI":
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        network = DiffusionModelUNet(
            2, CHANNELS, CHANNELS, num_res_blocks=BLOCKS, channels=widths, attention_levels=ATTENDED,
            num_head_channels=[width // HEADS for width in widths],
        )  # fmt: skip
    elif peer == "improved-diffusion":
        from improved_diffusion.unet import UNetModel

        attended = [2**level for level, here in enumerate(ATTENDED) if here]
        network = UNetModel(CHANNELS, BASE, CHANNELS, BLOCKS, attended, channel_mult=MULTIPLIERS, num_heads=HEADS)
    else:
        from denoising_diffusion_pytorch import Unet

        # the levels without attention have its linear attention, which cannot be switched off
        network = Unet(
            BASE, channels=CHANNELS, dim_mults=MULTIPLIERS, full_attn=ATTENDED, attn_heads=HEADS,
            attn_dim_head=tuple(width // HEADS for width in widths),
        )  # fmt: skip
    return network, lambda found: found


def contestants(options: Options) -> tuple[dict[tuple[str, str, str], Network], list[str]]:
    """Networks by library, precision and layout, and the libraries that are not installed."""
    sys.path[:0] = [str(folder.resolve()) for folder in options.folders]
    found, absent = {}, []
    for precision in ("bf16", "fp32"):
        found["jdm", precision, "its own"] = ours(precision == "bf16", options.batch)
    for peer in options.peers:
        try:
            for precision in ("bf16", "fp32"):
                for layout, memory in LAYOUTS.items():
                    network, tensor = theirs(peer, options.side)
                    forward = _forward(network.to(memory_format=memory), tensor, precision == "bf16", memory)
                    found[peer, precision, layout] = network, forward
        except ImportError as error:
            print(f"{peer} is left out: {error}; install it, or name its folder with --folders", file=sys.stderr)
            absent.append(peer)
    return found, absent


def _forward(
    network: nn.Module, tensor: Callable[[Any], Tensor], bf16: bool, memory: torch.memory_format
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return tensor(network(x.contiguous(memory_format=memory), torch.full((len(x),), 100)))

    return forward


def timers(network: Network, options: Options) -> dict[str, Callable[[], None]]:
    """What is timed: a training step and an evaluation."""
    module, forward = network
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    x, target = torch.randn(2, options.batch, CHANNELS, options.side, options.side)

    def train() -> None:
        loss = F.mse_loss(forward(x).float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return {"train": train, "evaluate": torch.no_grad()(lambda: forward(x))}


def measured(networks: Mapping[tuple[str, str, str], Network], options: Options) -> list[dict[str, Any]]:
    """Median and quartiles in ms of CPU time of each network and task, in random order in every turn."""
    tasks = {
        (*name, task): function
        for name, network in networks.items()
        for task, function in timers(network, options).items()
    }
    times: dict[tuple[str, ...], list[float]] = {name: [] for name in tasks}
    order, rng = list(tasks), random.Random(0)
    for turn in tqdm(range(-2, options.steps), desc="turns", disable=None):
        rng.shuffle(order)
        for name in order:
            began = time.process_time()
            tasks[name]()
            if turn >= 0:
                times[name].append(1000 * (time.process_time() - began))
    parameters = {name: sum(p.numel() for p in network.parameters()) for name, (network, _) in networks.items()}
    return [
        {
            "library": name[0], "precision": name[1], "layout": name[2], "task": name[3],
            "median_ms": statistics.median(values),
            "quartiles_ms": statistics.quantiles(values, n=4)[::2] if len(values) > 1 else [*values, *values],
            "parameters": parameters[name[:3]],
        }
        for name, values in times.items()
    ]  # fmt: skip


def verdict(own: float, other: float) -> str:
    """How a time compares with that of another library."""
    ratio = other / own
    if max(ratio, 1 / ratio) < 1 + TIE:
        return "tie"
    return f"jdm {ratio:.2f} times as fast" if ratio > 1 else f"{1 / ratio:.2f} times as fast as jdm"


def page(content: Mapping[str, Any]) -> str:
    """A table for each task."""
    lines = [
        "# Time of a training step and of an evaluation", "",
        f"{content['batch']} images of {content['side']} px and {CHANNELS} channels, one thread, n = {content['n']}",
        "turns in random order: median (quartiles) of the CPU time in ms. Each library in its faster layout; less",
        "than 8 % is a tie.", "",
    ]  # fmt: skip
    for task, title in (("train", "Training step"), ("evaluate", "Evaluation without gradients")):
        lines += [
            f"## {title}",
            "",
            "| library | parameters | bf16, ms | | fp32, ms | |",
            "|---|---:|---:|---|---:|---|",
        ]
        rows = [row for row in content["rows"] if row["task"] == task]
        fastest = {
            (library, precision): min(
                (row for row in rows if (row["library"], row["precision"]) == (library, precision)),
                key=lambda row: row["median_ms"],
            )
            for library in dict.fromkeys(row["library"] for row in rows)
            for precision in ("bf16", "fp32")
        }
        for library in dict.fromkeys(row["library"] for row in rows):
            cells = []
            for precision in ("bf16", "fp32"):
                row, own = fastest[library, precision], fastest["jdm", precision]
                low, high = row["quartiles_ms"]
                told = "" if library == "jdm" else verdict(own["median_ms"], row["median_ms"])
                cells += [f"{row['median_ms']:.0f} ({low:.0f} to {high:.0f}), {row['layout']}", told]
            lines.append(f"| {library} | {fastest[library, 'bf16']['parameters']:,} | {' | '.join(cells)} |")
        lines.append("")
    if content["absent"]:
        lines += [f"Not installed, so left out: {', '.join(content['absent'])}.", ""]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines += [f"`{content['command']}` at commit {content['commit']}; {content['hardware']}; {versions}.", ""]
    return "\n".join(lines)


def versions(options: Options) -> dict[str, str]:
    """Versions of the installed libraries, and commits of the folders that are checkouts."""
    found = {}
    for peer in options.peers:
        with contextlib.suppress(PackageNotFoundError):
            found[peer] = version(peer.lower())
    for folder in options.folders:
        asked = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[folder.resolve().name] = done.stdout.strip()
    return found


def main(options: Options) -> None:
    """Time everything, and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks, absent = contestants(options)
    content = {
        **about(), "threads": 1, "n": options.steps, "side": options.side, "batch": options.batch,
        "versions": versions(options), "absent": absent, "rows": measured(networks, options),
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "step_time.json", content)
    write_text(options.out / "step_time.md", page(content))
    print(page(content))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))

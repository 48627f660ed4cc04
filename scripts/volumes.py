"""results/volumes.md: time and memory of a training step on volumes of several sides.

python scripts/volumes.py results/volumes.md --most-seconds 120
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import tyro

from jdm.config.facts import Fingerprint, Foreground
from jdm.config.settings import Config
from jdm.data.pairs import condition_features, condition_length
from jdm.diffusion.model import build_denoiser
from jdm.evaluation.tables import Table, table_markdown
from jdm.plan.rules import Machine, Size, plan
from jdm.system.machine import describe_run
from jdm.train.memory import fitted, step_bytes
from jdm.train.objective import loss_and_gradients, step_generator

SIDES = (32, 64, 96, 128, 160)
GPUS = (24, 80)
_USABLE = 0.9
"""Of a GPU's memory; the rest is the driver's and fragments."""


def facts(side: int) -> Fingerprint:
    """Volumes of a cube, one channel and one class."""
    cube = (side,) * 3
    return Fingerprint(
        channel_names=("CT",), labels=("background", "organ"), file_ending=".nii.gz", dtype="int16", low=(-1000.0,),
        high=(1000.0,), image_mean=(0.0,), image_std=0.5, class_shares=(0.9, 0.1), spacing=(1.0,) * 3,
        sizes=((cube, 1, 100),), image_axes=((1.0,),), image_bands=((0.1,) * 64,),
        foreground=(Foreground(cube, (0.0, 0.0), (1.0, 1.0)),),
    )  # fmt: skip


def config_of(side: int, batch: int, width: int = 48, recompute: bool = False) -> Config:
    size = Size(width, 1 if width == 48 else 2, batch, voxels=side**3, recompute=recompute)
    return plan(facts(side), size, Machine("cpu", "bf16")).config


def measured(side: int, batch: int, recompute: bool) -> dict[str, float]:
    """Seconds and resident bytes of one step, the second of two, in this process."""
    config = config_of(side, batch, recompute=recompute)
    before = _resident()
    denoiser = build_denoiser(config, condition_features(3))
    optimizer = torch.optim.AdamW(denoiser.parameters(), fused=True)
    x0 = torch.randn(batch, 2, *config.data.patch_size)
    seconds = 0.0
    for step in range(2):
        started = time.process_time()
        condition = torch.zeros(batch, condition_length(config))
        loss_and_gradients(denoiser, x0, condition, config, step_generator(0, 0, step, torch.device("cpu")))
        optimizer.step()
        seconds = time.process_time() - started
    return {"seconds": seconds, "bytes": _resident() - before}


def _resident() -> int:
    """Most resident memory of this process so far, bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def row(side: int, batch: int, recompute: bool, most_seconds: float) -> tuple[str, ...]:
    """A line of the table: measured in a process of its own, where that ends in time."""
    config = config_of(side, batch, recompute=recompute)
    found = None
    try:
        words = [sys.executable, __file__, "--one", str(side), str(batch), str(int(recompute))]
        done = subprocess.run(words, capture_output=True, text=True, timeout=most_seconds, check=True)
        found = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        pass
    network = config.network
    return (
        f"{side}", f"{batch}", "yes" if recompute else "no",
        f"{network.haar_levels}, {len(network.channel_multipliers)}",
        "" if found is None else f"{found['seconds']:.1f} s",
        "" if found is None else f"{found['bytes'] / 2**30:.2f} GiB",
        f"{step_bytes(config) / 2**30:.2f} GiB",
    )  # fmt: skip


def on_gpu(gigabytes: int) -> str:
    """What the plan's rule gives for a GPU of so much memory."""
    target = int(_USABLE * gigabytes * 2**30)
    lines = []
    for side in (128, 160, 256):

        def planned(size: Size, _: bool, side: int = side):
            return plan(facts(side), dataclasses.replace(size, voxels=size.voxels or side**3), Machine("cuda"))

        size = fitted(Size(128, 2, 16), planned, target)
        config = planned(size, True).config
        patch = "x".join(map(str, config.data.patch_size))
        again = ", activations computed twice" if config.network.recompute else ""
        need = step_bytes(config) / 2**30
        lines.append(f"{side} a side: patch {patch}, batch {config.train.batch_size}{again}, {need:.1f} GiB")
    return f"**{gigabytes} GB** (widest network, 128 channels, 2 blocks a level; computed): {'; '.join(lines)}."


def main(out: Path, /, *, most_seconds: float = 120.0, batches: tuple[int, ...] = (2, 4)) -> None:
    """Write the page. Args: most_seconds: of one measurement; longer ones are left empty, only computed."""
    rows = [row(side, batch, False, most_seconds) for side in SIDES for batch in batches]
    rows += [row(side, 2, True, most_seconds) for side in SIDES[2:]]
    header = ("side", "batch", "recomputed", "wavelets, levels", "CPU time", "memory, measured", "memory, by the rule")
    run = describe_run()
    text = "\n\n".join(
        [
            "# A training step on volumes",
            "48 channels, one block a level, bf16, one thread, one channel and one class. Measured: processor time of "
            "the second step, and by how much two steps raise the most resident memory of a process. Empty: not "
            f"finished in {most_seconds:.0f} s.",
            table_markdown(Table("Time and memory of a step", header, tuple(rows))),
            "**The rule** (`jdm/train/memory.py`): run the step on tensors without memory, count what would be alive, "
            "add weights, Adam's moments and the average; times 1.5, plus 0.2 GiB, for the buffers of kernels. A step "
            "that does not fit `--train.memory-gigabytes` (by default the GPU's memory, or a third of the RAM) gets a "
            "smaller batch, down to 2; then activations are computed twice; then volumes are trained as patches, or "
            "smaller ones.",
            *map(on_gpu, GPUS),
            f"`{run.command}` at {run.commit}, {run.hardware}.",
        ]
    )  # fmt: skip
    out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        side, batch, recompute = map(int, sys.argv[2:5])
        print(json.dumps(measured(side, batch, bool(recompute))))
    else:
        tyro.cli(main)

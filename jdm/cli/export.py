"""jdm-export: synthetic pairs as a new nnU-Net raw dataset."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

import tyro

from jdm.cli import run_command, with_fold
from jdm.config.command import checked
from jdm.export.request import ExportRequest, shard_of

if TYPE_CHECKING:
    from jdm.draw.run import Run
    from jdm.export.choice import Judge


def _judge(run: Run) -> Judge:
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    from nnunet_integration.teacher import judge_of

    return judge_of(run)


def main() -> None:
    run_command(_run, tuned_memory=True)


def _run() -> None:
    words = with_fold(sys.argv[1:])
    request = tyro.cli(ExportRequest, prog="jdm-export", args=words)
    request = checked(request)
    from jdm.draw.cost import estimate_line
    from jdm.draw.run import open_run
    from jdm.export.dataset import export_pairs
    from jdm.export.pairs import PairFactory
    from jdm.system.processes import device_name, launch
    from jdm.train.objective import memory_errors

    launched = launch()
    if request.shard == ExportRequest.shard and launched.world_size > 1:  # torchrun deals the shards out
        request = dataclasses.replace(request, shard=f"{launched.rank}/{launched.world_size}")
    run = open_run(request.dataset, request.fold)
    factory = PairFactory.of(run, request, device_name())
    order, metadata = factory.order, run.checkpoint.metadata
    print(
        f"{order.count} pairs of {'x'.join(map(str, order.canvas_size))} with {order.way.sampler}, "
        f"{order.way.steps} steps, from step {metadata['step']} of {metadata['dataset']} fold {metadata['fold']}"
    )
    if order.classes:
        print("by class: " + ", ".join(f"{count} {name}" for name, count in order.classes))
    index, shards = shard_of(request.shard)
    if request.dry_run:
        with memory_errors(request.batch_size, flag="--batch-size"):
            print(estimate_line(factory.seconds(order.expected_batches()[index::shards])))
        return
    done = export_pairs(factory, _judge if order.judged else None)
    if not done.finished:
        print(f"shard {request.shard} is done; the dataset appears when all shards are done")
        return
    if done.found:
        print(f"{done.folder} is already complete with these settings and checkpoint; shard {index} had nothing to do")
    print(f"{done.count} pairs in {done.folder}; {done.redrawn} degenerate samples or copies were redrawn")
    if done.choice:
        print(f"kept {done.count} of {done.choice.passed} that passed, of {done.choice.candidates} drawn")
    if done.audit:
        print(f"{done.audit} Details: {done.folder / 'audit.md'}")
    real = metadata["dataset"]
    if not run.kind.has_masks:
        print(f"next: jdm-classify {real} --synthetic {request.id} --fold {metadata['fold']}")
        return
    fraction = metadata.get("train_fraction")
    part = "" if fraction is None else f" --train-fraction {fraction:g}"
    print(f"next: jdm-experiment {real} --synthetic {request.id} --fold {metadata['fold']}{part}")
    print(f"  or, for stock nnU-Net: jdm-register {request.id} --like {real}")

"""The four steps as functions, called by the commands and usable in notebooks and scripts.

```python
import jdm

jdm.train(jdm.TrainRequest("11", "0", budget_minutes=30))
jdm.export(jdm.ExportRequest("11", "0", count=200, id=511))
jdm.sample(jdm.VaryRequest("11", "0", level=0.4))
```

Folders are set by nnU-Net's environment variables and `jdm_results`. Errors that a user can fix are raised as
`jdm.errors.JdmError`. torch is imported by the functions, not by `import jdm`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, TypeVar

import jdm.plan  # noqa: F401  (loaded now: later it would take the place of the function of its name)
from jdm.config.command import checked
from jdm.errors import ConfigError
from jdm.export.request import ExportRequest
from jdm.sample.request import MODES, SampleRequest
from jdm.train.request import TrainRequest

if TYPE_CHECKING:
    from jdm.export.dataset import Exported
    from jdm.plan.rules import Plan
    from jdm.sample.modes import Sampled
    from jdm.train.checkpoint import Checkpoint


def plan(request: TrainRequest) -> Plan:
    """Plan a training run from its dataset, without training: every decision with its reason.

    Raises: ConfigError or DataError if the run cannot be trained.
    """
    from jdm.train.prepare import prepare

    return prepare(dataclasses.replace(checked(request), dry_run=True)).plan


def train(request: TrainRequest) -> Checkpoint:
    """Plan a run and train it; under torchrun, together with the other processes.

    Returns: the checkpoint to sample from, in $jdm_results/DatasetNNN_Name/fold_F.
    Raises: JdmError if the run cannot be planned or trained.
    """
    started = time.monotonic()
    request = _to_do(request, "jdm.plan")
    from jdm.system.processes import processes, rank
    from jdm.train import loop, prepare
    from jdm.train.replaced_run import replacing

    with processes(), prepare.alone(request):
        prepared = prepare.prepare(request)
        replaces = request.overwrite and rank() == 0
        with replacing(prepared.out_dir) if replaces else contextlib.nullcontext():
            return loop.train(prepared, resume=request.resume, started=started)


def export(request: ExportRequest) -> Exported:
    """Write synthetic pairs as another nnU-Net raw dataset, or one shard of it.

    Raises: JdmError if the pairs cannot be sampled or written.
    """
    request = _to_do(request, "jdm-export --dry-run")
    from jdm.draw.run import open_run
    from jdm.export.dataset import export_pairs
    from jdm.export.pairs import PairFactory
    from jdm.system.processes import device_name

    factory = PairFactory.of(open_run(request.dataset, request.fold), request, device_name())
    if not factory.order.judged:
        return export_pairs(factory)
    from nnunet_integration.teacher import judge_of

    return export_pairs(factory, judge_of)


def sample(request: SampleRequest) -> Sampled:
    """Sample conditionally; each mode has its own request class, from `SegmentRequest` to `LikelihoodRequest`.

    Raises: JdmError if the samples cannot be drawn or written.
    """
    if type(request) not in MODES.values():
        names = ", ".join(kind.__name__ for kind in MODES.values())
        raise ConfigError(f"the request is a {type(request).__name__}; expected one of {names}; choose a mode's")
    request = _to_do(request, "jdm-sample --dry-run")
    from jdm.sample.modes import sample as run_mode
    from jdm.system.processes import device_name

    return run_mode(request, device_name())


Request = TypeVar("Request", TrainRequest, ExportRequest, SampleRequest)


def _to_do(request: Request, instead: str) -> Request:
    """The request with checked values. Raises: ConfigError if a value has the wrong type, or for a dry run."""
    request = checked(request)
    if request.dry_run:
        raise ConfigError(
            f"dry_run is True, but this function writes files; expected False; use {instead}, or leave it out"
        )
    return request

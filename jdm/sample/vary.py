"""Variations of real pairs."""

from __future__ import annotations

from jdm.draw.run import Run
from jdm.sample.request import VaryRequest
from jdm.sample.starts import Start, channel_start, real_cases


def prepare(run: Run, request: VaryRequest) -> list[Start]:
    """Read the cases. Raises: DataError for unknown cases."""
    return [channel_start(case, ()) for case in real_cases(run, request.cases, "jdm-sample vary")]

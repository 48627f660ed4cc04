"""Types of command options, with their placeholders in `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

Dataset = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET", help_behavior_hint="")]
"""Id or name of an nnU-Net raw dataset."""
Fold = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLD", help_behavior_hint="")]
"""0 to 4 as in nnU-Net's splits, or "all"."""
Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Cases = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CASE ...", help_behavior_hint="")]
Sides = Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N ...", help_behavior_hint="")]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]

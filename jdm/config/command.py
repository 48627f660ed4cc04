"""What several commands are asked for; light, so that `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import tyro

Dataset = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
"""Id or name of an nnU-Net raw dataset."""
Fold = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLD")]
"""0 to 4 as nnU-Net splits, or "all"."""

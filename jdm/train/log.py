"""The log of a training run: log.csv, TensorBoard events, sample grids."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import Pair
from jdm.errors import TrainingError
from jdm.evaluation.figures import pair_grid
from jdm.train.checkpoint import write_run_text

FIELDS: tuple[str, ...] = ("step", "loss", "gradient_norm", "learning_rate", "seen_loss", "held_out_loss", "smoothed")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?(e[+-]?[0-9]{1,4})?|nan|inf)")
_MEASURED = ("seen_loss", "held_out_loss", "smoothed")


class RunLog:
    """Rows of log.csv, one per step; rows after the step from which a run resumes are dropped.

    Values stay on their device until `flush`, so that steps do not wait for them.
    """

    def __init__(self, folder: Path, step: int, active: bool) -> None:
        self.active = active
        self._folder, self._path = folder, folder / "log.csv"
        self._pending: list[dict[str, Any]] = []
        self._last: dict[str, float] = {}
        self._events: SummaryWriter | None = None
        if active:
            kept = [row for row in read_log(self._path) if int(row["step"]) <= step] if step else []
            self._write(kept)
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._events is not None:
            self._events.close()

    def row(self, values: dict[str, Any]) -> None:
        """Add the values of one step by column: numbers or tensors."""
        self._pending.append(values)

    def check(self) -> None:
        """Fetch the pending values from their device.

        Raises: TrainingError at the first loss that is not finite.
        """
        self._pending = [
            {name: v.item() if isinstance(v, torch.Tensor) else v for name, v in row.items()} for row in self._pending
        ]
        watched = ("loss", "gradient_norm")
        bad = next((r for r in self._pending if not all(math.isfinite(r[name]) for name in watched)), None)
        if bad is not None:
            raise TrainingError(
                f"step {bad['step']} has the loss {bad['loss']} and the gradient norm {bad['gradient_norm']}, "
                "expected finite numbers; "
                "the last checkpoint is kept; train again with --overwrite and --train.precision fp32 "
                "or a lower --train.learning-rate"
            )

    def measured(self, values: dict[str, float]) -> None:
        """Add the losses of fixed samples to the last row."""
        self._last = values
        self._pending[-1].update(values)

    def shown(self) -> dict[str, str]:
        """The last measured losses, for a progress bar."""
        return {name: f"{value:.4f}" for name, value in self._last.items() if not math.isnan(value)}

    def flush(self) -> None:
        """Check the pending rows and write them."""
        self.check()
        rows, self._pending = self._pending, []
        if self._events is None:
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerows(rows)
        for row in rows:
            for name in ("loss", *_MEASURED):
                if name in row:
                    self._events.add_scalar(name, row[name], row["step"])

    def grid(self, step: int, samples: np.ndarray, pairs: PairDataset) -> None:
        """Save decoded samples as samples/step_NNNNNN.png."""
        folder = self._folder / "samples"
        folder.mkdir(exist_ok=True)
        decoded = [Pair("", *pairs.codec.decode(sample), (1.0,) * (sample.ndim - 1), None) for sample in samples]
        pair_grid(decoded, folder / f"step_{step:06d}.png")

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
        write_run_text(self._path, text.getvalue())


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log.csv up to the first damaged or out-of-order one; empty if there is no file."""
    if not path.is_file():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    text = text[: text.rfind("\n") + 1]  # a killed writer may leave an incomplete row
    rows: list[dict[str, str]] = []
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            if not (_is_whole(row) and (not rows or int(row["step"]) == int(rows[-1]["step"]) + 1)):
                break
            rows.append(row)
    except csv.Error:
        pass
    return rows


def _is_whole(row: dict[str, Any]) -> bool:
    """Whether a row has a step and all its columns are numbers or empty."""
    if set(row) != set(FIELDS) or not re.fullmatch(r"[0-9]{1,12}", row["step"] or ""):
        return False
    return all(value == "" or _NUMBER.fullmatch(value or "") for value in row.values())

"""Datasets to review, and sessions without a browser."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from small_runs import write_pictures

from jdm.data.raw_dataset import RawDataset
from jdm.review.decisions import Log
from jdm.review.session import Item, Session, blind_items


def made(raw: Path, name: str = "Dataset521_Stripes_syn", **kind: Any) -> RawDataset:
    """Pictures that say they are synthetic; `kind` as of `write_pictures`."""
    dataset = write_pictures(raw, name, **kind)
    origin = {"generator": {"dataset": "Dataset021_Stripes", "training_ids": ["case_0"]}}
    (dataset.folder / "provenance.json").write_text(json.dumps(origin))
    return dataset


def session_of(dataset: RawDataset, reader: str, like: RawDataset | None = None) -> Session:
    """A reader's session; blind with a real dataset."""
    path = dataset.folder / "review" / f"{reader}.jsonl"
    path.parent.mkdir(exist_ok=True)
    items = [Item(dataset, case) for case in dataset.cases] if like is None else blind_items(dataset, like, reader)
    return Session(dataset, items, Log(path), like, like is not None)


def decide(
    session: Session, number: int, decision: str, comment: str | None = None, seconds: float = 1.0, fix_with: int = 0
) -> dict[str, Any]:
    """Decide about a pair; a "fix" gives every slice one value."""
    seen = session.describe(number)
    plane = np.full((seen["height"], seen["width"]), fix_with, "<u2").tobytes()
    planes = {n: plane for n in range(seen["slices"])} if decision == "fix" else {}
    return session.decide(number, decision, comment, seconds, planes)


def fix(session: Session, number: int, value: int = 0) -> dict[str, Any]:
    return decide(session, number, "fix", fix_with=value)


@contextlib.contextmanager
def door(dataset: RawDataset) -> Iterator[Any]:
    """A client of the page's server whose token is "secret"."""
    from starlette.testclient import TestClient

    from jdm.review.server import application

    app = application(session_of(dataset, "anna"), "secret", 8000)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client

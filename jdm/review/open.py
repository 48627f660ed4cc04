"""Opens a review: checks what is asked for before anything is written."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, matches_dataset, nnunet_folder, open_dataset
from jdm.data.raw_layout import PARTIAL
from jdm.errors import ConfigError, DataError
from jdm.review.decisions import FOLDER, Log, check_reader
from jdm.review.request import ReviewRequest
from jdm.review.session import Item, Session, blind_items
from jdm.system.locks import held


def open_synthetic(text: str) -> RawDataset:
    """The synthetic dataset of an id or name. Raises: ConfigError or DataError if it is none, or unfinished."""
    try:
        dataset = open_dataset(text)
    except ConfigError:
        for folder in sorted(nnunet_folder("nnUNet_raw").glob(f"{PARTIAL}*")):
            if folder.is_dir() and matches_dataset(folder.name.removeprefix(PARTIAL), text.strip()):
                raise DataError(
                    f"dataset {text!r} is half-written: found {folder}; expected a finished export; repeat the "
                    "jdm-export command to finish it"
                ) from None
        raise
    read_generator(dataset)
    if not dataset.cases:
        raise DataError(f"{dataset.folder}: has no cases; expected pairs to review; export them again")
    return dataset


def open_real(text: str, synthetic: RawDataset) -> RawDataset:
    """The real dataset to compare with. Raises: DataError if it is synthetic, empty or has other channels."""
    real = open_dataset(text)
    if (real.folder / "provenance.json").exists():
        raise DataError(f"{real.name} is synthetic (it has a provenance.json); expected a real one; give its id")
    if real.channel_names != synthetic.channel_names:
        raise DataError(
            f"{real.name} has the channels {', '.join(real.channel_names)}; expected "
            f"{', '.join(synthetic.channel_names)}, as {synthetic.name}; give the dataset that it was generated from"
        )
    if not real.cases:
        raise DataError(f"{real.folder}: has no training cases; expected some to compare with; give another --like")
    return real


def review(request: ReviewRequest, announce: Callable[[str], None]) -> Path:
    """Serve a review until it is ended. Returns: the reader's file.

    Args: announce: is told the address to open.
    Raises: ConfigError or DataError for what the user can fix, ExistsError if this reader is reviewing already.
    """
    from jdm.review.server import listen, serve

    if request.blind and request.like is None:
        raise ConfigError("--blind without --like; expected the real dataset to mix in; add --like REAL")
    reader = check_reader(request.reader or _login_name())
    synthetic = open_synthetic(request.synthetic)
    real = None if request.like is None else open_real(request.like, synthetic)
    path = synthetic.folder / FOLDER / f"{reader}.jsonl"
    log = Log(path)
    items = [Item(synthetic, case) for case in synthetic.cases]
    if request.blind and real is not None:
        items = blind_items(synthetic, real, reader)
    session = Session(synthetic, items, log, real, request.blind)
    with listen(request.port) as listening:
        path.parent.mkdir(exist_ok=True)
        with held(path.parent / f".{reader}.lock", path):
            log.reload()  # another process may have written until now
            serve(session, listening, announce)
    return path


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        raise ConfigError("this user has no login name; expected one; give a name as --reader") from None

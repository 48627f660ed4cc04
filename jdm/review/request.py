"""The request of `jdm-review`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class ReviewRequest:
    """Show the pairs of a synthetic dataset to an expert, who accepts, rejects or corrects each, on a local page."""

    synthetic: tyro.conf.Positional[str]
    """Id or name of the synthetic dataset."""
    like: str | None = None
    """Id or name of the real dataset, whose cases can be looked at for comparison."""
    blind: bool = False
    """Mix in as many cases of --like, without names; the reader says which are real."""
    reader: str | None = None
    """Name of the reader, whose decisions are kept apart. Default: the login name."""
    port: int = 0
    """Port of the page on this machine. Default: any free one."""
    write: int | None = None
    """Show nothing; write a dataset of this id, without rejected pairs and with corrected masks."""

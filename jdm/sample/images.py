"""Images for given masks."""

from __future__ import annotations

from jdm.draw.canvas import CaseCanvas
from jdm.draw.given import given_masks
from jdm.draw.run import Run
from jdm.sample.request import ImagesRequest
from jdm.sample.starts import Start, channel_start


def prepare(run: Run, request: ImagesRequest) -> list[Start]:
    """Read and check the masks. Raises: DataError if they cannot be used."""
    config = run.config
    known = range(config.image_channels, config.image_channels + config.mask_channels)
    masks = given_masks(run.kind, request.masks, config.facts.dtype)
    return [channel_start(CaseCanvas(mask, config), known, own_units=False) for mask in masks]

"""The request of `jdm-export` and `jdm.export`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jdm.config.command import Count, Dataset, Fold, Number, Sides, Switch, Text
from jdm.config.samplers import Sampler, check_wholly_known
from jdm.config.settings import Config
from jdm.draw.request import Sampling, Way, check_estimates, check_flags, check_sampling, usual_sampler, way_of
from jdm.errors import ConfigError

Masks = Literal["estimated", "sampled"]
Select = Literal["hard", "easy", "diverse", "random"]


@dataclass(frozen=True)
class ExportOptions:
    """What to export."""

    dataset: Dataset
    """The real dataset; or a run's folder, without FOLD."""
    fold: Fold = ""
    """Fold that the run was trained on: 0 to 4, or "all"."""
    _: KW_ONLY
    id: int
    """Id of the new dataset; must be free."""
    count: Count = None
    """Number of pairs."""
    ratio: Number = None
    """Or: multiple of the training set (patches: by pixels)."""
    name: Text = None
    """Name of the new dataset; by default NAME_syn."""
    canvas_size: Sides = None
    """Pair size in pixels, if trained on patches."""
    masks: Annotated[Masks, tyro.conf.arg(metavar="HOW", help_behavior_hint="")] = "sampled"
    """sampled (the default), or estimated from the image."""
    given_masks: Annotated[str | None, tyro.conf.arg(metavar="FROM", help_behavior_hint="")] = None
    """Use masks: real, deformed (real ones), or a folder."""
    balance: Switch = False
    """More of rare classes, to balance real + synthetic."""
    margin: Annotated[float, tyro.conf.arg(metavar="X")] = 0.25
    """Slack of the real foreground range."""
    gate: Number = None
    """Drop pairs below this quantile of real agreement."""
    select: Annotated[Select | None, tyro.conf.arg(metavar="HOW", help_behavior_hint="")] = None
    """Of the rest, keep the hard, easy, diverse or random."""
    keep: Annotated[float, tyro.conf.arg(metavar="X")] = 0.5
    """Share that --select keeps."""
    shard: Annotated[str, tyro.conf.arg(metavar="i/n", help_behavior_hint="")] = "0/1"
    """Part of the work, i from 0, e.g. in a Slurm array."""
    no_audit: Switch = False
    """Do not look for copies of training cases (jdm-audit)."""
    keep_copies: Switch = False
    """Keep copies instead of redrawing them."""
    anyway: Switch = False
    """Export even if the first pairs look unlike real ones."""
    overwrite: Switch = False
    """Replace an earlier or unfinished synthetic dataset."""
    dry_run: Switch = False
    """Print what would be sampled and how long it takes."""


@dataclass(frozen=True)
class ExportRequest(Sampling, ExportOptions):
    """Sample synthetic pairs from a trained run and write them as DatasetNNN_Name_syn under $nnUNet_raw.

    A killed export continues when the same command is given again.
    """


def export_way(config: Config, request: ExportRequest, canvas: tuple[int, ...]) -> Way:
    """The sampler and its steps; the default is ancestral for the thesis preset at its training size."""
    ancestral = config.preset == "thesis" and canvas == config.data.patch_size
    usual: Sampler = "ancestral" if ancestral else usual_sampler(config)
    return way_of(request, usual)


def masks_of(request: ExportRequest) -> str:
    """Source of given masks: "real", "deformed", a folder's absolute path, or "" for none."""
    text = request.given_masks
    return str(Path(text).resolve()) if text not in (None, "real", "deformed") else text or ""


def check_request(config: Config, request: ExportRequest, canvas: tuple[int, ...], way: Way) -> None:
    """Check the request before anything is written.

    Raises: ConfigError naming the flag of jdm-export.
    """
    patch = config.data.patch_size
    if (request.ratio is None) == (request.count is None):
        raise ConfigError("found both or neither of --ratio and --count; expected exactly one; try --count 100")
    if request.balance and request.class_label is not None:
        raise ConfigError("found both --class-label and --balance; expected one of them; leave one out")
    if config.data.whole and canvas != config.data.canvas_size:
        raise ConfigError(
            f"--canvas-size is {canvas}, but this run was trained on whole images, which are exported at one size; "
            f"expected {config.data.canvas_size}; leave --canvas-size out, or train on patches (--data.no-whole)"
        )
    if len(canvas) != len(patch) or any(c < p for c, p in zip(canvas, patch, strict=True)):
        raise ConfigError(f"--canvas-size is {canvas}; expected at least the training patch {patch}; enlarge it")
    check_sampling(config, request, way)
    check_wholly_known(way.sampler, not (request.given_masks and config.preset == "thesis"))
    if way.sampler == "ancestral" and (config.preset != "thesis" or canvas != patch):
        raise ConfigError(
            f"--sampler is 'ancestral' for preset {config.preset!r} at {canvas}; it works only for preset thesis at "
            f"the training size {patch}; choose another"
        )
    if request.masks == "estimated":
        check_estimates(config)
        if request.given_masks:
            raise ConfigError(
                "--masks is 'estimated' with --given-masks, which need no estimate; expected one of the two; leave "
                "--masks out"
            )
    check_flags(
        (request.count is None or request.count >= 1, "count", request.count, "at least 1"),
        (request.margin >= 0, "margin", request.margin, "at least 0"),
        (
            request.gate is None or 0 < request.gate < 1,
            "gate",
            request.gate,
            "between 0 and 1, such as 0.05",
        ),
        (0 < request.keep <= 1, "keep", request.keep, "more than 0 and at most 1"),
    )
    _check_choice(config, request)


def _check_choice(config: Config, request: ExportRequest) -> None:
    """Raises: ConfigError if pairs cannot be chosen among more."""
    flag = "--gate" if request.gate is not None else "--select"
    if request.gate is None and request.select is None:
        return
    if shard_of(request.shard)[1] > 1:
        raise ConfigError(
            f"found {flag} with {shard_of(request.shard)[1]} shards; expected one process, which chooses among all "
            f"pairs; leave --shard or {flag} out"
        )
    if not config.mask_channels:
        raise ConfigError(f"{flag} is given for images without masks; expected masks to judge; leave {flag} out")


def shard_of(text: str) -> tuple[int, int]:
    """(index, count) of a shard such as "0/4". Raises: ConfigError for any other text."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard is {text!r}; expected i/n with i from 0 to n - 1, such as 0/4")
    return int(index), int(count)

"""`jdm-review`: an expert accepts, rejects or corrects synthetic pairs, or tells them from real ones."""

from __future__ import annotations

import tyro

from jdm.cli import run_command
from jdm.review.request import ReviewRequest


def main() -> None:
    """Entry point of `jdm-review`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    request = tyro.cli(ReviewRequest, prog="jdm-review", config=config)
    run_command(lambda: run(request))


def run(request: ReviewRequest) -> None:
    """Serve the page until Ctrl-C, or write the reviewed dataset, and print what was written."""
    from jdm.review.open import open_synthetic, review

    if request.write is None:
        print(f"decisions: {review(request, _announce)}")
        return
    from jdm.errors import ConfigError
    from jdm.review.write import write_reviewed

    if request.blind or request.like is not None or request.reader is not None or request.port:
        raise ConfigError("--write shows no page; expected it alone; leave out --like, --blind, --reader and --port")
    written = write_reviewed(open_synthetic(request.synthetic), request.write)
    print(written.summary)
    print(written.folder)


def _announce(address: str) -> None:
    print(f"open {address}\nend with Ctrl-C; what is decided is on disk", flush=True)

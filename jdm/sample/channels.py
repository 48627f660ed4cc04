"""Missing channels of real cases, given the others."""

from __future__ import annotations

from jdm.config.samplers import check_wholly_known
from jdm.draw.run import Run
from jdm.errors import ConfigError
from jdm.sample.request import ChannelsRequest, way_for
from jdm.sample.starts import Start, channel_start, real_cases


def prepare(run: Run, request: ChannelsRequest) -> list[Start]:
    """Read the cases. Raises: ConfigError for unknown channels; DataError for unknown cases."""
    config = run.config
    known = known_numbers(request.known, config.facts.channel_names, config.mask_channels)
    image_known = [channel in known for channel in range(config.image_channels)]
    check_wholly_known(way_for(config, request).sampler, any(image_known) == all(image_known))
    return [channel_start(case, known) for case in real_cases(run, request.cases, "jdm-sample channels")]


def known_numbers(names: tuple[str, ...], channel_names: tuple[str, ...], mask_channels: int) -> list[int]:
    """Model channels named by name, number or "mask".

    Raises: ConfigError for an unknown name, or if no channel is left to sample.
    """
    known: set[int] = set()
    image_channels = len(channel_names)
    for name in names:
        if name == "mask":
            known |= {image_channels + c for c in range(mask_channels)}
        elif name in channel_names:
            known.add(channel_names.index(name))
        elif name.isdecimal() and int(name) < image_channels:
            known.add(int(name))
        else:
            raise ConfigError(
                f"--known has {name!r}; expected channels 0 to {image_channels - 1}, their names "
                f"({', '.join(channel_names)}) or mask; correct it"
            )
    if len(known) == image_channels + mask_channels:
        raise ConfigError("--known names every channel and the mask; expected at least one to sample; leave one out")
    return sorted(known)

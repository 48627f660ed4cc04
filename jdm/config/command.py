"""Types of what commands are asked for, with their names in `--help`, and the check that requests are of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import tyro

from jdm.errors import ConfigError

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

Request = TypeVar("Request")


def checked(request: Request) -> Request:
    """A request whose values have their types: the text of a path becomes a path, a number an id, a list a tuple.

    Raises: ConfigError naming the flag of the first value that does not, or is not finite.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    values, hints = {}, get_type_hints(type(request), include_extras=True)
    for name, value in vars(request).items():
        kind = TypeAdapter(hints[name], config=ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False))
        try:
            values[name] = kind.validate_python(str(value) if isinstance(value, Path) else value)
        except ValidationError as failure:
            expected = failure.errors()[0]["msg"].removeprefix("Input should be ")
            raise ConfigError(f"--{name.replace('_', '-')} is {value!r}; expected {expected}; correct it") from None
    return dataclasses.replace(request, **values)  # pyright: ignore[reportArgumentType]

"""Read and write settings as plain values and TOML; refuse unknown, ill-typed or out-of-bounds ones by name."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from jdm.config.settings import Settings
from jdm.errors import ConfigError

T = TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a dataclass of this room from nested plain values; missing ones get their default.

    Raises: ConfigError naming the setting, the value found and what was expected.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        # JSON has lists but no tuples; no other conversion is wanted.
        text = json.dumps(_unset(values), default=str)  # default=str: TOML has dates, but no setting is one
        return TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as failure:
        raise _refusal(cls, failure.errors()[0]) from None


def _unset(value: Any) -> Any:
    """Plain values with None for "none", since TOML has no null."""
    if isinstance(value, Mapping):
        return {key: _unset(item) for key, item in value.items()}
    return None if value == "none" else value


def _refusal(cls: type, problem: Any) -> ConfigError:
    place = [part for part in problem["loc"] if isinstance(part, str)]
    name = ".".join(place)
    if problem["type"] == "unexpected_keyword_argument":
        known = ", ".join(_names(cls, place[:-1]))
        return ConfigError(f"unknown setting {name!r}; expected one of {known}; correct the name")
    expected = problem["msg"].removeprefix("Input should be ")
    return ConfigError(f"setting {name} is {problem['input']!r}; expected {expected}; correct it")


def _names(cls: Any, place: list[str]) -> list[str]:
    """Names of the settings in a part of the tree."""
    hints = get_type_hints(cls)
    for part in place:
        cls = (get_args(hints[part]) or (hints[part],))[0]  # of the items, where there are several
        hints = get_type_hints(cls)
    return sorted(f.name for f in dataclasses.fields(cls))


def to_dict(settings: Any) -> dict[str, Any]:
    """Nested plain values of a dataclass of this room; the inverse of `from_dict`."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested plain values, overridden by others."""
    result = dict(base)
    for name, value in changes.items():
        inner = result.get(name)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)
        result[name] = value
    return result


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], path: str = "") -> list[str]:
    """Differences of nested plain values, one line per setting: `train.steps: 100, expected 200`."""
    lines = []
    for key in sorted({*found, *expected}):
        a, b = found.get(key), expected.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{path}{key}.")
        elif a != b:
            lines.append(f"{path}{key}: {a}, expected {b}")
    return lines


def read_toml(path: Path) -> dict[str, Any]:
    """Nested plain values of a TOML file, checked to be settings.

    Raises: ConfigError if the file is missing, is not TOML, or holds an unknown or ill-typed setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read settings {path}: {error}; expected a TOML file such as plan.toml") from None
    try:
        from_dict(Settings, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return values


def to_toml(settings: Settings, reasons: Mapping[str, str]) -> str:
    """TOML text of the settings that differ from their default or have a reason, which is added as a comment.

    Args: reasons: by dotted name, such as "train.steps".
    """
    import tomlkit

    document, defaults = tomlkit.document(), to_dict(Settings())
    for part, value in to_dict(settings).items():
        if part == "facts":
            continue
        items = value if isinstance(value, dict) else {part: value}
        usual = defaults[part] if isinstance(value, dict) else defaults
        prefix = f"{part}." if isinstance(value, dict) else ""
        table = tomlkit.table()
        for name, item in items.items():
            reason = reasons.get(prefix + name)
            if reason is None and item == usual[name]:
                continue
            value = tomlkit.item("none" if item is None else item)
            table.add(name, value if reason is None else value.comment(reason))
        if prefix and len(table):
            document.add(part, table)
        elif len(table):
            document.update(table)
    return tomlkit.dumps(document)


def updated_toml(text: str, settings: Settings) -> str:
    """TOML text updated to the current values of the settings; comments on unchanged values are kept."""
    import tomlkit

    document, before = tomlkit.parse(text), to_dict(from_dict(Settings, tomllib.loads(text)))
    for part, values in to_dict(settings).items():
        for name, item in values.items() if part in before and isinstance(values, dict) else ():
            if item != before[part][name]:
                table = document.setdefault(part, tomlkit.table())
                table[name] = tomlkit.item("none" if item is None else item).comment("given with --resume")
    return tomlkit.dumps(document)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found

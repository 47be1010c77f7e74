"""YAML configurations: where they are, and what is wrong with one, in a sentence with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.settings import Settings, SettingsT, closest

_HERE = Path(__file__).resolve().parent
SHIPPED = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"
"""The folder of the configurations that come with lmsat."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def read_config(
    path: Path,
    kind: type[SettingsT],
    overrides: Mapping[str, Any] = _NOTHING,
    *,
    aliases: Mapping[str, str] = _NOTHING,
    entries: Mapping[str, type[Settings]] = _NOTHING,
) -> SettingsT:
    """Read a YAML file as settings. A path ``configs/NAME.yaml`` that is not here stands for lmsat's own.

    Args:
        overrides: Values that take precedence over the file's.
        aliases: Other names of keys, of which a file has one or the other.
        entries: The settings within the values of some keys, to name what is known there.

    Raises `LmsatError` for a file that cannot be read or is no YAML, an unknown key or a wrong value, with its line.
    """
    if not path.exists() and path.parts[:-1] == ("configs",) and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise LmsatError(f"the configuration {path} cannot be read ({reason}): correct its name") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise LmsatError(f"{path}{line}: no valid YAML ({problem}): correct it") from None
    if not isinstance(values, dict):
        raise LmsatError(f"{path} is not a list of `key: value` lines: see the ones in configs/")
    for alias, name in aliases.items():
        if alias in values and name in values:
            raise LmsatError(
                f"{path}, line {_line(node, [name], {})}: give `{alias}` or `{name}`, not both: remove one"
            )
        if alias in values:
            values[name] = values.pop(alias)
    try:
        return kind(**{**values, **overrides})
    except ValidationError as error:
        wrong = error.errors()
    location = _location(wrong[0]["loc"])
    where = (
        "on the command line"
        if location and location[0] in overrides
        else f"{path}, line {_line(node, location, aliases)}"
    )
    known = {*kind.model_fields, *aliases}
    if len(location) > 1 and location[0] in entries:
        known = {*entries[str(location[0])].model_fields}
    raise LmsatError(f"{where}: {_problem(wrong, location, known)}")


def _location(loc: Sequence[Any]) -> list[Any]:
    """Return the keys and indices of a location. Where a value may be of several types, it ends in a type's name."""
    location = [part for part in loc if isinstance(part, int) or part.isidentifier()]
    while location and location[-1] in ("int", "str", "float", "bool", "constrained"):
        location.pop()
    return location


def _problem(wrong: Sequence[Any], location: list[Any], known: set[str]) -> str:
    """Return the first thing that is wrong, without its place."""
    first = wrong[0]
    key = next((str(part) for part in reversed(location) if isinstance(part, str)), "")
    if first["type"] == "extra_forbidden":
        meant = closest(key, known)
        hint = f"did you mean '{meant}'?" if meant else f"known are {', '.join(sorted(known))}"
        return f"unknown key '{key}': {hint}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing: add it"
    reasons = dict.fromkeys(one["msg"] for one in wrong if one["loc"][: len(location)] == tuple(location))
    named = f"{key}: " if key else ""
    return f"{named}{first['input']} is not right ({'; '.join(reasons)}): correct it"


def _line(node: Any, location: Sequence[Any], aliases: Mapping[str, str]) -> int:
    """Return the line of a key in the YAML tree, or of the nearest thing around it."""
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            keys = {key.value: (key, value) for key, value in node.value}
            names = [part, *(alias for alias, name in aliases.items() if name == part)]
            found = next((name for name in names if name in keys), None)
            if found is None:
                break
            key, node = keys[found]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line

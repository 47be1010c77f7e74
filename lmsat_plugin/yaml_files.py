"""YAML configurations: where they are, and what is wrong with one, in a sentence with its line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import kind_of, read_file, similar_path
from lmsat_plugin.outside_text import shortened
from lmsat_plugin.settings import Settings, SettingsT, closest

_HERE = Path(__file__).resolve().parent
SHIPPED = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"
"""The folder of the configurations that come with lmsat."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_MOST_LETTERS, _MOST_VALUES, _MOST_DIGITS, _DEEPEST = 1_000_000, 100_000, 18, 100
"""What a configuration may hold: letters, values when its aliases are written out, digits of a whole number, levels."""


def read_config(
    path: Path,
    kind: type[SettingsT],
    overrides: Mapping[str, Any] = _NOTHING,
    *,
    aliases: Mapping[str, str] = _NOTHING,
    entries: Mapping[str, type[Settings]] = _NOTHING,
    others: Mapping[str, Collection[str]] = _NOTHING,
) -> SettingsT:
    """Read a YAML file as settings. A path ``configs/NAME.yaml`` that is not here stands for lmsat's own.

    Args:
        overrides: Values that take precedence over the file's.
        aliases: Other names of keys, of which a file has one or the other.
        entries: The settings within the values of some keys, to name what is known there.
        others: Commands with configurations of their own, and keys that these alone have.

    Raises `LmsatError` for a file that cannot be read or is no YAML, an unknown key or a wrong value, with its line.
    """
    if kind_of(path) is None and path.parts[:-1] == ("configs",) and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    try:
        text = read_file(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        meant = similar_path(path, kind="file") or similar_path(Path("configs", path.name), SHIPPED, kind="file")
        advice = f"did you mean {meant}?" if kind_of(path) is None and meant is not None else "correct its name"
        raise LmsatError(f"the configuration {path} cannot be read ({reason}): {advice}") from None
    node, values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise LmsatError(f"{path} is not a list of `key: value` lines: see the ones in configs/")
    if strange := [key for key in values if not isinstance(key, str)]:
        raise LmsatError(f"{path}: the key {shortened(strange[0])} is no name: correct it")
    for alias, name in aliases.items():
        if alias in values and name in values:
            raise LmsatError(
                f"{path}, line {_line(node, [name], {})}: give `{alias}` or `{name}`, not both: remove one"
            )
        if alias in values:
            values[name] = values.pop(alias)
    for command, keys in others.items():
        if values.keys() & {*keys}:
            raise LmsatError(f"{path} is a configuration of `{command}`: give it to that command, or give another file")
    try:
        return kind(**{**values, **overrides})
    except ValidationError as error:
        # A key that is misspelled is missing, too.
        wrong = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden" or len(one["loc"]) > 1)
    location = _location(wrong[0]["loc"])
    where = (
        "on the command line"
        if location and location[0] in overrides
        else f"{path}, line {_line(node, location, aliases)}"
    )
    known = {*kind.model_fields, *aliases}
    if inside := [key for key in location[:-1] if key in entries]:
        known = {*entries[inside[-1]].model_fields}
    raise LmsatError(f"{where}: {_problem(wrong, location, known)}")


def parse_yaml(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    """Return YAML text as a tree with lines, and as plain values. Messages call the text ``source``.

    Raises `LmsatError` for text that is no YAML, a key that is there twice, and for what is beyond reason: text,
    aliases and nesting without end, whole numbers beyond 64 bits, names with a zero character.
    """
    if len(text) > _MOST_LETTERS:
        raise LmsatError(f"{source} has {len(text):,} letters, too many for a configuration: give the right file")
    try:
        _check_depth(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _check_tree(node, source)
        return node, yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise LmsatError(f"{source}{line}: no valid YAML ({problem}): correct it") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # What PyYAML raises for numbers and dates that are none.
        raise LmsatError(f"{source}: no valid YAML ({first_sentence(error)}): correct it") from None


def _check_depth(text: str, source: str) -> None:
    """Raise `LmsatError` where something is nested too deeply, before anything is made of the text."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise LmsatError(f"{source}, line {line}: it is nested too deeply: give fewer levels")


def _check_tree(root: yaml.Node, source: str) -> None:
    """Raise `LmsatError` for keys that are there twice, for too many values, and for values beyond reason."""
    sizes: dict[int, int] = {}
    """Values below each node that has been looked through, those behind aliases counted each time."""

    def place(node: yaml.Node) -> str:
        return f"{source}, line {node.start_mark.line + 1}"

    def size(node: yaml.Node, above: tuple[int, ...]) -> int:
        if id(node) in above:
            raise LmsatError(f"{place(node)}: an alias stands for what holds it: write the value out")
        if id(node) in sizes:
            return sizes[id(node)]
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, source)
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.ScalarNode) and (reason := _beyond_reason(node)) is not None:
            raise LmsatError(f"{place(node)}: {reason}: correct it")
        sizes[id(node)] = total = 1 + sum(size(child, (*above, id(node))) for child in children)
        if total > _MOST_VALUES:
            raise LmsatError(f"{place(node)}: aliases make more than {_MOST_VALUES:,} values of it: write out fewer")
        return total

    size(root, ())


def _check_keys(node: yaml.MappingNode, source: str) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if (first := lines.get((key.tag, key.value))) is not None:
            raise LmsatError(f"{source}, lines {first} and {line}: the key '{key.value}' is there twice: remove one")
        lines[key.tag, key.value] = line


def _beyond_reason(node: yaml.ScalarNode) -> str | None:
    digits = node.value.replace("_", "").lstrip("+-")
    if node.tag == "tag:yaml.org,2002:int" and digits.isdecimal() and len(digits) > _MOST_DIGITS:
        return f"{node.value[:10]}... has {len(digits)} digits"
    return "the text holds a zero character" if "\0" in node.value else None


def _location(loc: Sequence[Any]) -> list[Any]:
    """Return the keys and indices of a location. Where a value may be of several types, it ends in a type's name."""
    location = [part for part in loc if isinstance(part, int) or part.isidentifier()]
    while location and location[-1] in ("int", "str", "float", "bool", "constrained", "selection"):
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
    return f"{named}{shortened(first['input'])} is not right ({'; '.join(reasons)}): correct it"


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

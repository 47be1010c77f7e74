"""Check settings that come from outside, and name a wrong one in a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lmsat_plugin.errors import LmsatError


class Settings(BaseModel):
    """Base of settings: pydantic fields, each with a default, set through ``--metadata``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def parse_settings(kind: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Return checked settings. Raises `LmsatError` that names the key, the value and what is wrong."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        # Without a key, it is the settings together that are wrong.
        key = str(first["loc"][0]) if first["loc"] else None
        if key is not None and first["type"] == "extra_forbidden":
            raise unknown_setting(key, kind.model_fields) from None
        wrong = values if key is None else {key: first["input"]}
        stated = ", ".join(f"{name}={value}" for name, value in wrong.items()) or f"{kind.__name__}()"
        reason = first["msg"].removeprefix("Value error, ")
        raise LmsatError(f"{stated} is not right ({reason}): correct it") from None


def parse_own(kind: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Return the settings that are among values of several kinds. Raises as `parse_settings`."""
    return parse_settings(kind, {key: value for key, value in values.items() if key in kind.model_fields})


def closest(key: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``key`` is most likely a misspelling of."""
    return next(iter(difflib.get_close_matches(key, list(known), n=1, cutoff=0.75)), None)


def unknown_setting(key: str, known: Iterable[str]) -> LmsatError:
    """Return the error for a setting that nobody knows."""
    known = sorted(known)
    meant = closest(key, known)
    hint = f"did you mean {meant}?" if meant else f"known are {', '.join(known)}"
    return LmsatError(f"unknown setting '{key}': {hint}")

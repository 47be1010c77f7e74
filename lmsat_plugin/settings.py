"""Check settings that come from outside, and name a wrong one in a sentence."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.outside_text import shortened


class Settings(BaseModel):
    """Base of settings: pydantic fields, each with a default, set through ``--metadata``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _within_reason(cls, value: Any) -> Any:
        """Refuse whole numbers beyond 64 bits, NaN and infinity, and text with a zero character, at any depth."""
        rest = [value]
        while rest:
            part = rest.pop()
            if isinstance(part, int) and abs(part) >= 2**63:
                raise ValueError("a whole number beyond 64 bits")
            if isinstance(part, float) and not math.isfinite(part):
                raise ValueError("a number that is not finite")
            if isinstance(part, str) and "\0" in part:
                raise ValueError("text with a zero character")
            if isinstance(part, list | tuple):
                rest += part
            elif isinstance(part, dict):
                rest += [*part, *part.values()]
        return value


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
        stated = ", ".join(f"{name}={shortened(value)}" for name, value in wrong.items()) or f"{kind.__name__}()"
        reason = first["msg"].removeprefix("Value error, ")
        raise LmsatError(f"{stated} is not right ({reason}): correct it") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # A plugin's own validators, and keys that are no names.
        raise LmsatError(
            f"{kind.__name__} cannot be made of {shortened(dict(values))} ({first_sentence(error)}): correct it"
        ) from error


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

"""Values of the wanted type out of JSON that anybody may have written."""

from __future__ import annotations

import math
from typing import Any


def as_dict(value: Any) -> dict[str, Any]:
    """Return a dict; an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list; an empty one for any other value."""
    return value if isinstance(value, list) else []


def as_dicts(value: Any) -> list[dict[str, Any]]:
    """Return the dicts of a list, or the one dict that stands for a list of one."""
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]


def as_text(value: Any) -> str | None:
    """Return text, also of a whole number, since lm-eval turns names of digits into numbers; else None."""
    is_text = isinstance(value, str | int) and not isinstance(value, bool)
    return clean(str(value)) if is_text and value != "" else None


def clean(text: str) -> str:
    """Return text that can be written as UTF-8: JSON and names of files may hold unpaired surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def as_number(value: Any) -> float | None:
    """Return a number, which may be infinite or NaN; None for any other value."""
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_integer(value: Any) -> int | None:
    """Return a whole number of at most 64 bits; None for any other value."""
    number = as_number(value)
    return int(value) if number is not None and number.is_integer() and abs(number) < 2**63 else None


def first(*values: int | None) -> int | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)

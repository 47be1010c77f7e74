"""What JSON that anybody may have written holds: values of the type that is wanted, or nothing."""

from __future__ import annotations

import math
from typing import Any


def as_dict(value: Any) -> dict[str, Any]:
    """Return a dict, empty if there is none."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str | None:
    """Return a text that is not empty. lm-eval turns names of digits into numbers."""
    named = isinstance(value, str | int) and not isinstance(value, bool)
    return clean(str(value)) if named and value != "" else None


def clean(text: str) -> str:
    """Return a text that can be written as UTF-8: JSON and names of files may hold halves of characters."""
    return text.encode("utf-8", "replace").decode("utf-8")


def as_number(value: Any) -> float | None:
    """Return a number, which may be infinite or NaN; None for a truth value or a text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_integer(value: Any) -> int | None:
    """Return a whole number of at most 64 bits."""
    number = as_number(value)
    return int(value) if number is not None and number.is_integer() and abs(number) < 2**63 else None


def first(*values: int | None) -> int | None:
    """Return the first that is known."""
    return next((value for value in values if value is not None), None)

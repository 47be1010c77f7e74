"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval; None for what is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None

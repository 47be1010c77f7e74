"""Class `Estimate`: a number with its 90 % interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval; None for what is unknown."""

    value: float | None
    low: float | None = None
    high: float | None = None

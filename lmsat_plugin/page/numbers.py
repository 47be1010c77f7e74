"""Numbers as the page holds them: as few digits as its readers need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def numbers_of(column: Sequence[Any] | pd.Series | np.ndarray, digits: int) -> list[float | int | None]:
    """Return `number` of each."""
    return [number(value, digits) for value in pd.Series(column).astype("float64").tolist()]


def number(value: float, digits: int) -> float | int | None:
    """Return a number with so many significant digits, as JSON writes it shortest; None if it is not finite."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded

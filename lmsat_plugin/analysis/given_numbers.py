"""Checks of the numbers that callers of analyses give: one sentence for what is no number, or out of range."""

from __future__ import annotations

import numbers
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.outside_text import shortened

_LARGEST = 1e300
_MOST_REPETITIONS = 100_000
"""Of a simulation or a bootstrap: more take gigabytes, and change no printed digit."""


def check_number(
    name: str, value: Any, advice: str, *, least: float = -_LARGEST, most: float = _LARGEST, ends: bool = False
) -> None:
    """Raise `LmsatError`, which ends with the advice, unless a value is a number between two others, and not NaN.

    With ``ends`` it may be one of these two.
    """
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (known and (least <= value <= most if ends else least < value < most)):
        raise LmsatError(f"{name}={shortened(value)} is out of range: {advice}")


def check_share(name: str, value: Any) -> None:
    """Raise `LmsatError` unless a value is a number between 0 and 1, both excluded."""
    check_number(name, value, "give a number between 0 and 1", least=0, most=1)


def check_whole(name: str, value: Any, advice: str, *, least: int, most: int = 2**63 - 1) -> None:
    """Raise `LmsatError`, which ends with the advice, unless a value is a whole number from ``least`` to ``most``."""
    check_number(name, value, advice, least=least, most=most, ends=True)
    if not isinstance(value, numbers.Integral):
        raise LmsatError(f"{name}={shortened(value)} is out of range: {advice}")


def check_seed(seed: Any) -> None:
    """Raise `LmsatError` unless a seed is a whole number from 0 on."""
    check_whole("seed", seed, "give a whole number from 0 on", least=0)


def check_simulation(repetitions: Any, seed: Any, *, usual: int, least: int = 0) -> None:
    """Raise `LmsatError` for a number of repetitions or a seed that no simulation has.

    Args:
        repetitions: Whole, from ``least`` on; 0 where a simulation may be left out, and its intervals with it.
        seed: Whole, from 0 on.
        usual: The number of repetitions that the message advises.
        least: How many repetitions the analysis needs.
    """
    fewest = "0 for no intervals" if least == 0 else f"{least} or more"
    check_whole("repetitions", repetitions, f"give {fewest}, or about {usual}", least=least, most=_MOST_REPETITIONS)
    check_seed(seed)

"""Averages of checkpoints that no file holds: which checkpoints each is made of, what it is called, and the weights.

``average:5`` is the mean of each checkpoint and the four before it (LAWA, Kaddour 2022; WSM, arXiv 2507.17634),
``average:1000..5000`` the mean of those of these steps, and ``ema:0.9`` the exponential moving average
e_t = 0.9 e_(t-1) + 0.1 w_t of all so far, from e_0 = w_0 on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import averaging_of

if TYPE_CHECKING:
    from lmsat_plugin.series.checkpoint import Checkpoint

_FEWEST = 2


def is_averaging(word: str) -> bool:
    """Return whether a word of a selection asks for averages."""
    return word.startswith(("average:", "ema:"))


def decay_of(checkpoint: Checkpoint) -> float | None:
    """Return the decay of an exponential moving average; None for a plain mean."""
    kind, _, number = (averaging_of(checkpoint.revision) or "").partition(":")
    return float(number) if kind == "ema" else None


def longest_average(selections: Sequence[str | int]) -> int:
    """Return how many checkpoints the averages that slide over a series need at once; 1 without any."""
    found = (re.search(r"(?:^|\s)average:(\d{1,9})(?:@|\s|$)", str(selection)) for selection in selections)
    return max((int(match[1]) for match in found if match), default=1)


def average(of_runs: Sequence[Sequence[Checkpoint]], word: str) -> list[Checkpoint]:
    """Return the averages that a word, ``average:N`` or ``ema:D``, asks for, of the checkpoints of each run.

    The first N - 1 checkpoints of a run have no average of N. Raises `LmsatError` for a word that is malformed, and
    where no run has checkpoints enough.
    """
    kind, _, number = word.partition(":")
    if kind == "ema":
        if not re.fullmatch(r"0\.\d{1,9}", number) or not float(number):
            raise LmsatError(f"revisions={word}: the decay has to be between 0 and 1, as in ema:0.9; correct it")
        made = [_of(run[: last + 1], word) for run in of_runs for last in range(len(run))]
    else:
        if not re.fullmatch(r"\d{1,9}", number) or int(number) < _FEWEST:
            raise LmsatError(
                f"revisions={word}: give a number of checkpoints, {_FEWEST} or more, or steps as FROM..TO; correct it"
            )
        count = int(number)
        made = [_of(run[last - count : last], word) for run in of_runs for last in range(count, len(run) + 1)]
    if not made:
        raise LmsatError(f"revisions={word}: {_has(of_runs)}: average fewer, or wait for more")
    return made


def average_all(of_runs: Sequence[Sequence[Checkpoint]], word: str) -> list[Checkpoint]:
    """Return one average of all the checkpoints of each run. Raises `LmsatError` if no run has two."""
    made = [_of(run, word) for run in of_runs if len(run) >= _FEWEST]
    if not made:
        raise LmsatError(f"revisions={word}: {_has(of_runs)}: give a wider range of steps")
    return made


def _of(parts: Sequence[Checkpoint], word: str) -> Checkpoint:
    last = parts[-1]
    return replace(
        last, revision=f"{word}@{last.revision}", commit=None, subfolder=None, folder=None, parts=tuple(parts)
    )


def _has(of_runs: Sequence[Sequence[Checkpoint]]) -> str:
    most = max(of_runs, key=len, default=())
    return f"{most[0].model} has {len(most)} of these checkpoints" if most else "there is no checkpoint"

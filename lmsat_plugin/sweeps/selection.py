"""Select checkpoints of a series: ``all``, ``last``, ``log:20``, ranges of steps, names, globs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.settings import closest

if TYPE_CHECKING:
    from lmsat_plugin.sweeps.series import Checkpoint

_NUMBER = r"(\d+(?:\.\d+)?[kKmM]?)"
_MULTIPLES = {"k": 1e3, "m": 1e6}


def select(checkpoints: Sequence[Checkpoint], revisions: str | int | Iterable[str | int]) -> list[Checkpoint]:
    """Return the checkpoints that one or several selections name, each once, in the order of ``checkpoints``.

    A selection is ``all``, ``first``, ``last``, ``log:N`` (N spread evenly over log(step + 1)), ``every:N``,
    ``A..B`` (steps, as in ``1k..10k``; either may be missing), a name, a step, a commit or a glob. Where steps
    are known, ``all`` to ``every:N`` leave out the checkpoints without one, such as ``main``. Raises `LmsatError` for
    a selection that is malformed or matches none.
    """
    items = [revisions] if isinstance(revisions, str | int) else list(revisions)
    if not items:
        raise LmsatError("revisions=[] selects nothing: leave it out for all, or name some")
    chosen = {place for item in items for place in _places(checkpoints, str(item).strip())}
    return [checkpoint for place, checkpoint in enumerate(checkpoints) if place in chosen]


def _places(checkpoints: Sequence[Checkpoint], item: str) -> list[int]:
    regular = [n for n, c in enumerate(checkpoints) if c.aside is None]
    series = [n for n in regular if checkpoints[n].progress.is_placed] or regular
    if item in ("all", "first", "last"):
        return {"all": series, "first": series[:1], "last": series[-1:]}[item]
    if found := [n for n, c in enumerate(checkpoints) if c.revision == item]:
        return found
    if match := re.fullmatch("(log|every):(.*)", item):
        kind, least = match[1], 2 if match[1] == "log" else 1
        if not re.fullmatch("[0-9]{1,9}", match[2]) or int(match[2]) < least:
            raise LmsatError(f"revisions={item}: the number has to be {least} or more; correct it")
        count = int(match[2])
        return _spread(checkpoints, series, count) if kind == "log" else [*series[::count], *series[-1:]]
    if match := re.fullmatch(rf"{_NUMBER}?\.\.{_NUMBER}?", item):
        return _range(checkpoints, item, match[1], match[2])
    if match := re.fullmatch(_NUMBER, item):
        found = [n for n, c in enumerate(checkpoints) if c.step == _number(item)]
    if not found and re.fullmatch("[0-9a-f]{7,40}", item):
        found = [n for n, c in enumerate(checkpoints) if (c.commit or "").startswith(item)]
    found = found or [n for n, c in enumerate(checkpoints) if fnmatchcase(c.revision, item)]
    if not found:
        raise _unknown(checkpoints, item)
    return found


def _spread(checkpoints: Sequence[Checkpoint], series: list[int], count: int) -> list[int]:
    """Return ``count`` places, first and last among them, whose distances in log(step + 1) are the most alike.

    The distances add up to a constant, so they are the most alike where the sum of their squares is least.
    """
    if count >= len(series):
        return series
    for key in ("step", "tokens"):
        known = [n for n in series if getattr(checkpoints[n], key) is not None]
        if known:
            break
    else:
        raise LmsatError(
            f"revisions=log:{count}: no checkpoint of {checkpoints[0].model} states its step: "
            "set step_pattern, or select by name"
        )
    count = min(count, len(known))
    position = np.log1p([float(getattr(checkpoints[n], key)) for n in known])
    squares = (position[:, None] - position[None, :]) ** 2
    squares[np.triu_indices(len(known))] = np.inf
    # The least sum of squares on the way to each place, with one more stop each time, and where that stop was.
    least, stops = squares[:, 0], []
    for _ in range(count - 2):
        sums = squares + least
        stops.append(sums.argmin(1))
        least = sums.min(1)
    places = [len(known) - 1]
    for stop in reversed(stops):
        places.append(int(stop[places[-1]]))
    return [known[place] for place in (0, *places)]


def _range(checkpoints: Sequence[Checkpoint], item: str, low: str | None, high: str | None) -> list[int]:
    start, end = _number(low or "0"), _number(high) if high else float("inf")
    if start > end or not (low or high):
        raise LmsatError(f"revisions={item}: give the steps as FROM..TO, of which one may be missing")
    steps = {n: c.step for n, c in enumerate(checkpoints) if c.step is not None}
    if found := [n for n, step in steps.items() if start <= step <= end]:
        return found
    has = f"they are from {min(steps.values())} to {max(steps.values())}" if steps else "none is known"
    raise LmsatError(f"revisions={item}: {checkpoints[0].model} has no checkpoint of such a step ({has}); correct it")


def _number(text: str) -> float:
    """Return the number that a text such as ``1.5k`` states."""
    multiple = _MULTIPLES.get(text[-1].lower())
    number = float(text[:-1]) * multiple if multiple else float(text)
    return round(number) if multiple and number < float("inf") else number


def _unknown(checkpoints: Sequence[Checkpoint], item: str) -> LmsatError:
    names = [c.revision for c in checkpoints]
    near = [closest(item, names)]
    if re.fullmatch(_NUMBER, item):
        known = [c for c in checkpoints if c.step is not None]
        below = [c.revision for c in known if (c.step or 0) < _number(item)]
        above = [c.revision for c in known if (c.step or 0) > _number(item)]
        near = [*below[-1:], *above[:1]] or near
    if near[0] is not None:
        hint = f"did you mean {' or '.join(map(str, near))}?"
    else:
        rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
        hint = f"it has {', '.join(names[:5])}{rest}"
    return LmsatError(f"revisions={item}: {checkpoints[0].model} has no such checkpoint: {hint}")

"""Select checkpoints: ``all``, ``last``, ``log:20``, ranges of steps, stages, runs, names, globs; and averages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import is_another_form
from lmsat_plugin.results.training_order import stage_order
from lmsat_plugin.series.averages import average, average_all, is_averaging
from lmsat_plugin.settings import closest

if TYPE_CHECKING:
    from lmsat_plugin.series.checkpoint import Checkpoint

_NUMBER = r"(\d+(?:\.\d+)?[kKmM]?)"
_MULTIPLES = {"k": 1e3, "m": 1e6}


def select(checkpoints: Sequence[Checkpoint], revisions: str | int | Iterable[str | int]) -> list[Checkpoint]:
    """Return the checkpoints that one or several selections name, each once, in the order of ``checkpoints``.

    A selection is ``all``, ``first``, ``last``, ``log:N`` (N spread evenly over log(step + 1)), ``every:N``,
    ``A..B`` (steps, as in ``1k..10k``; either may be missing), ``stage:NAME``, ``run:NAME``, a name, a step, a commit
    or a glob. ``first`` to ``every:N`` select so many in each run, and in each stage that begins again. Where steps,
    tokens or words are known, ``all`` to ``every:N`` leave out the checkpoints without any, such as ``main``, and
    copies in another form. Words in one selection select among what those before them have left: ``stage:1 log:20``.
    A last word ``average:N``, ``average:A..B`` or ``ema:D`` averages what is left, see `averages`; ``@NAME`` after it
    selects the average that ends with a checkpoint.

    Raises `LmsatError` for a selection that is malformed or matches none.
    """
    items = [revisions] if isinstance(revisions, str | int) else list(revisions)
    if not items:
        raise LmsatError("revisions=[] selects nothing: leave it out for all, or name some")
    chosen = {each.name: each for item in items for each in _selected(checkpoints, str(item).strip())}
    if checkpoints and not chosen:
        reasons = ", ".join(f"{c.name} ({c.aside})" for c in checkpoints[:3])
        model = checkpoints[0].model
        raise LmsatError(
            f"revisions={items[0]}: all checkpoints of {model} are left out, {reasons}: name those to take"
        )
    places = {checkpoint.name: place for place, checkpoint in enumerate(checkpoints)}
    # An average follows the last checkpoint that it is made of, whose files are at hand then.
    return sorted(chosen.values(), key=lambda each: (places[each.last.name], len(each.parts)))


def _selected(checkpoints: Sequence[Checkpoint], item: str) -> Sequence[Checkpoint]:
    """Return the checkpoints that a selection names, word by word unless it is a name itself."""
    if found := [c for c in checkpoints if item in (c.revision, c.name)]:
        return found
    found = list(checkpoints)
    for word in item.split() or [item]:
        found = _among(found, word, item)
    return found


def _among(checkpoints: Sequence[Checkpoint], word: str, item: str) -> list[Checkpoint]:
    """Return the checkpoints that a word names; ``item`` is the selection that it is a part of."""
    if word in ("all", "first", "last"):
        of_all = {"all": slice(None), "first": slice(1), "last": slice(-1, None)}[word]
        return [c for series in _series(checkpoints) for c in series[of_all]]
    if found := [c for c in checkpoints if word in (c.revision, c.name)]:
        return found
    if is_averaging(word):
        return _averages(checkpoints, word, item)
    if match := re.fullmatch("(log|every):(.*)", word):
        kind, least = match[1], 2 if match[1] == "log" else 1
        if not re.fullmatch("[0-9]{1,9}", match[2]) or int(match[2]) < least:
            raise LmsatError(f"revisions={item}: the number has to be {least} or more; correct it")
        count = int(match[2])
        take = partial(_spread, count=count) if kind == "log" else partial(_every, count=count)
        return [c for series in _series(checkpoints) for c in take(series)]
    if match := re.fullmatch("(stage|run):(.+)", word):
        return _of_part(checkpoints, match[1], match[2])
    if match := re.fullmatch(rf"{_NUMBER}?\.\.{_NUMBER}?", word):
        return _range(checkpoints, item, match[1], match[2])
    if match := re.fullmatch(_NUMBER, word):
        found = _regular([c for c in checkpoints if c.step == _number(word)])
    if not found and re.fullmatch("[0-9a-f]{7,40}", word):
        found = [c for c in checkpoints if (c.commit or "").startswith(word)]
    matching = [c for c in checkpoints if fnmatchcase(c.revision, word) or fnmatchcase(c.name, word)]
    found = found or _regular(matching)
    if not found:
        raise _unknown(checkpoints, word if word == item else f"{item} ({word})", word)
    return found


def _averages(checkpoints: Sequence[Checkpoint], word: str, item: str) -> list[Checkpoint]:
    """Return the averages that a word names, ``average:5``, or the one of them that ``average:5@NAME`` names."""
    checkpoints = list({c.name: c for c in checkpoints}.values())
    if any(c.parts for c in checkpoints):
        raise LmsatError(f"revisions={item}: averages cannot be averaged: give {word} in a selection of its own")
    how, _, last = word.partition("@")
    if match := re.fullmatch(rf"average:({_NUMBER}?\.\.{_NUMBER}?)", how):
        made = average_all(_series(_range(checkpoints, item, match[2], match[3])), how)
    else:
        made = average(_series(checkpoints), how)
    if found := [c for c in made if not last or last in (c.last.revision, c.last.name)]:
        return found
    raise LmsatError(f"revisions={item}: no average ends with {last}: the first is {made[0].name}")


def _regular(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Return checkpoints without those set aside, unless there are no others."""
    return [c for c in checkpoints if c.aside is None] or checkpoints


def _series(checkpoints: Sequence[Checkpoint]) -> list[list[Checkpoint]]:
    """Return the checkpoints of each run and of each stage that begins again, in the order of training."""
    regular = [c for c in checkpoints if c.aside is None]
    placed = [c for c in regular if c.progress.is_placed]
    there = {c.progress for c in placed if not is_another_form(c.revision)}
    series: dict[tuple[str | None, str | None], list[Checkpoint]] = {}
    for checkpoint in placed or regular:
        if is_another_form(checkpoint.revision) and checkpoint.progress in there:
            continue
        series.setdefault((checkpoint.run, checkpoint.branch), []).append(checkpoint)
    return list(series.values())


def _of_part(checkpoints: Sequence[Checkpoint], kind: str, name: str) -> list[Checkpoint]:
    """Return the checkpoints of a stage or of a run, by its name, a glob, or a stage's number."""
    names = list(dict.fromkeys(getattr(c, kind) for c in checkpoints))
    wanted = {own for own in names if own is not None and fnmatchcase(own.lower(), name.lower())}
    if kind == "stage" and not wanted and name.isdecimal():
        wanted = {own for own in names if stage_order(own) == stage_order(f"stage{name}")}
    elif kind == "stage" and stage_order(name) == stage_order(None):
        # The first part of a series may have names without the stage.
        wanted |= {None}
    if found := [c for c in checkpoints if getattr(c, kind) in wanted and c.progress.is_placed and c.aside is None]:
        return found
    has = ", ".join(str(own) for own in names[:10] if own is not None) or "none"
    raise LmsatError(f"revisions={kind}:{name}: {checkpoints[0].model} has no such {kind}; it has {has}")


def _every(series: list[Checkpoint], count: int) -> list[Checkpoint]:
    return [*series[::count], *series[-1:]]


def _spread(series: list[Checkpoint], count: int) -> list[Checkpoint]:
    """Return ``count`` checkpoints, first and last among them, whose distances in log(step + 1) are the most alike.

    The distances add up to a constant, so they are the most alike where the sum of their squares is least.
    """
    if count >= len(series):
        return series
    known, position = _positions(series, count)
    count = min(count, len(known))
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


def _positions(series: list[Checkpoint], count: int) -> tuple[list[Checkpoint], np.ndarray]:
    """Return the checkpoints whose place in training is known, and the logarithms of it."""
    for key in ("step", "tokens", "words"):
        if known := [c for c in series if getattr(c, key) is not None]:
            return known, np.log1p([float(getattr(c, key)) for c in known])
    if all(re.search(r"\d", c.revision) for c in series):
        # An index such as ckpt_012 says the order alone.
        return series, np.log1p(np.arange(len(series), dtype=float))
    raise LmsatError(
        f"revisions=log:{count}: no checkpoint of {series[0].model} states its step: set step_pattern, select by name, "
        f"or write `revisions: [{{name: {series[0].name}, step: 1000}}, ...]`"
    )


def _range(checkpoints: Sequence[Checkpoint], item: str, low: str | None, high: str | None) -> list[Checkpoint]:
    start, end = _number(low or "0"), _number(high) if high else float("inf")
    if start > end or not (low or high):
        raise LmsatError(f"revisions={item}: give the steps as FROM..TO, of which one may be missing")
    with_steps = [(c, c.step) for c in checkpoints if c.step is not None and c.aside is None]
    if found := [c for c, step in with_steps if start <= step <= end]:
        return found
    steps = [step for _, step in with_steps]
    has = f"they are from {min(steps)} to {max(steps)}" if steps else "none is known"
    raise LmsatError(f"revisions={item}: {checkpoints[0].model} has no checkpoint of such a step ({has}); correct it")


def _number(text: str) -> float:
    """Return the number that a text such as ``1.5k`` states."""
    multiple = _MULTIPLES.get(text[-1].lower())
    number = float(text[:-1]) * multiple if multiple else float(text)
    return round(number) if multiple and number < float("inf") else number


def _unknown(checkpoints: Sequence[Checkpoint], item: str, word: str) -> LmsatError:
    names = [c.name for c in checkpoints]
    near = [closest(word, names)]
    if re.fullmatch(_NUMBER, word):
        known = [c for c in checkpoints if c.step is not None]
        below = [c.name for c in known if (c.step or 0) < _number(word)]
        above = [c.name for c in known if (c.step or 0) > _number(word)]
        near = [*below[-1:], *above[:1]] or near
    if near[0] is not None:
        hint = f"did you mean {' or '.join(map(str, near))}?"
    else:
        rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
        hint = f"it has {', '.join(names[:5])}{rest}"
    return LmsatError(f"revisions={item}: {checkpoints[0].model} has no such checkpoint: {hint}")

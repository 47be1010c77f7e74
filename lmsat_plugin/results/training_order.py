"""The order of a model's checkpoints in training, and their steps and tokens in total where a stage begins again.

A stage that counts on, such as SmolLM3's stage2, has steps above those of the stage before. One that begins again, such
as an ingredient or long context, branches off where the stage before ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lmsat_plugin.results.checkpoint_names import SIZE, TrainingProgress, parse_size

if TYPE_CHECKING:
    import pandas as pd

_AMOUNTS = ("step", "tokens", "words")
_LATER = (
    re.compile("cool|anneal|decay|mid", re.IGNORECASE),
    re.compile("lc|long|extension", re.IGNORECASE),
    re.compile("post|sft", re.IGNORECASE),
)
"""Stages with names, in the order in which they follow each other and the numbered ones."""

_NUMBER = re.compile(rf"({SIZE}|\d+)", re.IGNORECASE)

Natural = tuple[tuple[int, str, str], ...]
StageOrder = tuple[int, Natural]
Part = tuple[str | None, StageOrder]
"""A run and the order of a stage: a first part without a name goes with stage 1."""


class Totals(NamedTuple):
    """Steps and tokens since the start of the training; None where the end of the stage before is unknown."""

    step: int | None = None
    tokens: int | None = None


@dataclass
class _Group:
    """The checkpoints of one run and stage."""

    ends: dict[str, tuple[int, int]]
    """The least and the greatest of steps, tokens and words, where known."""
    bases: Mapping[str, int | None] = field(default_factory=dict)
    """What came before its own count, where known."""


def natural(text: str) -> Natural:
    """Return a sort key by which step9 comes before step10, and 410m before 1b: by the numbers that a name holds."""
    # Text and numbers alternate.
    parts = _NUMBER.split(text)
    values = [parse_size(part) if index % 2 else None for index, part in enumerate(parts)]
    digits = [
        (str(value) if value is not None else part).lstrip("0") if index % 2 else ""
        for index, (part, value) in enumerate(zip(parts, values, strict=True))
    ]
    return tuple((len(number), number, part) for number, part in zip(digits, parts, strict=True))


def natural_places(column: pd.Series) -> pd.Series:
    """Return the places of a column's names in natural order, numbers as they are: a key of ``sort_values``."""
    # Text is `object`, or from pandas 3 on `str`, whose kind is the same.
    if column.dtype.kind != "O":
        return column
    names = sorted(column.dropna().unique(), key=lambda name: natural(str(name)))
    return column.astype(object).map({name: place for place, name in enumerate(names)})


def stage_order(stage: str | None) -> StageOrder:
    """Return a sort key of stages: numbered ones, annealing, longer context, and what follows pretraining.

    A first part without a name goes with stage 1.
    """
    if stage is None:
        return 0, natural("1")
    if match := re.fullmatch(r"(?:stage|phase)[-_]?0*(\d+)", stage, re.IGNORECASE):
        return 0, natural(match[1])
    kind = next((number for number, words in enumerate(_LATER, 1) if words.match(stage)), len(_LATER) + 1)
    return kind, natural(stage.lower())


def training_key(progress: TrainingProgress) -> tuple[object, ...]:
    """Return a sort key of one model's checkpoints: by stage and run, then by step, tokens or words, if known."""
    amounts = tuple(part for name in _AMOUNTS for part in _known(getattr(progress, name)))
    return (not progress.is_placed, *stage_order(progress.stage), natural(progress.run or ""), *amounts)


def branch_of(progress: TrainingProgress, totals: Totals) -> str | None:
    """Return the stage that began again and that a checkpoint is of; None for one of pretraining.

    Of a stage that counts on, the totals are its own numbers.
    """
    own = Totals(progress.step, progress.tokens)
    counts_on = any(mine is not None and mine == total for mine, total in zip(own, totals, strict=True))
    return None if counts_on or stage_order(progress.stage) == stage_order(None) else progress.stage


def totals_of(checkpoints: Sequence[TrainingProgress]) -> list[Totals]:
    """Return the totals of each of a model's checkpoints, which have to be all that there are."""
    of_part: dict[Part, list[TrainingProgress]] = {}
    for checkpoint in checkpoints:
        if checkpoint.is_placed:
            of_part.setdefault(_part(checkpoint), []).append(checkpoint)
    groups = {part: _Group(_ends(of_part[part])) for part in sorted(of_part, key=_part_order)}
    for part, group in groups.items():
        parents = [groups[parent] for parent in _parents(part, groups)]
        if part[1] == stage_order(None):
            group.bases = dict.fromkeys(_AMOUNTS, 0)
        elif continued := [parent for parent in parents if _counts_on(parent, group)]:
            group.bases = continued[0].bases
        else:
            # Of several parents with different ends, such as the ingredients of an average, none is the one.
            ends = {tuple(_total(parent, name) for name in _AMOUNTS) for parent in parents}
            group.bases = dict(zip(_AMOUNTS, ends.pop(), strict=True)) if len(ends) == 1 else {}
    return [_totals(groups[_part(c)], c) if c.is_placed else Totals() for c in checkpoints]


def _totals(group: _Group, checkpoint: TrainingProgress) -> Totals:
    return Totals(_sum(group.bases.get("step"), checkpoint.step), _sum(group.bases.get("tokens"), checkpoint.tokens))


def _part(checkpoint: TrainingProgress) -> Part:
    return checkpoint.run, stage_order(checkpoint.stage)


def _part_order(part: Part) -> tuple[StageOrder, Natural]:
    return part[1], natural(part[0] or "")


def _parents(part: Part, groups: Iterable[Part]) -> list[Part]:
    """Return the parts of the last stage before: of the same run, else of none, else all."""
    before = [other for other in groups if other[1] < part[1]]
    last = max((stage for _, stage in before), default=None)
    of_last = [other for other in before if other[1] == last]
    for wanted in (part[0], None):
        if chosen := [other for other in of_last if other[0] == wanted]:
            return chosen
    return of_last


def _counts_on(parent: _Group, group: _Group) -> bool:
    shared = [name for name in _AMOUNTS if name in parent.ends and name in group.ends]
    return bool(shared) and group.ends[shared[0]][0] > parent.ends[shared[0]][1]


def _total(group: _Group, name: str) -> int | None:
    """Return a part's end since the start of the training."""
    return _sum(group.bases.get(name), group.ends[name][1] if name in group.ends else None)


def _sum(base: int | None, own: int | None) -> int | None:
    return None if base is None or own is None else base + own


def _ends(checkpoints: Sequence[TrainingProgress]) -> dict[str, tuple[int, int]]:
    ends = {}
    for name in _AMOUNTS:
        values = [value for checkpoint in checkpoints if (value := getattr(checkpoint, name)) is not None]
        if values:
            ends[name] = min(values), max(values)
    return ends


def _known(value: int | None) -> tuple[bool, int]:
    return value is None, value or 0

"""Class `Document`: results of one checkpoint in the form of lm-eval's files, and how one is made of values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lmsat_plugin.results.json_values import as_integer

_DATES = (
    # lm-eval's and lighteval's results_2024-04-02T10-38-22.166273, with colons in older files.
    (re.compile(r"(?<!\d)(\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d)"), "%Y-%m-%dT%H-%M-%S"),
    # GPT-NeoX's eval_results_11-25-2022-07-29-28.
    (re.compile(r"(?<!\d)(\d\d-\d\d-\d{4}-\d\d-\d\d-\d\d)(?!\d)"), "%m-%d-%Y-%H-%M-%S"),
)


@dataclass(frozen=True)
class Document:
    """Results of one checkpoint, as a file of lm-eval would hold them."""

    data: dict[str, Any]
    part: str = ""
    """What tells it apart from the other checkpoints of its file; empty where it is alone."""
    checkpoint: dict[str, Any] = field(default_factory=dict)
    """What the file states of the checkpoint, with the keys of a sweep's notes: model, revision, step, tokens, run."""
    corpora: dict[str, str] = field(default_factory=dict)
    """The corpora of tasks that were measured on a text."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The values of one task."""

    task: str
    values: Mapping[str, float]
    """By metric."""
    stderrs: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, bool] = field(default_factory=dict)
    """Whether higher is better, by metric, where the tool says so."""
    shots: int | None = None
    samples: int | None = None
    filter: str = "none"
    corpus: str | None = None


def documents(
    scores: Iterable[Score],
    config: dict[str, Any],
    *,
    date: float | None = None,
    part: str = "",
    checkpoint: dict[str, Any] | None = None,
) -> list[Document]:
    """Return scores of one checkpoint as documents: one, unless a task comes with several shots or corpora.

    ``config`` is as lm-eval writes it, with the name of the program that evaluated as ``library``.
    """
    parts: list[dict[tuple[int | None, str | None, str], list[Score]]] = []
    for score in scores:
        key = score.shots, score.corpus, score.task
        # A document has one entry for each task.
        free = (own for own in parts if key in own or all(task != score.task for _, _, task in own))
        own = next(free, None)
        if own is None:
            own = {}
            parts.append(own)
        own.setdefault(key, []).append(score)
    return [
        Document(
            data=_data([score for several in own.values() for score in several], config, date),
            part=part if index == 0 else f"{part}.{index}",
            checkpoint=checkpoint or {},
            corpora={task: corpus for _, corpus, task in own if corpus is not None},
        )
        for index, own in enumerate(parts)
    ]


def _data(scores: list[Score], config: dict[str, Any], date: float | None) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = {}
    directions: dict[str, dict[str, bool]] = {}
    for score in scores:
        entry = results.setdefault(score.task, {})
        entry.update({f"{name},{score.filter}": value for name, value in score.values.items()})
        entry.update({f"{name}_stderr,{score.filter}": value for name, value in score.stderrs.items()})
        directions.setdefault(score.task, {}).update(score.directions)
    return {
        "results": results,
        "n-shot": {score.task: score.shots for score in scores if score.shots is not None},
        "n-samples": {score.task: {"effective": score.samples} for score in scores},
        "higher_is_better": directions,
        "config": config,
        **({} if date is None else {"date": date}),
    }


def count_of(row: Mapping[str, Any], name: str) -> int | None:
    """Return the count of steps or tokens in a row of a table; None where it is missing.

    Raises ValueError for what is no whole number from 0 on.
    """
    value = row.get(name)
    if value is None:
        return None
    count = as_integer(value)
    if count is None or count < 0:
        raise ValueError(f"'{value!s:.40}' in its column {name} is no whole number from 0 on")
    return count


def date_in_name(name: str) -> float | None:
    """Return the time that a file's name states, taken as UTC, in seconds since 1970; None without one."""
    for pattern, form in _DATES:
        if match := pattern.search(name):
            return date_of(match[1].replace(":", "-"), form)
    return None


def date_of(text: str, form: str) -> float | None:
    """Return the time that a text states in some form, taken as UTC, in seconds since 1970; None for another text."""
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None

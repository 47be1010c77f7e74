"""The scores of each benchmark at the checkpoints of each series, out of results or a table (`benchmarks_of`).

A benchmark is one task and metric, with one number of shots, filter and corpus.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.analysis.input_tables import as_floats, check_steps, is_tidy, numbers, series_in, table_of
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.metrics import metric as metric_named
from lmsat_plugin.metrics import stated_direction
from lmsat_plugin.results.series import data_seen, labelled
from lmsat_plugin.results.tree import Results
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_TELL_APART = {"num_fewshot": None, "filter": "none", "corpus": None}
"""The columns in which results of one task and metric may differ, and what each says where there is nothing to say."""
_SERIES = ["model", "task", "metric", "variant"]
"""The columns that are constant within a series of one benchmark."""
_NUMBERS = ("stderr", "n_samples", "n_params", "n_params_non_embedding", "tokens", "flops", "loss", "chance")
_COLUMNS = {
    *(*_SERIES, *_NUMBERS, "group", "axis", "at", "score", "higher_is_better"),
    *("revision", "path", "filter", "size", "recipe"),
}
_MOST = 1e60
_MOST_NAMED = 8


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The scores of one benchmark."""

    task: str
    metric: str
    variant: str | None
    """The number of shots, the filter and the corpus, where the task has several; else None."""
    higher_is_better: bool
    chance: float | None
    """The score at chance; None where it is unknown."""
    rows: pd.DataFrame
    """A row for each checkpoint, in the order of training within a series: ``model`` (the series' name), ``group`` (the
    name that replicates share), ``at`` (the place on the series' axis), ``score``; and as far as the table has them
    ``stderr, n_samples, n_params, tokens, flops, loss, size, recipe, revision, path``."""

    @property
    def name(self) -> str:
        """The benchmark in words."""
        return label(f"{self.task}, {self.metric}", self.variant)


def benchmarks_of(
    data: Results | pd.DataFrame, *, model: str = "*", task: str = "*", metric: str = "*"
) -> list[Benchmark]:
    """Return the benchmarks of results or of a table, by task, metric and variant.

    Metrics whose better direction is unknown are left out. So are series whose last score is not finite, and those of
    several checkpoints in unknown order, each with a warning.

    Args:
        data: Results, a tidy table, or a table with ``model, task, metric, score`` and, where known, ``step``, or
            ``tokens``, ``run``, ``size``, ``chance``, ``stderr``, ``n_samples``, ``higher_is_better``; or one with
            ``model, loss``, the losses of which are then the one benchmark.
        model, task, metric: Globs.

    Raises:
        LmsatError: For missing columns or numbers, no benchmark, two scores of one checkpoint, shares in per cent, and
            two chance levels of a task.
    """
    table = table_of(data)
    tidy = is_tidy(table)
    measured = measured_chances(table) if tidy else {}
    everything = labelled(series_in(data if isinstance(data, Results) else _tidied(table)))
    named_P = _match(everything.group, model)
    if not named_P.any():
        raise LmsatError(f"no model matches '{model}': there are {_listed(everything.group)}")
    asked_P = _match(everything.task, task) & _match(everything.metric, metric) & (everything.metric != "chance")
    rows = everything[named_P & asked_P]
    rows = rows.assign(higher_is_better=_directions(rows))
    known = rows[rows.higher_is_better.notna()]
    if known.empty:
        raise LmsatError(
            f"no task and metric that match '{task}' and '{metric}' improve in a known direction: there are "
            f"{_listed(everything.task + ' ' + everything.metric)}; a column higher_is_better states it of others"
        )
    tokens = data_seen(known)
    rows = known.rename(columns={"value": "score"}).assign(variant=variants_of(known))
    rows = _finite(_placed(rows if tokens is None else rows.assign(tokens=tokens)))
    groups = rows.groupby(["task", "metric", "variant"], dropna=False, sort=True)
    return [_benchmark(own.reset_index(drop=True), measured) for _, own in groups]


def variants_of(scores: pd.DataFrame) -> list[Any]:
    """Return the number of shots, the filter and the corpus of each score, where its task has several; else None."""
    parts = []
    for name, nothing in _TELL_APART.items():
        if name in scores.columns:
            several = scores.groupby(["task", "metric"])[name].transform("nunique") > 1
            text = name + "=" + scores[name].astype(str)
            parts.append(text.where(several & scores[name].notna() & (scores[name] != nothing), ""))
    variants = [", ".join(filter(None, texts)) or None for texts in zip(*parts, strict=True)]
    return variants or [None] * len(scores)


def chance_of(rows: pd.DataFrame, task: str, name: str, measured: Mapping[str, float]) -> float | None:
    """Return the chance level that the column ``chance`` states, else the one that is known; None if neither is.

    Raises `LmsatError` for a metric that is a share and has scores above 1, and for stated levels that are several or
    none.
    """
    if metric_named(name).is_share and rows["score"].max() > 1:
        raise LmsatError(f"{name} of {task} reaches {rows['score'].max():g}: give shares from 0 to 1, not per cent")
    if "chance" in rows.columns and len(given := rows["chance"].dropna()):
        if given.nunique() > 1:
            raise LmsatError(f"{task} has chance levels of {given.min():g} and {given.max():g}: give one for each task")
        level = float(given.iloc[0])
        if not np.isfinite(level) or (metric_named(name).is_share and not 0 <= level < 1):
            raise LmsatError(f"{task} has a chance level of {level:g} in {name}: give a share from 0 to below 1")
        return level
    return chance_level(task, name, measured)


def _tidied(table: pd.DataFrame) -> pd.DataFrame:
    """Return a user's own table with the columns of a tidy one, and names that are text."""
    if is_tidy(table):
        table = table.drop(columns="score", errors="ignore").rename(columns={"value": "score"})
    elif "score" not in table.columns and "task" not in table.columns and "loss" in table.columns:
        table = table.rename(columns={"loss": "score"}).assign(task="loss", metric="loss")
    needed = ("model", "task", "metric", "score")
    if missing := [name for name in needed if name not in table.columns]:
        raise LmsatError(
            f"the table has no column '{missing[0]}': it needs {', '.join(needed)}, and has {', '.join(table.columns)}"
        )
    if (nameless := table[["model", "task", "metric"]].isna().any(axis=1)).any():
        row = int(nameless.to_numpy().argmax()) + 1
        raise LmsatError(f"row {row} lacks a model, task or metric: fill it in or leave the row out")
    check_steps(table)
    texts: dict[str, Any] = {name: table[name].astype(str) for name in ("model", "task", "metric")}
    return table.drop(columns="value", errors="ignore").rename(columns={"score": "value"}).assign(**texts)


def _match(names: pd.Series, glob: str) -> pd.Series:
    return names.astype(str).map({name: fnmatchcase(name, glob) for name in names.astype(str).unique()}).astype(bool)


def _directions(rows: pd.DataFrame) -> pd.Series:
    known = rows.metric.map(lambda name: metric_named(str(name)).higher_is_better).astype(object)
    if "higher_is_better" not in rows.columns:
        return known
    stated = rows.higher_is_better.map(stated_direction).astype(object)
    return stated.where(stated.notna(), known)


def _placed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of which the place in training is known, and those of a model's only checkpoint."""
    place = rows["at"]
    by_series = rows.assign(known=place.notna(), number=1).groupby(_SERIES, dropna=False, sort=False)
    alone = by_series.number.transform("sum") == 1
    nowhere = by_series.known.transform("sum") == 0
    if (unordered := nowhere & ~alone).any():
        names = _listed(rows.model[unordered])
        if not (place.notna() | alone).any():
            raise LmsatError(f"the order of the checkpoints of {names} is unknown: give their steps")
        logger.warning("Left out: the order of the checkpoints of %s is unknown: give their steps", names)
    return rows.assign(at=place.where(~(nowhere & alone), 0.0))[place.notna() | alone]


def _finite(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of training, with finite scores, of series whose last score is finite."""
    rows = rows[[name for name in rows.columns if name in _COLUMNS]]
    rows = rows.sort_values([*_SERIES, "at"], kind="stable").reset_index(drop=True)
    ends = ~rows.duplicated(_SERIES, keep="last")
    bad = rows[ends & ~np.isfinite(as_floats(rows.score))]
    if len(bad) == ends.sum():
        raise LmsatError("no series has a finite last score: give runs that did not diverge")
    if len(bad):
        logger.warning("Left out, for the last score is not finite: %s", _listed(bad.model + " " + bad.task))
        rows = rows.merge(bad[_SERIES].assign(bad=True), how="left", on=_SERIES)
        rows = rows[rows.bad.isna()].drop(columns="bad")
    rows = numbers(rows, ["score", "at"], optional=_NUMBERS)
    if (far := rows.score.abs() > _MOST).any():
        raise LmsatError(f"a score of {rows.score[far].iloc[0]:g} is none that a benchmark has: correct it")
    if (twice := rows.duplicated([*_SERIES, "at"])).any():
        first = rows[twice].iloc[0]
        raise LmsatError(
            f"{first['model']} has two scores of {first['task']} {first['metric']} at {first['axis'] or 'step'} "
            f"{first['at']:,.0f}: keep one, or give the runs different names in the column run"
        )
    return rows


def _benchmark(rows: pd.DataFrame, measured: Mapping[str, float]) -> Benchmark:
    """Return the benchmark of the rows of one task, metric and variant."""
    task, name, variant = (rows[column].iloc[0] for column in ("task", "metric", "variant"))
    return Benchmark(
        task=str(task),
        metric=str(name),
        variant=variant if isinstance(variant, str) else None,
        higher_is_better=bool(rows.higher_is_better.iloc[0]),
        chance=chance_of(rows, str(task), str(name), measured),
        rows=rows,
    )


def _listed(names: Iterable[Any]) -> str:
    several = sorted(set(map(str, names)))
    more = f" and {len(several) - _MOST_NAMED} more" if len(several) > _MOST_NAMED else ""
    return ", ".join(several[:_MOST_NAMED]) + more

"""Series of a metric over training, one of each model, out of a table, without the beginning of the run.

Shapes: K checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.analysis.input_tables import (
    as_floats,
    check_models,
    check_steps,
    is_not_finite,
    is_tidy,
    numbers,
    records,
)
from lmsat_plugin.analysis.losses import check_nats
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.metrics import metric as known_metric
from lmsat_plugin.metrics import stated_direction
from lmsat_plugin.results.series import (
    SERIES,
    data_seen,
    in_series,
    place_in_words,
    series_label,
    short_count,
    stages_of,
)
from lmsat_plugin.results.training_order import stage_order

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

DEFAULT = "lmsat_loss", "loss"
"""The task and the metric of saturation unless others are chosen."""
_KEYS = (*SERIES, "corpus", "num_fewshot", "filter")
"""The columns that are constant within a series."""
_NUMBER = "series"
"""The column that numbers the series of a table while they are taken apart."""
_MOST_LISTED = 12
_BEGINNING = 0.01
"""The share of a run's steps that is its beginning, where scores are at chance and losses fall steeply."""


@dataclass(frozen=True, kw_only=True)
class SeriesKey:
    """What tells one series from others."""

    model: str
    variant: str | None
    """What distinguishes these results from others of the model; None where nothing does."""
    run: str | None
    """The run, where results name one."""
    stage: str | None
    """The stage, if it begins again; None for a run through its pretraining stages."""
    label: str
    """The name for people: the model, and what tells this series apart from its others."""
    group: str
    """The name that replicates share, series that differ in their run alone."""
    task: str | None
    metric: str
    corpus: str | None
    num_fewshot: int | None
    filter: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class MetricSeries(SeriesKey):
    """One metric of one series at K checkpoints, in the order of training."""

    axis: str
    """What the places count, one of `AXES`."""
    at_K: np.ndarray
    """The checkpoints' places on the axis, int64: steps, for most series."""
    names: tuple[str, ...]
    """The checkpoints' revisions; empty for a table without any."""
    stages: tuple[str, ...] = ()
    """The stages that a series of several stages went through, in order."""
    tokens_K: np.ndarray | None
    """Tokens trained on, float64, NaN where unknown; None if unknown for all."""
    values_K: np.ndarray
    """As measured."""
    stderr_K: np.ndarray | None
    """Standard errors of the values, NaN or 0 where unknown; None if the table has none."""
    higher_is_better: bool
    paths: tuple[str, ...]
    """The result file of each checkpoint, as the table names it; empty for a table without files."""
    chance: float | None = None
    """The value at chance, where it is known."""
    diverged: DivergedAt | None = None
    """From where on to the end no value is finite; None for a run that did not diverge. The K checkpoints are those
    before it."""

    @property
    def is_ratio(self) -> bool:
        """Whether values are compared by their ratio, as perplexities are."""
        return known_metric(self.metric).is_ratio

    @property
    def losses_K(self) -> np.ndarray:
        """The values as losses, of which lower is better: the logarithm of perplexities, negated scores."""
        if self.is_ratio:
            return np.log(self.values_K)
        return -self.values_K if self.higher_is_better else self.values_K

    @property
    def errors_K(self) -> np.ndarray | None:
        """The standard errors of `losses_K`; None unless all are known."""
        if self.stderr_K is None or not (np.isfinite(self.stderr_K) & (self.stderr_K > 0)).all():
            return None
        return self.stderr_K / self.values_K if self.is_ratio else self.stderr_K

    def tokens_at(self, index: int) -> float | None:
        """Return the tokens that a checkpoint was trained on; None if unknown."""
        tokens = np.nan if self.tokens_K is None else float(self.tokens_K[index])
        return tokens if np.isfinite(tokens) else None

    def place(self, index: int) -> str:
        """Return where a checkpoint lies, in words, such as ``step 1,000``."""
        return place_in_words(self.axis, int(self.at_K[index]), self.names[index] if self.names else None)

    def places(self, first: int, last: int, joint: str = "to") -> str:
        """Return where two checkpoints lie, in words, such as ``steps 1,000 to 2,000``."""
        if self.axis == "order":
            return f"{self.place(first)} {joint} {self.place(last)}"
        low, high = (int(self.at_K[index]) for index in (first, last))
        if self.axis == "step":
            return f"steps {low:,} {joint} {high:,}"
        return f"{short_count(low)} {joint} {short_count(high)} {self.axis}"

    def since(self, least: int | None) -> MetricSeries:
        """Return the series from a place on its axis on, by default from a hundredth of the last one."""
        if least is None:
            least = int(np.ceil(_BEGINNING * self.at_K[-1]))
        kept = np.flatnonzero(self.at_K >= max(least, 1))
        return replace(
            self,
            at_K=self.at_K[kept],
            names=tuple(self.names[index] for index in kept) if self.names else (),
            tokens_K=None if self.tokens_K is None else self.tokens_K[kept],
            values_K=self.values_K[kept],
            stderr_K=None if self.stderr_K is None else self.stderr_K[kept],
            paths=tuple(self.paths[index] for index in kept) if self.paths else (),
        )


class DivergedAt(NamedTuple):
    """The place on its axis from which on a series is not finite, and the same in words."""

    at: int
    words: str


def series_of(table: pd.DataFrame, task: str | None = None, metric: str | None = None) -> list[MetricSeries]:
    """Return the metric of each series of a table (`in_series`), corpus, number of shots and filter.

    Args:
        table: A tidy table of results, or one with ``model, step, loss`` (nats per token) and maybe ``tokens, stderr``.
        task: By default ``lmsat_loss``, or the only task there is.
        metric: By default ``loss``, or the only metric there is.

    Raises:
        LmsatError: For a table without these columns, a task or metric that is missing or has to be chosen, a metric
            whose better direction is unknown, and two values of one series at one step that have no names.
    """
    table = in_series(table)
    if is_tidy(table):
        table = table.assign(higher_is_better=_directions(table))
        task, metric = _choose(table, task, metric)
        rows = table[(table.task == task) & (table.metric == metric)]
        rows = rows.rename(columns={"value": metric})
    elif (task, metric) in ((None, None), (None, "loss"), DEFAULT):
        task, metric, rows = None, "loss", table
        if "higher_is_better" not in rows.columns:
            rows = rows.assign(higher_is_better=False)
    else:
        raise LmsatError("this table holds only losses: leave out --task and --metric, or give results")
    if task is None:
        check_models(rows, ("model", "step", "loss"))
    check_steps(rows)
    rows = _placed(rows.reset_index(drop=True))
    keys = [name for name in _KEYS if name in rows.columns]
    rows = rows.assign(**{_NUMBER: rows.groupby(keys, dropna=False, sort=False).ngroup()})
    rows, diverged = _without_diverged_ends(rows, metric)
    rows = numbers(rows, ("step", metric), optional=("tokens", "stderr"))
    if task is None:
        check_nats(rows)
    chance = None if task is None else chance_level(task, metric, measured_chances(table))
    several = [
        replace(
            _series(group.sort_values("step"), task, metric, chance), diverged=diverged.get(int(group[_NUMBER].iloc[0]))
        )
        for _, group in rows.groupby(_NUMBER, sort=False)
    ]
    models = list(dict.fromkeys(series.model for series in several))
    return sorted(several, key=lambda series: (models.index(series.model), stage_order(series.stage)))


def _placed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their places on the axes of their series as ``step``, and with all tokens seen.

    Rows of series whose names say nothing are left out, with a warning. Raises `LmsatError` if no row is left.
    """
    if "at" not in rows.columns or not {"step", "tokens", "words", "revision"} & set(rows.columns):
        return rows
    nowhere = rows.axis.isna()
    for first in records(rows[nowhere].drop_duplicates(["model", "branch", "replicate"])):
        own = rows[nowhere & (rows.model == first["model"])]
        names = ", ".join(dict.fromkeys(map(str, own.revision.dropna()))) if "revision" in own.columns else ""
        said = series_label(*(first.get(key) for key in SERIES))
        said += f", with checkpoints such as {names:.60}" * bool(names)
        advice = "write revisions: [{name: ..., step: ...}] in the sweep's configuration, or give --step-pattern RE"
        if nowhere.all():
            raise LmsatError(f"no result states its training step, tokens or words ({said}): {advice}")
        # A checkpoint that lies on no run, such as the average of several, is no series.
        level = logging.INFO if first["branch"] is not None else logging.WARNING
        logger.log(level, "Left out: no result of %s states its training step, tokens or words: %s", said, advice)
    tokens = data_seen(rows)
    seen: dict[str, Any] = {} if tokens is None else {"tokens": tokens}
    return rows.assign(step=rows["at"], **seen)[~nowhere]


def _without_diverged_ends(rows: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, dict[int, DivergedAt]]:
    """Return the rows without the ends of runs at which no value is finite, and the place of each such end.

    ``rows`` number their series in the column `_NUMBER`. Raises `LmsatError` if no run has a finite value before.
    """
    if not {"step", metric} <= set(rows.columns):
        return rows, {}
    ends: list[np.ndarray] = []
    diverged: dict[int, DivergedAt] = {}
    sentences = []
    ordered = rows.assign(step=as_floats(rows["step"]), place=np.arange(len(rows)), bad=is_not_finite(rows[metric]))
    ordered = ordered[np.isfinite(ordered.step)].sort_values("step", kind="stable")
    for number in ordered[_NUMBER].unique():
        group = ordered[ordered[_NUMBER] == number]
        finite = np.flatnonzero(~group.bad.to_numpy())
        after = int(finite[-1]) + 1 if len(finite) else 0
        if after == len(group):
            continue
        ends.append(group.place.to_numpy()[after:])
        (row,) = records(group.iloc[[after]])
        place = DivergedAt(
            int(row["step"]), place_in_words(row.get("axis") or "step", row["step"], row.get("revision"))
        )
        diverged[int(number)] = place
        if not np.isfinite(as_floats(group[metric])).any():
            sentences.append(f"{series_label(*(row.get(key) for key in SERIES))} diverged at {place.words}")
    kept = rows.drop(rows.index[np.concatenate(ends)]) if ends else rows
    if sentences and not np.isfinite(as_floats(kept[metric])).any():
        raise LmsatError(f"{sentences[0]}, and there is no finite {metric} before: give earlier checkpoints")
    for sentence in sentences:
        logger.warning("%s, and is left out: there is no finite %s before", sentence, metric)
    return kept, diverged


def metrics_of(table: pd.DataFrame, task: str | None = None, metric: str | None = None) -> list[tuple[str, str]]:
    """Return the tasks and metrics of a tidy table that may be judged: lmsat_loss alone where it is among them.

    Args:
        table: Tidy.
        task, metric: Of these alone: names, or patterns of them.

    Raises:
        LmsatError: If there is none, or none whose better direction is known.
    """
    pairs = table[["task", "metric"]].drop_duplicates()
    if pairs.empty:
        raise LmsatError("the table of results has no rows: choose others, or measure some first")
    asked = pairs
    for column, pattern in (("task", task), ("metric", metric)):
        if pattern is not None:
            asked = asked[[name == pattern or fnmatchcase(name, pattern) for name in asked[column]]]
    if asked.empty:
        listed = _listed(pairs.itertuples(index=False, name=None))
        raise LmsatError(f"the results have no {' '.join(filter(None, (task, metric)))}: give one of {listed}")
    directed = table[_directions(table).notna()]
    asked = asked[asked.set_index(["task", "metric"]).index.isin(directed.set_index(["task", "metric"]).index)]
    if asked.empty:
        named = " ".join(filter(None, (task, metric))) or "any metric here"
        raise LmsatError(f"it is not known whether higher is better for {named}: choose a loss or a score")
    choices = list(asked.itertuples(index=False, name=None))
    return [DEFAULT] if DEFAULT in choices else sorted(choices)


def _choose(table: pd.DataFrame, task: str | None, metric: str | None) -> tuple[str, str]:
    """Return the chosen task and metric, or the only ones that have a better direction."""
    choices = metrics_of(table, task, metric)
    if len(choices) > 1:
        raise LmsatError(f"there are several metrics, so name one with --task T --metric M: {_listed(choices)}")
    return choices[0]


def _directions(table: pd.DataFrame) -> pd.Series:
    """Return for each row whether higher is better, as the table states it, or as is known of the metric."""
    if "higher_is_better" not in table.columns:
        return table.metric.map(lambda name: known_metric(str(name)).higher_is_better).astype(object)
    return table.higher_is_better.astype(object).map(stated_direction)


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    names = [" ".join(map(str, pair)) for pair in sorted(pairs)]
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _series(rows: pd.DataFrame, task: str | None, metric: str, chance: float | None) -> MetricSeries:
    types = {"model": str, "variant": str, "run": str, "corpus": str, "num_fewshot": int, "filter": str}
    read = [name for name in dict.fromkeys((*types, *SERIES, "axis")) if name in rows.columns]
    first = records(rows[read].head(1))[0]
    keys: dict[str, Any] = {
        name: None if first.get(name) is None else kind(first[name]) for name, kind in types.items()
    }
    of_series = [first.get(key) for key in SERIES]
    name, axis = series_label(*of_series), first.get("axis") or "step"
    if (twice := rows["step"].duplicated()).any():
        raise LmsatError(
            f"{name} has two values for {axis} {int(rows['step'][twice].iloc[0])}: keep one, or give the runs "
            "different names in the column model"
        )
    if known_metric(metric).is_ratio and (rows[metric] <= 0).any():
        raise LmsatError(f"{name} has a {metric} of {rows[metric].min():g}, which cannot be: leave it out")
    direction = rows["higher_is_better"].dropna()
    tokens, stderr = (
        rows[column].to_numpy(np.float64) if column in rows.columns else None for column in ("tokens", "stderr")
    )
    return MetricSeries(
        task=task,
        metric=metric,
        label=name,
        group=series_label(*of_series[:3]),
        stage=first.get("branch"),
        axis=axis,
        at_K=rows["step"].to_numpy(np.int64),
        names=tuple(map(str, rows["revision"])) if "revision" in rows.columns else (),
        stages=stages_of(rows),
        tokens_K=None if tokens is None or np.isnan(tokens).all() else tokens,
        values_K=rows[metric].to_numpy(np.float64),
        stderr_K=stderr,
        higher_is_better=bool(direction.iloc[0]) if len(direction) else False,
        paths=tuple(rows["path"]) if "path" in rows.columns else (),
        chance=chance,
        **keys,
    )

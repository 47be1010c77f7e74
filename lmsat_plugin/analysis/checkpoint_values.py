"""Values by checkpoint out of a table of results, as figures and leaderboards need them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lmsat_plugin.metrics import ACCURACIES, is_measurement
from lmsat_plugin.metrics import metric as known_metric
from lmsat_plugin.results.series import AXES, data_seen, labelled
from lmsat_plugin.results.training_order import natural, natural_places

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class SizeInName(float):
    """A number of parameters that a model's name states, and nothing else."""


Sizes = dict[str, float | None]
"""The number of parameters of each model, None where unknown, in the order in which models are shown."""
COLUMNS = (
    *("model", "group", "axis", "revision", "step", "tokens", "n_params", "n_params_non_embedding"),
    *("value", "stderr", "path"),
)
# Parts of a benchmark, which is shown as a whole.
_PARTS = ("hendrycksTest-", "mmlu_", "ceval-valid_", "cmmlu_", "bbh_", "blimp_")
_EARLIEST = 0.01
"""The share of a run before which values change too steeply to be drawn beside later ones."""
_AT_END = 0.99
"""Runs whose last checkpoint lies before this share of the furthest one have not reached the end."""


def sizes_of(table: pd.DataFrame) -> Sizes:
    """Return the number of parameters of each model, from small to large; unknown ones come last, by name."""
    known = table[table.n_params.notna()]
    stated = known.n_params_from_name.eq(other=True) if "n_params_from_name" in known.columns else known.n_params.isna()
    of_models = known.assign(stated=stated).groupby("model").agg(size=("n_params", "max"), stated=("stated", "all"))
    sizes: Sizes = dict.fromkeys(map(str, table.model.unique()))
    for model, size, is_stated in of_models.itertuples():
        sizes[str(model)] = SizeInName(size) if is_stated else float(size)
    return dict(sorted(sizes.items(), key=lambda item: (item[1] is None, item[1] or 0, natural(item[0]))))


def values_of(table: pd.DataFrame, task: str, metric: str) -> pd.DataFrame:
    """Return the finite values of a metric, one a checkpoint, with `COLUMNS`, sorted by model and step.

    Models are series (`labelled`), ``step`` is the place on the series' ``axis``, float64, and ``tokens`` are all seen.
    Of several numbers of shots or filters, those that most checkpoints have are kept.
    """
    ways = ways_of(table, task, metric)
    return max(ways.values(), key=len) if ways else _values(labelled(table)[:0])


def ways_of(table: pd.DataFrame, task: str, metric: str) -> dict[str, pd.DataFrame]:
    """Return the values of a metric as `values_of` does, by number of shots and filter, in words such as ``5-shot``.

    Filters are named where there are several.
    """
    import pandas as pd

    table = labelled(table)
    rows = table[(table.task == task) & (table.metric == metric) & np.isfinite(table.value.to_numpy("float64"))]
    several = rows["filter"].nunique(dropna=False) > 1
    ways = {}
    for (shots, name), own in rows.groupby(["num_fewshot", "filter"], dropna=False):
        parts = [] if pd.isna(shots) else [f"{int(shots)}-shot"]
        ways[", ".join([*parts, str(name)] if several else parts)] = _values(own)
    return ways


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(step=rows["at"], tokens=data_seen(rows))
    rows = rows.drop_duplicates(["model", "revision", "step"], keep="last")
    return rows.sort_values(["model", "step"], ignore_index=True, key=natural_places)[list(COLUMNS)]


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows from a hundredth of their model's last step on, of models with at least two steps there."""
    rows = rows[rows.step.notna()].assign(step=lambda own: own.step.astype("float64"))
    rows = rows[(rows.step > 0) & (rows.step >= _EARLIEST * rows.groupby("model").step.transform("max"))]
    return rows[rows.groupby("model").step.transform("nunique") > 1].drop_duplicates(["model", "step"], keep="last")


def by_axis(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of `by_step` on each axis, steps first: those on different axes do not compare."""
    return [(axis, own) for axis in AXES if len(own := rows[rows.axis == axis])]


def last_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each model's row of the last checkpoint: every analysis takes the same one.

    It is the furthest on the axis of its series. A checkpoint whose place is unknown is the last only where there is no
    other; of several without a place none is.
    """
    rows = rows[~in_unknown_order(rows)]
    order = rows.sort_values(_place(rows), na_position="first", kind="stable")
    return order.groupby("model", sort=False).tail(1)


def at_the_end(last: pd.DataFrame) -> pd.DataFrame:
    """Return the last checkpoints without those of runs that end before others of their model.

    ``last`` has ``model, group, at``, a row for each series.
    """
    furthest = last.groupby("group")["at"].transform("max")
    return last[~(last["at"] < _AT_END * furthest)]


def evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most ``most`` rows of each model, evenly spaced in the order of training, with that of `last_of`.

    Of two or more the first is among them, too. A row without a place comes before all others.
    """
    rows = rows.sort_values(_place(rows), na_position="first", kind="stable")
    by_model = [np.asarray(index) for index in rows.groupby("model").indices.values()]
    kept = [index[np.linspace(len(index) - 1, 0, min(most, len(index))).round().astype(int)] for index in by_model]
    return rows.iloc[np.sort(np.concatenate(kept))] if kept else rows


def in_unknown_order(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are of models with several checkpoints whose names say nothing of their order."""
    import pandas as pd

    by_model = rows.groupby("model", sort=False)
    if "revision" not in rows.columns:
        return pd.Series(data=False, index=rows.index)
    return (by_model[_place(rows)].transform("count") == 0) & (by_model.revision.transform("nunique") > 1)


def _place(rows: pd.DataFrame) -> str:
    return "at" if "at" in rows.columns else "step"


def over_runs(rows: pd.DataFrame, x: str = "step") -> pd.DataFrame:
    """Return the rows of `values_of` with the mean of replicates in the place of their runs.

    The columns are those of the rows, and ``low, high, runs``. The mean is over the runs that reach a place, each of
    which is linear between its checkpoints; ``low`` and ``high`` are the least and the greatest of their values. Where
    several runs are averaged, ``model`` is the name that they share, and ``stderr`` is missing.
    """
    import pandas as pd

    rows = rows.assign(low=np.nan, high=np.nan, runs=1)
    of_group = rows.groupby("group", sort=False).model.transform("nunique")
    parts = [rows[of_group <= 1]]
    for group, own in rows[of_group > 1].groupby("group", sort=False):
        own = own[own[x].notna()]
        at_X = np.unique(own[x].to_numpy("float64"))
        runs = [run.drop_duplicates(x, keep="last").sort_values(x) for _, run in own.groupby("model")]
        values_RX = np.array([
            np.interp(at_X, run[x].to_numpy("float64"), run.value.to_numpy("float64"), left=np.nan, right=np.nan)
            for run in runs
        ])  # fmt: skip
        counts_X = np.isfinite(values_RX).sum(0)
        first = own.drop_duplicates(x).set_index(x).loc[at_X].reset_index()
        parts.append(
            first.assign(model=group, value=np.nanmean(values_RX, 0), stderr=np.nan, runs=counts_X).assign(
                low=np.where(counts_X > 1, np.nanmin(values_RX, 0), np.nan),
                high=np.where(counts_X > 1, np.nanmax(values_RX, 0), np.nan),
            )
        )
    return pd.concat([part for part in parts if len(part)], ignore_index=True) if len(rows) else rows


def spread(items: Iterable[T], most: int) -> list[T]:
    """Return at most ``most`` of the items, evenly spread over their order, the first and the last among them."""
    items = list(items)
    return [
        items[index] for index in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    ]


def is_part(task: str) -> bool:
    """Return whether a task is a part of a benchmark, such as one of MMLU's subjects."""
    return task.startswith(_PARTS)


def judged_scores(pairs: Sequence[tuple[str, str]], groups: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return one metric of each task of these, without what repeats others: what is judged unless more is asked for.

    It is a perplexity where the task has one, else the first of its `ACCURACIES`; a task with neither keeps all.
    Left out are parts of a benchmark, and ``groups``, the means of tasks that are there themselves.
    """
    whole = [pair for pair in pairs if not is_part(pair[0])]
    whole = [pair for pair in whole if pair[0] not in groups or f"{pair[0]}_" in _PARTS] or whole or list(pairs)
    by_task: dict[str, list[str]] = {}
    for task, metric in whole:
        by_task.setdefault(task, []).append(metric)
    chosen = []
    for task, metrics in by_task.items():
        ratios = [name for name in metrics if known_metric(name).is_ratio]
        first = next((name for name in (*ratios, *ACCURACIES) if name in metrics), None)
        chosen += [(task, name) for name in ([first] if first else metrics)]
    return chosen


def shown_scores(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return each downstream task with the metric that is its score, without parts such as MMLU's subjects."""
    there = set(zip(table.task, table.metric, strict=True))
    tasks = [task for task in sorted(set(table.task), key=natural) if not (is_part(task) or is_measurement(task))]
    scores = ((task, next((name for name in ACCURACIES if (task, name) in there), None)) for task in tasks)
    return [(task, metric) for task, metric in scores if metric is not None]

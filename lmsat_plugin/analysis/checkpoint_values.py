"""Values by checkpoint out of a table of results: what figures draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.metrics import ACCURACIES

if TYPE_CHECKING:
    import pandas as pd


Sizes = dict[str, float | None]
"""The parameters of each model, None where they are not known; in the order in which models are shown."""
COLUMNS = (
    *("model", "revision", "step", "tokens", "n_params", "n_params_non_embedding"),
    *("value", "stderr", "path"),
)
# Parts of a benchmark, of which the whole is shown, and the Brier score and the like of tasks besides.
_PARTS = ("hendrycksTest-", "mmlu_", "ceval-valid_", "cmmlu_", "bbh_", "blimp_", "lmsat_")
_EARLIEST = 0.01
"""The share of a run before which values change too much to be drawn beside later ones."""


def sizes_of(table: pd.DataFrame) -> Sizes:
    """Return the parameters of each model, from small to large; models of unknown size come last, by name."""
    known = table[table.n_params.notna()].groupby("model").n_params.max()
    sizes: Sizes = {
        str(model): float(known[model]) if model in known else None for model in table.model.unique()
    }
    return dict(sorted(sizes.items(), key=lambda item: (item[1] is None, item[1] or 0, item[0])))


def values_of(table: pd.DataFrame, task: str, metric: str) -> pd.DataFrame:
    """Return a metric of each checkpoint, `COLUMNS`, by model and step, without those that are not finite.

    Where there are several numbers of shots or filters, those that most checkpoints have.
    """
    rows = table[(table.task == task) & (table.metric == metric)]
    rows = rows[np.isfinite(rows.value.to_numpy("float64"))]
    kinds = rows.num_fewshot.fillna(-1).astype(str) + " " + rows["filter"].astype(str)
    if len(rows):
        rows = rows[kinds == kinds.mode().iloc[0]]
    rows = rows.drop_duplicates(["model", "revision", "step"], keep="last")
    return rows.sort_values(["model", "step"], ignore_index=True)[list(COLUMNS)]


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a step from a hundredth of their model's last on, of models with two such or more."""
    rows = rows[rows.step.notna()].assign(step=lambda own: own.step.astype("float64"))
    rows = rows[(rows.step > 0) & (rows.step >= _EARLIEST * rows.groupby("model").step.transform("max"))]
    return rows[rows.groupby("model").step.transform("nunique") > 1].drop_duplicates(
        ["model", "step"], keep="last"
    )


def last_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each model's last checkpoint; one without a step is taken for the last."""
    return evenly(rows, 1)


def furthest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each model's row with the most tokens, or the latest step where not all say their tokens."""
    order = "tokens" if rows.tokens.notna().all() else "step"
    return rows.sort_values(order, na_position="first", kind="stable").groupby("model", sort=False).tail(1)


def evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return so many of each model's rows, evenly over their order by step, the last and, of two, the first among them.

    One without a step is taken for the last.
    """
    rows = rows.sort_values("step", na_position="last", kind="stable")
    places = [np.asarray(own) for own in rows.groupby("model").indices.values()]
    kept = [own[np.linspace(len(own) - 1, 0, min(most, len(own))).round().astype(int)] for own in places]
    return rows.iloc[np.sort(np.concatenate(kept))] if kept else rows


def shown_scores(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return a metric of each downstream task, an accuracy or the like; not of parts such as MMLU's subjects."""
    there = set(zip(table.task, table.metric, strict=True))
    tasks = [task for task in sorted(set(table.task)) if not task.startswith(_PARTS)]
    found = ((task, next((name for name in ACCURACIES if (task, name) in there), None)) for task in tasks)
    return [(task, metric) for task, metric in found if metric is not None]

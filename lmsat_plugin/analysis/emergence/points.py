"""Scores beside losses, by task, metric and variant, out of a table or results; warns where tokenizers differ."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.benchmark_scores import chance_of, variants_of
from lmsat_plugin.analysis.chance import measured_chances
from lmsat_plugin.analysis.input_tables import check_magnitudes, check_steps, is_tidy, numbers, series_in, table_of
from lmsat_plugin.analysis.losses import OTHER_VOCABULARY, check_nats, loss_of_results
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.metrics import is_measurement
from lmsat_plugin.metrics import metric as metric_named
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.training_order import natural, natural_places
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NEEDED = ("model", "task", "metric")
_RUN = "run of the row"
"""The column that tells runs apart: a model, or one of its replicates."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one task and metric, a row for each checkpoint: ``model, loss, score, variance`` and factors."""

    task: str
    metric: str
    variant: str | None
    """The number of shots and the filter, where the task has several; else None."""
    loss: str
    """The name of the loss: ``loss`` is in nats per token."""
    chance: float | None
    """The score at chance; None where it is unknown."""
    perfect: float | None
    """The best possible score; None where it is unknown."""
    sign: int
    """1 where higher scores are better, −1 where lower ones are."""
    table: pd.DataFrame
    """In the order of the runs' training; ``variance`` is the sampling variance, 0 where unknown."""

    @property
    def losses_P(self) -> np.ndarray:
        """The losses, in the unit of the table."""
        return self.table["loss"].to_numpy()

    @property
    def gains_P(self) -> np.ndarray:
        """The scores, negated where lower is better, from chance where that is known."""
        return self.sign * (self.table["score"].to_numpy() - (self.chance or 0.0))

    @property
    def runs(self) -> list[np.ndarray]:
        """The rows of each run, in the order of training: of each model, or of each of its replicates."""
        runs_P = self.table[_RUN if _RUN in self.table.columns else "model"].to_numpy()
        return [np.flatnonzero(runs_P == run) for run in dict.fromkeys(runs_P)]

    def thinned(self, most: int) -> tuple[Scores, int]:
        """Return at most about ``most`` rows: each n-th checkpoint of each run, its last one among them; and that n."""
        every = -(-len(self.table) // most)
        if every <= 1:
            return self, 1
        kept = np.sort(np.concatenate([run[::-1][::every] for run in self.runs]))
        return replace(self, table=self.table.iloc[kept].reset_index(drop=True)), every

    def normalised(self) -> np.ndarray:
        """Return the scores scaled to 0 at chance and 1 if perfect (Du et al. 2024, Sec. 5); NaN if one is unknown."""
        if self.chance is None or self.perfect is None:
            return np.full(len(self.table), np.nan)
        return (self.table["score"].to_numpy() - self.chance) / (self.perfect - self.chance)


def scores_of(
    data: Results | pd.DataFrame, *, loss: str = "loss", task: str = "*", metric: str = "*", factor: str | None = None
) -> list[Scores]:
    """Return the scores of each task, metric and variant, beside the losses of their checkpoints.

    Metrics that do not rise with ability are left out, except the Brier score; so are those of unknown direction.

    Args:
        data: Results, whose scores are joined with the metric ``loss`` of the checkpoint's ``lmsat_loss``; or a table
            with the columns ``model, task, metric, score`` and that of the loss, and ``run`` where models have several.
        loss: The column, or the metric of ``lmsat_loss``, that is the loss.
        task, metric: Globs.
        factor: A column that has to be there.

    Raises:
        LmsatError: Without a column, loss or score; for losses not in nats, shares in per cent, two chances of a task.
    """
    table, measured = table_of(data), {}
    if is_tidy(table):
        rows, measured = _of_results(data, loss), measured_chances(table)
    else:
        rows = _of_csv(table, loss)
    if loss == "loss":
        _warn_of_vocabularies(rows)
    if factor is not None and factor not in rows.columns:
        raise LmsatError(f"the table has no column '{factor}' for a factor: it has {', '.join(rows.columns)}")
    keys = ["task", "metric", "variant"]
    groups = rows.sort_values(keys, key=natural_places, kind="stable").groupby(keys, dropna=False, sort=False)
    all_scores = [
        scores
        for (name, kind, _), group in groups
        if fnmatchcase(str(name), task) and fnmatchcase(str(kind), metric)
        for scores in _scores(group, loss, measured)
    ]
    if not all_scores:
        raise LmsatError(
            f"no task and metric that match '{task}' and '{metric}' are scores that improve in a known direction: "
            f"there are {', '.join(sorted(set(rows.task + ' ' + rows.metric), key=natural)[:8])}; "
            "a column higher_is_better states the direction of others"
        )
    return all_scores


def _of_csv(table: pd.DataFrame, loss: str) -> pd.DataFrame:
    if missing := [name for name in (*NEEDED, loss, "score") if name not in table.columns]:
        raise LmsatError(
            f"the table has no column '{missing[0]}': it needs model, {loss}, task, metric and score, "
            f"and has {', '.join(table.columns)}"
        )
    if (nameless := table[list(NEEDED)].isna().any(axis=1)).any():
        row = int(nameless.to_numpy().argmax()) + 1
        raise LmsatError(f"row {row} lacks a model, task or metric: fill it in or leave the row out")
    if loss != "loss":
        table = table.drop(columns="loss", errors="ignore").rename(columns={loss: "loss"})
    check_steps(table)
    rows = numbers(table, ["loss", "score"], optional=("chance", "stderr", "n_samples", "step"), positive=["loss"])
    check_magnitudes(rows, ["loss"])
    if loss == "loss":
        check_nats(rows)
    rows = rows.assign(**{name: rows[name].astype(str) for name in NEEDED})
    several = rows["run"].astype(object).where(rows["run"].notna(), "").astype(str) if "run" in rows.columns else ""
    rows = rows.assign(**{_RUN: rows["model"] + " " + several})
    return rows.assign(variant=None).reset_index(drop=True)


def _of_results(data: Results | pd.DataFrame, loss: str) -> pd.DataFrame:
    """Return results as the rows of such a table, of the checkpoints that have both a loss and scores."""
    table = labelled(series_in(data))
    checkpoint = ["model", "revision"] if "revision" in table.columns else ["model"]
    losses = labelled(loss_of_results(data, loss))[[*checkpoint, "loss"]]
    losses = losses.drop_duplicates(checkpoint, keep="last")
    scores = table[~table.task.map(is_measurement).astype(bool)].assign(step=lambda own: own["at"])
    scores = scores.assign(variant=variants_of(scores))
    rows = scores.rename(columns={"value": "score"}).merge(losses, on=checkpoint)
    if rows.empty:
        raise LmsatError(
            "no checkpoint has both lmsat_loss and scores: measure both, under one model's name and revision"
        )
    # Replicates are one model, whose runs are drawn.
    rows = rows.assign(**{_RUN: rows.model, "model": rows.group})
    return numbers(rows, ["loss", "score"], optional=("stderr", "n_samples", "step")).reset_index(drop=True)


def _warn_of_vocabularies(rows: pd.DataFrame) -> None:
    if "vocab_size" not in rows.columns or not len(sizes := rows["vocab_size"].dropna().astype(float)):
        return
    if sizes.max() > OTHER_VOCABULARY * sizes.min():
        logger.warning(
            "vocabularies of %d to %d tokens: losses per token of different tokenizers do not compare; "
            "take bits_per_byte for the loss",
            sizes.min(),
            sizes.max(),
        )


def _scores(rows: pd.DataFrame, loss: str, measured: Mapping[str, float]) -> Iterator[Scores]:
    """Yield the scores in rows of one task, metric and variant, if the metric measures an ability."""
    task, name, variant = (rows[column].iloc[0] for column in ("task", "metric", "variant"))
    kind = metric_named(name)
    stated = rows["higher_is_better"].dropna() if "higher_is_better" in rows.columns else ()
    rises = kind.higher_is_better is True or (len(stated) > 0 and all(stated))
    if not (rises or kind.is_score):
        return
    order = ["model", _RUN, "step"]
    if "step" not in rows.columns:
        rows, order = rows.assign(order=-rows["loss"]), ["model", _RUN, "order"]
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    sign = 1 if rises else -1
    yield Scores(
        task=task,
        metric=name,
        variant=variant if isinstance(variant, str) else None,
        loss=loss,
        chance=chance_of(rows, task, name, measured),
        perfect=0.0 if sign < 0 else 1.0 if rows["score"].max() <= 1 else None,
        sign=sign,
        table=rows.assign(variance=_variances(rows, sign)),
    )


def _variances(rows: pd.DataFrame, sign: int) -> np.ndarray:
    """Return sampling variances: from ``stderr``, else of shares of ``n_samples`` questions, else 0."""
    scores_P = rows["score"].to_numpy()
    if "stderr" in rows.columns and rows["stderr"].notna().all():
        return rows["stderr"].to_numpy() ** 2
    counted = "n_samples" in rows.columns and rows["n_samples"].gt(0).all()
    if counted and sign > 0 and scores_P.min() >= 0 and scores_P.max() <= 1:
        return scores_P * (1 - scores_P) / rows["n_samples"].to_numpy()
    return np.zeros(len(rows))

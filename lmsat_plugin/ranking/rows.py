"""The rows of a leaderboard: the values of each model at its last checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.checkpoint_values import in_unknown_order, last_of
from lmsat_plugin.analysis.downstream_average import above_line
from lmsat_plugin.analysis.losses import loss_of_results
from lmsat_plugin.analysis.scaling_laws import FittedLaw
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import data_seen
from lmsat_plugin.results.training_order import natural

Rows = dict[str, dict[str, Any]]
"""By model: values by column, and standard errors as ``name_stderr``; absent or None where unknown."""


def ordered(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of models whose last checkpoint is known, and a sentence on each other model.

    Raises `LmsatError` if there is no such model.
    """
    unknown = in_unknown_order(table)
    sentences = []
    for model, own in table[unknown].groupby("model"):
        names = ", ".join(map(str, own.revision.unique()))
        sentences.append(
            f"{model} is left out, since names such as {names:.60} do not say which checkpoint is the last: write "
            "revisions: [{name: ..., step: ...}] in the sweep's configuration, or give --step-pattern RE"
        )
    if unknown.all() and sentences:
        raise LmsatError(sentences[0])
    return table[~unknown], [f"{sentence}." for sentence in sentences]


def last_losses(table: pd.DataFrame) -> pd.DataFrame:
    """Return lmsat_loss at each model's last checkpoint, in the columns of `loss_of_results`; no row without any."""
    if not ((table.task == "lmsat_loss") & (table.metric == "loss")).any():
        return table[:0].assign(loss=np.nan)
    return last_of(loss_of_results(table))


def last_checkpoints(table: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """Return each model's last checkpoint with lmsat_loss, or without any its last one.

    The columns are ``model, group, axis, at, revision``. ``losses`` are as `last_losses` returns them.
    """
    keys = ["model", "group", "axis", "at", "revision"]
    others = last_of(table[~table.model.isin(losses.model)])
    return pd.concat([part[keys] for part in (losses, others) if len(part)], ignore_index=True)


def values_at(table: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Return all values of a table at the checkpoints that `last_checkpoints` returns."""
    keys = ["model", "revision"]
    return table.merge(last[keys], on=keys)


def rows_of(table: pd.DataFrame, losses: pd.DataFrame, finals: pd.DataFrame) -> Rows:
    """Return each model's row: its description, losses, geometry, and the head's capacity.

    Args:
        table: Tidy, with all checkpoints.
        losses: As `last_losses` returns them.
        finals: As `values_at` returns them.
    """
    of_models = {str(model): values for model, values in finals.groupby("model")}
    rows = {model: _description(of_models[model]) for model in sorted(of_models, key=natural)}
    _add_losses(rows, table, losses, finals)
    for task, metric in (("lmsat_anisotropy", "anisotropy_last"), ("lmsat_head", "singular_entropy")):
        for model, value in _values(finals, task, metric).items():
            rows[model][metric] = value
    widths = finals[finals.hidden_size.notna()].groupby("model").hidden_size.first()
    for model, rank in _values(finals, "lmsat_head", "effective_rank").items():
        if model in widths.index:
            rows[model]["head_capacity"] = rank / int(widths[model])
    return rows


def _description(values: pd.DataFrame) -> dict[str, Any]:
    first = values.iloc[0]
    seen = data_seen(values)
    counts = {"n_params": values.n_params.dropna(), "tokens": values.tokens[:0] if seen is None else seen.dropna()}
    known = {name: int(column.iloc[0]) for name, column in counts.items() if len(column)}
    if "n_params_from_name" in values.columns and values.n_params_from_name.eq(other=True).any():
        known["n_params_from_name"] = True
    return {"model": first.model, "checkpoint": first.revision, **known}


def _add_losses(rows: Rows, table: pd.DataFrame, losses: pd.DataFrame, finals: pd.DataFrame) -> None:
    if losses.empty:
        return
    for model, loss, stderr in zip(losses.model, losses.loss, losses.stderr, strict=True):
        if np.isfinite(loss):
            rows[model] |= {"loss": loss, "loss_stderr": stderr if np.isfinite(stderr) else None}
    every = loss_of_results(table)
    for model, own in every[np.isfinite(every.loss)].groupby("model"):
        if len(own) > 1:
            best = own.loc[own.loss.idxmin()]
            step = None if own.step.isna()[best.name] else int(best.step)
            rows[str(model)] |= {"best_loss": float(best.loss), "best_step": step}
    for model, bits in _values(finals, "lmsat_loss", "bits_per_byte").items():
        loss, stderr = (rows[model].get(name) for name in ("loss", "loss_stderr"))
        rows[model]["bits_per_byte"] = bits
        if loss and stderr is not None:
            # On one text, bits per byte are a multiple of nats per token.
            rows[model]["bits_per_byte_stderr"] = stderr * bits / loss


def _values(finals: pd.DataFrame, task: str, metric: str) -> dict[str, float]:
    """Return the finite values of a metric by model."""
    rows = finals[(finals.task == task) & (finals.metric == metric) & np.isfinite(finals.value)]
    return dict(zip(rows.model, rows.value, strict=True))


def same_tokens(finals: pd.DataFrame) -> bool:
    """Return whether lmsat_loss of all models is on equally many tokens and bytes, as far as results state them."""
    tokens, sizes = (_values(finals, "lmsat_loss", name) for name in ("tokens", "bytes"))
    return len({(tokens[model], sizes[model]) for model in tokens.keys() & sizes.keys()}) < 2


def add_law(rows: Rows, losses: pd.DataFrame, law: FittedLaw) -> None:
    """Add the gap to a law of ``n_params`` and ``tokens``, in per cent of its loss (Godey et al. 2024, Fig. 1b)."""
    known = losses[losses.tokens.fillna(0).gt(0) & losses.n_params.notna() & np.isfinite(losses.loss)]
    if len(known):
        predicted = law.predict(known).rows
        for model, gap in zip(predicted.model, predicted.gap, strict=True):
            rows[model]["law_gap"] = 100 * gap


def add_above_loss(rows: Rows, loss: str) -> int:
    """Add how far each downstream average lies above the line of the other models' averages against a column of losses.

    Return the number of models that have both; 0 where they are too few for lines, see `above_line`.
    """
    both = [row for row in rows.values() if None not in (row.get(loss), row.get("downstream"))]
    lines = above_line(*(np.array([row[name] for row in both]) for name in (loss, "downstream")))
    if lines is None:
        return 0
    for row, above, stderr in zip(both, *lines, strict=True):
        row |= {"above_loss": float(above), "above_loss_stderr": float(stderr)}
    return len(both)

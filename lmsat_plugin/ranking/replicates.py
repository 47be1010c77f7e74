"""Rows of models with several runs, replicates: their mean at the end of training, and how sure it is.

Shapes: M documents, N runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.checkpoint_values import at_the_end
from lmsat_plugin.analysis.stats.bootstrap import NORMAL, TAIL
from lmsat_plugin.analysis.stats.ratio import ratio_stderr
from lmsat_plugin.ranking.rows import Rows
from lmsat_plugin.results.series import place_in_words

Documents = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Nats and tokens of each of the M documents, by a name."""

METHOD = (
    "Where a model has several runs, its row is their mean at the end of training. Its ± adds the variance between "
    "runs, over their number, to that of the sample of documents or questions."
)
_MEANS = (*("loss", "bits_per_byte", "downstream", "anisotropy_last", "head_capacity", "singular_entropy"),)
_COUNTS = ("n_params", "n_params_from_name", "tokens")


@dataclass
class Pooled:
    """The rows of a leaderboard, where the runs of one model have one row."""

    rows: Rows
    documents: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """By row; the mean over runs."""
    between: dict[tuple[str, str], float] = field(default_factory=dict)
    """The standard error of a mean over runs that comes from how these differ, by row and column."""
    notes: list[str] = field(default_factory=list)


def pool_runs(rows: Rows, last: pd.DataFrame, documents: Documents) -> Pooled:
    """Return the rows with the mean of each model's runs in the place of their rows.

    Args:
        rows: By series.
        last: The last checkpoint of each series, ``model, group, axis, at, revision``.
        documents: By series.
    """
    counted = set(at_the_end(last).model)
    pooled = Pooled(rows={})
    for group, own in last.groupby("group", sort=False):
        name, models = str(group), [str(model) for model in own.model]
        if len(models) == 1:
            (model,) = models
            pooled.rows[model] = rows[model]
            if model in documents:
                pooled.documents[model] = documents[model]
            continue
        runs = [model for model in models if model in counted]
        end = own.sort_values("at", na_position="first", kind="stable").iloc[-1]
        place = place_in_words(end.axis, end["at"], end.revision) if isinstance(end.axis, str) else str(end.revision)
        if early := [model for model in models if model not in counted]:
            pooled.notes.append(f"Not in the mean of {name}, since they end before {place}: {', '.join(early)}.")
        if broken := [model for model in runs if rows[model].get("loss") is None and "loss" in _columns(rows, runs)]:
            pooled.notes.append(f"Not in the mean of {name}, since their last loss is not finite: {', '.join(broken)}.")
            runs = [model for model in runs if model not in broken]
        revisions = set(own.revision[own.model.isin(runs)])
        row = _mean([rows[model] for model in runs])
        row |= {"model": name, "checkpoint": revisions.pop() if len(revisions) == 1 else place}
        shared = _shared([documents[model] for model in runs if model in documents])
        if shared is not None and all(model in documents for model in runs):
            pooled.documents[name] = shared
        _add_errors(row, [rows[model] for model in runs], pooled, shared)
        pooled.rows[name] = row
    if any("runs" in row for row in pooled.rows.values()):
        pooled.notes.insert(0, METHOD)
    return pooled


def _columns(rows: Rows, models: Sequence[str]) -> set[str]:
    return {name for model in models for name, value in rows[model].items() if value is not None}


def _mean(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the means of the columns that all runs have, and the least loss of all their checkpoints."""
    row: dict[str, Any] = {"runs": len(runs)}
    for name in _COUNTS:
        if known := [run[name] for run in runs if run.get(name) is not None]:
            row[name] = max(known)
    for name in _MEANS:
        values = [run.get(name) for run in runs]
        if None not in values:
            row[name] = float(np.mean(np.array(values, dtype=np.float64)))
    best = [run for run in runs if run.get("best_loss") is not None]
    if best:
        least = min(best, key=lambda run: run["best_loss"])
        row |= {"best_loss": least["best_loss"], "best_step": least.get("best_step")}
    return row


def _shared(several: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean nats of each document over runs; None where runs read different documents."""
    if not several or any(not np.array_equal(several[0][1], tokens_M) for _, tokens_M in several):
        return None
    return np.mean([nats_M for nats_M, _ in several], axis=0), several[0][1]


def _add_errors(
    row: dict[str, Any], runs: Sequence[dict[str, Any]], pooled: Pooled, documents: tuple[np.ndarray, np.ndarray] | None
) -> None:
    """Add the standard errors of the means, and the ends of their 90 % intervals.

    Runs read the same documents and questions. So their errors from the sample do not average out, and the mean has the
    error of the mean of the runs' values of each document, or about the mean of the runs' errors. How runs differ adds
    s / √N, with Student's t of N − 1 degrees of freedom in the interval.
    """
    from scipy.special import stdtrit

    for name in ("loss", "bits_per_byte", "downstream"):
        if row.get(name) is None:
            continue
        stderrs = [run.get(f"{name}_stderr") for run in runs]
        sample = None if None in stderrs else float(np.mean(np.array(stderrs, dtype=np.float64)))
        if documents is not None and name != "downstream":
            nats_M, tokens_M = documents
            sums_M = nats_M * (row[name] / row["loss"])
            of_documents = float(ratio_stderr(sums_M, tokens_M))
            # A single document has none.
            sample = of_documents if np.isfinite(of_documents) else None
        between = 0.0
        if len(runs) > 1:
            between = float(np.std([run[name] for run in runs], ddof=1) / np.sqrt(len(runs)))
            pooled.between[row["model"], name] = between
        if sample is None and len(runs) == 1:
            continue
        row[f"{name}_stderr"] = float(np.hypot(sample or 0.0, between))
        if len(runs) > 1:
            half = np.hypot(NORMAL * (sample or 0.0), stdtrit(len(runs) - 1, 1 - TAIL) * between)
            row |= {f"{name}_low": float(row[name] - half), f"{name}_high": float(row[name] + half)}

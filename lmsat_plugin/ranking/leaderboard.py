"""The leaderboard: models ranked by the loss at their last checkpoints.

Shapes: M documents.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.downstream_average import downstream_average
from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.analysis.saturation.by_model import document_losses
from lmsat_plugin.analysis.saturation.replicates import groups_of, over_runs
from lmsat_plugin.analysis.saturation.several_metrics import by_scores
from lmsat_plugin.analysis.scaling_laws import FittedLaw
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ranking.columns import BY_NAME, COLUMNS, Column
from lmsat_plugin.ranking.ranks import Scored, rank_models
from lmsat_plugin.ranking.replicates import Documents, Pooled, pool_runs
from lmsat_plugin.ranking.rows import (
    Rows,
    add_above_loss,
    add_law,
    last_checkpoints,
    last_losses,
    ordered,
    rows_of,
    same_tokens,
    values_at,
)
from lmsat_plugin.results.framed import Framed
from lmsat_plugin.results.series import labelled


@dataclass(frozen=True, eq=False)
class Leaderboard(Framed):
    """The models, best first."""

    ranked_by: Column
    columns: tuple[Column, ...]
    """Those of `COLUMNS` that have data."""
    rows: tuple[dict[str, Any], ...]
    """Values by column, and standard errors as ``name_stderr``; None where unknown. A mean over runs has the ends of
    its 90 % interval as ``name_low`` and ``name_high``. ``n_params_from_name`` is true where the model's name states
    ``n_params`` and nothing else does."""
    notes: tuple[str, ...]
    """How to read it."""

    def frame_rows(self) -> tuple[dict[str, Any], ...]:
        """Return the models, best first."""
        return self.rows

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain data, for JSON."""
        columns = tuple(column._asdict() for column in self.columns)
        return {**asdict(self), "ranked_by": self.ranked_by.name, "columns": columns}


def leaderboard_of(analyses: Analyses) -> Leaderboard:
    """Return the leaderboard of a tree of results. Losses by document, where they are kept, make its tests sharper.

    Raises:
        LmsatError: As `make_leaderboard`.
    """
    table, results = analyses.table, analyses.results
    last = results.table[results.table.path.isin(last_losses(table).path)]
    documents = document_losses(replace(results, table=last))
    board = make_leaderboard(table, analyses.saturation, analyses.law, documents, groups=results.groups)
    if analyses.law is None and board.ranked_by.name != "downstream" and len(board.rows) > 1:
        return replace(board, notes=(*board.notes, f"No gap to the law: {analyses.missing['law']}."))
    return board


def make_leaderboard(
    table: pd.DataFrame,
    saturation: Sequence[Saturation] = (),
    law: FittedLaw | None = None,
    documents: Documents | None = None,
    *,
    groups: Collection[str] = (),
) -> Leaderboard:
    """Rank the models of a tidy table by the loss at their last checkpoints.

    The runs of one model share a row (`pool_runs`). Where tokens differ, models are ranked by bits per byte; without
    lmsat_loss, by the downstream average. The tests are those of `rank_models`; `downstream_average` and `above_line`
    describe these columns.

    Args:
        table: Tidy, on one corpus; see `lmsat_plugin.load_results`.
        saturation: Verdicts; those on the loss are shown, or else that of the score, or how many scores saturate.
        law: A law of lmsat_loss in ``n_params`` and ``tokens``.
        documents: Nats and tokens of the M documents, by the path of their result.
        groups: Tasks that are means of other tasks.

    Raises:
        LmsatError: If there is nothing to rank by, or lmsat_loss on several corpora.
    """
    table, unordered = ordered(labelled(table))
    losses = last_losses(table)
    last = last_checkpoints(table, losses)
    finals = values_at(table, last)
    rows = rows_of(table, losses, finals)
    average = downstream_average(finals, groups)
    for model, (mean, stderr) in (average.scores if average else {}).items():
        rows[model] |= {"downstream": mean, "downstream_stderr": stderr if np.isfinite(stderr) else None}
    diverged: list[str] = []
    for result in saturation:
        if result.metric == "loss" and result.label in rows:
            rows[result.label]["verdict"] = result.verdict
            if result.verdict == "diverged" and rows[result.label].get("loss") is None:
                diverged.append(f"{result.label}: {result.verdict}: {result.reason}; it has no rank.")
    if all(result.metric != "loss" for result in saturation):
        several = len({result.label for result in saturation}) < len(saturation)
        for name in {result.label for result in saturation} & rows.keys():
            own = [result for result in saturation if result.label == name]
            rows[name]["verdict"] = by_scores(own) if several else own[0].verdict
    same = same_tokens(finals)
    paths = zip(losses.model, losses.path, strict=True)
    by_model = {model: documents[path] for model, path in paths if documents and path in documents}
    pooled = pool_runs(rows, last, by_model)
    rows = pooled.rows
    for name, group in groups_of([result for result in saturation if result.metric == "loss"]).items():
        if name in rows:
            rows[name]["verdict"] = over_runs(group)
    ranked_by = _ranked_by(rows, same, diverged)
    ranked, notes = _ranked(pooled, ranked_by)
    notes += [*pooled.notes, *unordered, *diverged]
    if not same:
        notes.append("The models read different tokens: their losses per token do not compare.")
    if average is not None:
        notes.append(average.method)
    if ranked_by.name != "downstream" and (models := add_above_loss(rows, ranked_by.name)):
        notes.append(
            f"Above its loss: the downstream average minus the one that the line through the {models - 1} other models "
            f"predicts from {ranked_by.title}, ± the standard error of that prediction."
        )
    if law is not None and same:
        add_law(rows, final_row(losses, rows), law)
        notes.append(
            "The law is that of the models here larger than all that saturate, at their last checkpoints"
            f"{f', with {law.given} given' if law.given else ''}."
        )
    if any(row.get("n_params_from_name") for row in ranked):
        notes.append("Parameters with ~ are those that the model's name states.")
    shown = [column for column in COLUMNS if any(row.get(column.name) is not None for row in ranked)]
    names = [f"{column.name}{end}" for column in shown for end in ("", "_from_name", "_stderr", "_low", "_high")]
    kept = [name for name in names if any(row.get(name) is not None for row in ranked)]
    return Leaderboard(
        ranked_by=ranked_by,
        columns=tuple(shown),
        rows=tuple({name: row.get(name) for name in kept} for row in ranked),
        notes=tuple(notes),
    )


def _ranked_by(rows: Rows, same_tokens: bool, diverged: Sequence[str]) -> Column:
    with_loss = [row for row in rows.values() if row.get("loss") is not None]
    if with_loss and not same_tokens and all(row.get("bits_per_byte") is not None for row in with_loss):
        return BY_NAME["bits_per_byte"]
    if with_loss:
        return BY_NAME["loss"]
    if any("downstream" in row for row in rows.values()):
        return BY_NAME["downstream"]
    if diverged:
        raise LmsatError(f"no last checkpoint has a finite loss ({diverged[0]}): give the runs that did not diverge")
    raise LmsatError(
        "the last checkpoints hold neither lmsat_loss nor scores of a task whose chance level is known: measure them "
        "with lm_eval --model lmsat or lmsat sweep"
    )


def final_row(losses: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Return a row of `last_losses` for each row of a leaderboard with a loss, which is that of the leaderboard."""
    names = [model if model in rows else group for model, group in zip(losses.model, losses.group, strict=True)]
    final = losses.assign(model=names).sort_values("at", na_position="first", kind="stable")
    final = final.drop_duplicates("model", keep="last")
    return final.assign(loss=[rows[model].get("loss", np.nan) for model in final.model])


def _ranked(pooled: Pooled, ranked_by: Column) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows in order, with their ranks, and how these were found. Rows without a value come last."""
    name, rows = ranked_by.name, pooled.rows
    known = [row for row in rows.values() if row.get(name) is not None]
    scored = [_scored(row, name, pooled) for row in known]
    ranks = rank_models(scored, bool(ranked_by.higher_is_better))
    for row, rank in zip(known, ranks.ranks, strict=True):
        row["rank"] = rank
    sign = -1 if ranked_by.higher_is_better else 1
    known.sort(key=lambda row: (row["rank"] or np.inf, sign * row[name]))
    better = "higher" if ranked_by.higher_is_better else "lower"
    notes = [f"Ranked by {ranked_by.title} at the last checkpoint, {better} is better."]
    if len(known) > 1:
        notes.append(ranks.method if ranks.tested else "No standard errors are known, so the models have no ranks.")
    return [*known, *(row for row in rows.values() if row.get(name) is None)], notes


def _scored(row: dict[str, Any], name: str, pooled: Pooled) -> Scored:
    """Return a row's value of a column, with the documents' sums, which are in nats, in the column's unit."""
    stderr, documents = row.get(f"{name}_stderr"), pooled.documents.get(row["model"])
    between = pooled.between.get((row["model"], name), 0.0)
    if documents is not None:
        nats_M, tokens_M = documents
        documents = None if name == "downstream" else (nats_M * (row[name] / row["loss"]), tokens_M)
    sample = np.nan if stderr is None else float(np.sqrt(max(stderr**2 - between**2, 0.0)))
    return Scored(value=row[name], stderr=sample, documents=documents, runs=row.get("runs") or 1, between=between)

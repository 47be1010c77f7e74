"""Models side by side at their last checkpoints, in places that share what cannot be told apart.

Imports neither lm_eval, torch nor matplotlib. Shapes: M documents.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.report.downstream_average import downstream_average
from lmsat_plugin.report.leaderboard_rows import (
    Rows,
    add_above_loss,
    add_law,
    at_last_checkpoints,
    last_losses,
    rows_of,
    same_tokens,
)
from lmsat_plugin.report.places import Scored, places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from lmsat_plugin.analysis.saturation import Saturation
    from lmsat_plugin.analysis.scaling_laws import Fit
    from lmsat_plugin.report.collected import Collected

    Documents = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Column:
    """One column; its standard errors stand in the rows under ``name`` with ``_stderr``."""

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    """None where neither is."""
    about: str


COLUMNS = (
    Column("place", "place", "", False, "1 + the number of models that are significantly better"),
    Column("model", "model", "", None, "name, with the settings that tell it from others"),
    Column("checkpoint", "checkpoint", "", None, "revision of the last checkpoint"),
    Column("n_params", "parameters", "", None, "all parameters"),
    Column("tokens", "tokens", "", None, "tokens trained on"),
    Column("loss", "loss", "nats/token", False, "pretraining loss of the last checkpoint"),
    Column("bits_per_byte", "bits per byte", "bits/byte", False, "the same per byte of text"),
    Column("best_loss", "best loss", "nats/token", False, "least loss of all checkpoints"),
    Column("best_step", "at step", "", None, "the step of the least loss"),
    Column("verdict", "saturates?", "", None, "verdict on saturation"),
    Column("anisotropy_last", "anisotropy", "", None, "mean cosine of the last layer's states"),
    Column("head_capacity", "head capacity", "", None, "effective rank of the LM head / hidden size"),
    Column("singular_entropy", "singular entropy", "nats", None, "KL(p‖u) of the LM head's squared spectrum"),
    Column("law_gap", "gap to the law", "%", False, "(loss − L(N, D)) / L(N, D), final"),
    Column(
        "downstream",
        "downstream average",
        "",
        True,
        "mean score above chance: 0 for guessing, 1 for no mistake",
    ),
    Column("above_loss", "above its loss", "", True, "downstream above what the loss predicts"),
)
_BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """The models, best first."""

    ranked_by: Column
    columns: tuple[Column, ...]
    """Those of `COLUMNS` that have data."""
    rows: tuple[dict[str, Any], ...]
    """Values by column, and ``name_stderr`` where one is known; None for what is unknown."""
    notes: tuple[str, ...]
    """How to read it."""

    def facts(self) -> dict[str, Any]:
        """Return all as plain data, for JSON."""
        return {**asdict(self), "ranked_by": self.ranked_by.name}

    def plot(self) -> Figure:
        """Draw what the models are ranked by, and their downstream average, with intervals of 95 %."""
        from lmsat_plugin.report.leaderboard_figure import leaderboard_figure

        return leaderboard_figure(self)


def leaderboard_of(collected: Collected) -> Leaderboard:
    """Return the leaderboard of a tree of results, its losses compared document by document where these are kept.

    Raises as `leaderboard`.
    """
    from lmsat_plugin.report.saturation_results import losses_by_document

    table = collected.table
    documents = losses_by_document(table[table.path.isin(last_losses(table).path)], collected.root)
    board = leaderboard(table, collected.saturation, collected.law, documents)
    if collected.law is None and board.ranked_by.name != "downstream" and len(board.rows) > 1:
        return replace(board, notes=(*board.notes, f"No gap to the law: {collected.missing['law']}."))
    return board


def leaderboard(
    table: pd.DataFrame,
    saturation: Sequence[Saturation] = (),
    law: Fit | None = None,
    documents: Documents | None = None,
) -> Leaderboard:
    """Rank the models of a tidy table by the loss at their last checkpoints.

    By bits per byte where tokens differ; by the downstream average where there is no lmsat_loss. `places` has the
    tests, `downstream_average` and `above_line` what these columns are.

    Args:
        table: Tidy, on one corpus; see `lmsat_plugin.load_results`.
        saturation: Verdicts, of which those on the loss are shown.
        law: A law of lmsat_loss in ``n_params`` and ``tokens``.
        documents: Nats and tokens of the M documents, by the path of their result.

    Raises:
        LmsatError: If there is nothing to rank by, or lmsat_loss on several corpora.
    """
    losses = last_losses(table)
    finals = at_last_checkpoints(table, losses)
    rows = rows_of(table, losses, finals)
    average = downstream_average(finals)
    for model, (mean, stderr) in (average.scores if average else {}).items():
        rows[model] |= {"downstream": mean, "downstream_stderr": stderr if np.isfinite(stderr) else None}
    for one in saturation:
        if one.metric == "loss" and one.model in rows:
            rows[one.model]["verdict"] = one.verdict
    same = same_tokens(finals)
    ranked_by = _ranked_by(rows, same)
    ranked, notes = _placed(rows, ranked_by, _documents(losses, documents or {}))
    if not same:
        notes.append("The models read different tokens: their losses per token do not compare.")
    if average is not None:
        notes.append(average.method)
    if ranked_by.name != "downstream" and (models := add_above_loss(rows, ranked_by.name)):
        notes.append(
            f"Above its loss: the downstream average minus what the line of the {models - 1} other models against "
            f"{ranked_by.title} says, ± the standard error of that prediction."
        )
    if law is not None and same:
        add_law(rows, losses, law)
        notes.append(
            "The law is that of the models here larger than all that saturate, at their last checkpoints"
            f"{f', with {law.given} given' if law.given else ''}."
        )
    shown = [column for column in COLUMNS if any(row.get(column.name) is not None for row in ranked)]
    names = [name for column in shown for name in (column.name, f"{column.name}_stderr")]
    kept = [name for name in names if any(row.get(name) is not None for row in ranked)]
    return Leaderboard(
        ranked_by,
        tuple(shown),
        tuple({name: row.get(name) for name in kept} for row in ranked),
        tuple(notes),
    )


def _ranked_by(rows: Rows, same_tokens: bool) -> Column:
    with_loss = [row for row in rows.values() if row.get("loss") is not None]
    if with_loss and not same_tokens and all(row.get("bits_per_byte") is not None for row in with_loss):
        return _BY_NAME["bits_per_byte"]
    if with_loss:
        return _BY_NAME["loss"]
    if any("downstream" in row for row in rows.values()):
        return _BY_NAME["downstream"]
    raise LmsatError(
        "the last checkpoints hold neither lmsat_loss nor scores of a task whose chance level is known: measure them "
        "with lm_eval --model lmsat or lmsat sweep"
    )


def _documents(losses: pd.DataFrame, documents: Documents) -> Documents:
    """Return the documents by model instead of by path."""
    paths = zip(losses.model, losses.path, strict=True)
    return {model: documents[path] for model, path in paths if path in documents}


def _placed(rows: Rows, ranked_by: Column, documents: Documents) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows, now with places, in their order, and how that came about; those without a value come last."""
    name = ranked_by.name
    known = [row for row in rows.values() if row.get(name) is not None]
    scored = []
    for row in known:
        own = documents.get(row["model"]) if name != "downstream" else None
        if own is not None:
            own = own[0] * (row[name] / row["loss"]), own[1]
        stderr = row.get(f"{name}_stderr")
        scored.append(Scored(row[name], np.nan if stderr is None else stderr, own))
    found = places(scored, bool(ranked_by.higher_is_better))
    for row, place in zip(known, found.places, strict=True):
        row["place"] = place
    sign = -1 if ranked_by.higher_is_better else 1
    known.sort(key=lambda row: (row["place"] or np.inf, sign * row[name]))
    best = "higher" if ranked_by.higher_is_better else "lower"
    notes = [f"Ranked by {ranked_by.title} at the last checkpoint, {best} is better."]
    if len(known) > 1:
        notes.append(found.method if found.tested else "There are no standard errors, and so no places.")
    return [*known, *(row for row in rows.values() if row.get(name) is None)], notes

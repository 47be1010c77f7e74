"""The head rank that each checkpoint needs, beside corpus dimension and downstream accuracy (`find_rank_needed`)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lmsat_plugin.analysis.input_tables import records
from lmsat_plugin.analysis.rank_needed import head_runs
from lmsat_plugin.analysis.rank_needed.dimension import capacity
from lmsat_plugin.analysis.rank_needed.rank_curve import RankCurve, by_rank, check_within, rank_needed
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import series_label
from lmsat_plugin.results.tree import Results

logger = logging.getLogger(__name__)

_TASK = "lmsat_rank_head"


@dataclass(frozen=True, eq=False)
class CheckpointRanks:
    """Losses and accuracies of one checkpoint by head rank, on one corpus if losses were measured."""

    values: dict[str, Any]
    """Plain data, as ``lmsat bottleneck --json`` prints it."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """The arrays of lmsat_rank_head."""
    next_token: list[head_runs.Accuracy] = field(default_factory=list)
    """How often the trained heads give the next token most probability."""

    label: str = ""
    """The name of its series, for people."""


def find_rank_needed(
    results: Results, curve: str | None = None, within: float = 0.01, corpus_w_error: np.ndarray | None = None
) -> list[CheckpointRanks]:
    """Return the head rank that each checkpoint needs, and its accuracies by head rank.

    Arrays that cannot be read are left out with a warning.

    Args:
        results: Results of lmsat_rank_head, or of lm-eval's tasks that were run with heads of some rank.
        curve: One of `CURVES`, whose rank needed is returned; by default the first that was measured.
        within: How far above the full loss is close to it, as a share.
        corpus_w_error: The W-error of an n-gram model by dimension; by default the one in the arrays, if any.

    Raises:
        LmsatError: If there are no such results, if none of their arrays can be read, and for ``within`` out of range.
    """
    check_within(within)
    table = results.series
    runs = head_runs.read_runs(results)
    accuracies = head_runs.accuracies_by_rank(table, runs)
    checkpoints, skipped = [], []
    measured = set()
    for row in records(table[(table.task == _TASK) & (table.metric == "full_loss")]):
        if row["path"] not in runs:
            continue
        checkpoint = runs[row["path"]].checkpoint
        try:
            arrays = results.arrays(row["path"], _TASK, "rank_head/", "ngram/w_error")
            of_corpus = arrays.get("ngram/w_error") if corpus_w_error is None else corpus_w_error
            losses = {
                **_losses_by_rank(arrays, curve, within),
                **_capacity(row["hidden_size"], of_corpus),
                "corpus": row["corpus"],
                "suppressed_norm_share": _finite(_suppressed(row, results)),
            }
        except LmsatError as error:
            skipped.append(LmsatError(f"{results.files[row['path']].path}: {error}"))
            continue
        measured.add(checkpoint)
        values = _values(row, accuracies.get(checkpoint, []), losses)
        next_token = head_runs.next_token_accuracies(table, row["path"], row["corpus"])
        named = _label(row, values)
        checkpoints.append(CheckpointRanks(values=values, arrays=arrays, next_token=next_token, label=named))
    for checkpoint, scores in accuracies.items():
        if checkpoint not in measured:
            described = head_runs.describe(checkpoint, table, runs)
            values = _values(described, scores, {})
            checkpoints.append(CheckpointRanks(values=values, label=_label(described, values)))
    if not checkpoints and skipped:
        raise skipped[0]
    if not checkpoints:
        raise LmsatError(
            f"{results.root} holds no results of lmsat_rank_head: measure them with "
            "lm_eval --model lmsat --tasks lmsat_rank_head and arrays=FOLDER in --model_args, or in a sweep"
        )
    for reason in skipped:
        logger.warning("Left out: %s", reason)
    return checkpoints


def _label(row: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    return series_label(values["model"], values["variant"], row.get("branch"), row.get("replicate"))


def _losses_by_rank(arrays: dict[str, np.ndarray], name: str | None, within: float) -> dict[str, Any]:
    """Return the losses at each rank of one checkpoint on one corpus, and the rank needed."""
    curve = RankCurve.from_arrays(arrays, name)
    if "rank_head/singular_values" not in arrays:
        raise LmsatError("the arrays lack rank_head/singular_values: run lmsat_rank_head again")
    ranks = by_rank(curve, arrays["rank_head/singular_values"])
    needed = rank_needed(curve, within)
    return {
        "curve": curve.name,
        "full_loss": curve.full_loss,
        "within": within,
        "rank_needed": needed.rank,
        "rank_low": needed.low,
        "rank_high": needed.high,
        "ranks": ranks.astype(object).where(np.isfinite(ranks), None).to_dict("records"),
    }


def _capacity(hidden_size: int | None, corpus_w_error: np.ndarray | None) -> dict[str, Any]:
    """Return the corpus' dimension, and its W-error at the model's width, where both are known."""
    if corpus_w_error is None or hidden_size is None:
        return {}
    width = capacity(corpus_w_error, hidden_size)
    return {"corpus_dimension": width.dimension, "corpus_w_error_at_hidden_size": _finite(width.w_error_at_hidden_size)}


def _values(checkpoint: dict[str, Any], scores: list[head_runs.Accuracy], measured: dict[str, Any]) -> dict[str, Any]:
    """Return all values of one checkpoint, with None or [] for what was not measured."""
    return {
        **{key: checkpoint[key] for key in ("model", "variant", "revision", "step")},
        **dict.fromkeys(("corpus", "curve", "full_loss", "within", "rank_needed", "rank_low", "rank_high")),
        "hidden_size": checkpoint["hidden_size"],
        "ranks": [],
        **dict.fromkeys(("corpus_dimension", "corpus_w_error_at_hidden_size", "suppressed_norm_share")),
        **measured,
        "downstream": [{**asdict(score), "stderr": _finite(score.stderr)} for score in scores],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _suppressed(row: dict[str, Any], results: Results) -> float | None:
    """Return what lmsat_gradient_bottleneck measured of the checkpoint on the same corpus, if with other settings."""
    table = results.table
    rows = table[(table.task == "lmsat_gradient_bottleneck") & (table.metric == "suppressed_norm_share")]
    rows = rows[(rows.model == row["model"]) & (rows.revision == row["revision"]) & (rows.corpus == row["corpus"])]
    of_model = results.model_variant(row["variant"])
    own = [other for other in records(rows) if results.model_variant(other["variant"]) == of_model]
    by_variant = {other["variant"]: other["value"] for other in own}
    return by_variant.get(row["variant"], next(iter(by_variant.values()), None))

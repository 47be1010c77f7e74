"""What a tree of results says of the rank that LM heads need, as plain data and as a figure."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.bottleneck import CURVES, Capacity, RankCurve, by_rank, capacity, rank_needed
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.report.rank_results import (
    Accuracy,
    accuracies_by_rank,
    facts_of,
    file_of,
    next_token_accuracies,
    read_arrays,
    read_runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found of one checkpoint, on one corpus if the losses at each rank were measured."""

    facts: dict[str, Any]
    """Plain data, as ``lmsat bottleneck --json`` prints it."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Those of lmsat_rank_head."""
    next_token: list[Accuracy] = field(default_factory=list)
    """Of the trained heads."""


def find(
    table: pd.DataFrame, root: Path, curve: str | None, within: float, of_corpus: np.ndarray | None
) -> list[Found]:
    """Return what results hold: losses of lmsat_rank_head, and accuracies by rank.

    Args:
        table: The results, as `lmsat_plugin.load_results` reads them.
        root: The folder, or the one file, that they were read from.
        curve: One of `CURVES`, to say the rank needed of; by default the first that was measured.
        within: How far above the full loss is close to it, as a share.
        of_corpus: The W-error of an n-gram model by dimension; by default what lies with the results.

    Raises:
        LmsatError: If there are neither, or for arrays that cannot be read, unless other results can be.
    """
    runs = read_runs(table, root)
    accuracies = accuracies_by_rank(table, runs)
    found, skipped = [], []
    measured = set()
    for row in _full_losses(table):
        if row["path"] not in runs:
            continue
        file, checkpoint = file_of(row["path"], root), runs[row["path"]].checkpoint
        try:
            arrays = read_arrays(file)
            losses = _measure(row, arrays, table, curve, within, of_corpus)
        except LmsatError as error:
            skipped.append(LmsatError(f"{file}: {error}"))
            continue
        measured.add(checkpoint)
        facts = _facts(row, accuracies.get(checkpoint, []), **losses)
        found.append(Found(facts, arrays, next_token_accuracies(table, row["path"], row["corpus"])))
    for checkpoint, its in accuracies.items():
        if checkpoint not in measured:
            found.append(Found(_facts(facts_of(checkpoint, table, runs), its)))
    if not found and skipped:
        raise skipped[0]
    if not found:
        raise LmsatError(
            f"{root} holds no results of lmsat_rank_head: measure them with "
            "lm_eval --model lmsat --tasks lmsat_rank_head and arrays=FOLDER in --model_args, or in a sweep"
        )
    for reason in skipped:
        logger.warning("Left out: %s", reason)
    return found


def _full_losses(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the table each of which stands for a result of lmsat_rank_head."""
    rows = table[(table.task == "lmsat_rank_head") & (table.metric == "full_loss")]
    return [
        {str(key): None if pd.isna(value) else value for key, value in record.items()}
        for record in rows.to_dict("records")
    ]


def _measure(
    row: dict[str, Any],
    arrays: dict[str, np.ndarray],
    table: pd.DataFrame,
    name: str | None,
    within: float,
    of_corpus: np.ndarray | None,
) -> dict[str, Any]:
    """Return what there is to say of the losses of one checkpoint on one corpus."""
    curve = RankCurve.from_arrays(arrays, name)
    if "rank_head/singular_values" not in arrays:
        raise LmsatError("the arrays lack rank_head/singular_values: run lmsat_rank_head again")
    ranks = by_rank(curve, arrays["rank_head/singular_values"])
    needed = rank_needed(curve, within)
    of_corpus = arrays.get("ngram/w_error") if of_corpus is None else of_corpus
    room = Capacity(None, None, None)
    if of_corpus is not None and row["hidden_size"] is not None:
        room = capacity(of_corpus, row["hidden_size"])
    return {
        "corpus": row["corpus"],
        "curve": curve.name,
        "full_loss": curve.full_loss,
        "within": within,
        "rank_needed": needed.rank,
        "rank_low": needed.low,
        "rank_high": needed.high,
        "ranks": ranks.astype(object).where(np.isfinite(ranks), None).to_dict("records"),
        "corpus_dimension": room.dimension,
        "corpus_w_error_at_hidden_size": _finite(room.w_error_at_hidden_size),
        "suppressed_norm_share": _finite(_suppressed(row, table)),
    }


def _facts(checkpoint: dict[str, Any], accuracies: list[Accuracy], **measured: Any) -> dict[str, Any]:
    """Return what there is to say of one checkpoint; None and [] stand for what was not measured."""
    return {
        **{key: checkpoint[key] for key in ("model", "revision", "step")},
        **dict.fromkeys(("corpus", "curve", "full_loss", "within", "rank_needed", "rank_low", "rank_high")),
        "hidden_size": checkpoint["hidden_size"],
        "ranks": [],
        **dict.fromkeys(("corpus_dimension", "corpus_w_error_at_hidden_size", "suppressed_norm_share")),
        **measured,
        "downstream": [{**asdict(one), "stderr": _finite(one.stderr)} for one in accuracies],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _suppressed(row: dict[str, Any], table: pd.DataFrame) -> float | None:
    """Return what lmsat_gradient_bottleneck found for the checkpoint, on the same corpus if with other settings."""
    rows = table[(table.task == "lmsat_gradient_bottleneck") & (table.metric == "suppressed_norm_share")]
    rows = rows[(rows.model == row["model"]) & (rows.revision == row["revision"])]
    by_corpus = dict(zip(rows.corpus, rows.value, strict=True))
    # Settings that tell results apart stand in parentheses behind the corpus' name.
    name = str(row["corpus"]).partition(" (")[0]
    alike = (value for corpus, value in by_corpus.items() if str(corpus).partition(" (")[0] == name)
    return by_corpus.get(row["corpus"], next(alike, None))


def draw(found: list[Found], among: Iterable[str] = ()) -> Figure:
    """Return the figure of the losses on every curve there is, and of the accuracies; ``among`` is for `looks_of`."""
    from lmsat_plugin.report.rank_figure import ACCURACIES, LOSSES, rank_figure

    losses: list[pd.DataFrame] = []
    accuracies: list[dict[str, Any]] = []
    for one in found:
        label, first = _label(one, found, "revision", "corpus"), one.facts["curve"]
        for name in sorted(CURVES, key=lambda name: name != first) if one.arrays else ():
            with suppress(LmsatError):
                curve = RankCurve.from_arrays(one.arrays, name)
                ranks = by_rank(curve, one.arrays["rank_head/singular_values"])
                losses.append(ranks.assign(model=label, curve=name, full_loss=curve.full_loss))
        accuracies += [{"model": label, **asdict(accuracy)} for accuracy in one.next_token]
        label = _label(one, found, "revision")
        accuracies += [{"model": label, **accuracy} for accuracy in one.facts["downstream"]]
    values = pd.DataFrame(accuracies, columns=ACCURACIES).astype({"rank": float, "stderr": float})
    # Results on several corpora repeat what does not depend on one.
    return rank_figure(
        pd.concat(losses) if losses else pd.DataFrame(columns=LOSSES), values.drop_duplicates(), among
    )


def _label(one: Found, found: list[Found], *keys: str) -> str:
    """Return a model's name, with those of the keys in which results of the model differ."""
    alike = [other.facts for other in found if other.facts["model"] == one.facts["model"]]
    differing = [key for key in keys if len({other[key] for other in alike}) > 1]
    return ", ".join(one.facts[key] for key in ("model", *differing) if one.facts[key] is not None)

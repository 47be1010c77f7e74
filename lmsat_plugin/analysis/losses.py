"""The losses that analyses take from results: one of each checkpoint, on one corpus or on two, checked to be nats."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.input_tables import as_floats, is_not_finite, series_in
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import PARTS, SERIES, data_seen, place_in_words
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_TASK = "lmsat_loss"
# The logarithm of a vocabulary larger than any: an untrained model's loss is about the logarithm of its own.
_MOST_NATS = 15.0
_BITS_WITHIN = 0.02
"""How close to log2 of the perplexity a loss has to be to count as bits, as a share."""
_ROW, _BAD, _RUN = "number of the row", "whether its loss is not finite", "run of the row"
_MOST_NAMED = 5
OTHER_VOCABULARY = 1.02
"""Ratio of vocabulary sizes above which tokenizers differ; models of one tokenizer pad it to various multiples."""
_COLUMNS = (
    *("model", "variant", "group", *PARTS, "stage", "revision", "step", "tokens", "total_step", "n_params"),
    *("n_params_non_embedding", "vocab_size", "corpus", "path"),
)


def check_nats(table: pd.DataFrame) -> None:
    """Raise `LmsatError` where the column ``loss`` is clearly not in nats per token.

    A column ``perplexity`` or ``bits_per_byte`` shows that; without them, only losses above a uniform prediction's do.
    """
    loss = table["loss"]
    if "perplexity" in table.columns:
        perplexity = as_floats(table["perplexity"])
        bits = np.log2(perplexity.where(perplexity > 0))
        if (abs(bits / loss - 1) < _BITS_WITHIN).mean() > 0.5:
            raise LmsatError(
                "the losses are binary logarithms of the perplexities, that is bits: multiply them by ln 2 = 0.6931"
            )
    if "bits_per_byte" in table.columns:
        per_byte = as_floats(table["bits_per_byte"])
        if (abs(per_byte / loss - 1) < 1e-6).mean() > 0.5:
            raise LmsatError("the losses are bits per byte: give nats per token in the column loss")
    if (loss <= 0).any():
        raise LmsatError(
            f"a loss of {loss.min():g} cannot be: give nats per token, which are above 0, in the column loss"
        )
    if "vocab_size" in table.columns:
        size = as_floats(table["vocab_size"])
        if (loss > 1.2 * np.log(size)).mean() > 0.5:
            raise LmsatError(
                f"most losses are above ln(vocab_size) = {np.log(size.median()):.2f}, that of a uniform prediction: "
                "give nats per token, not bits or perplexities"
            )
    if loss.median() > _MOST_NATS:
        raise LmsatError(
            f"half of the losses are above {_MOST_NATS:g}, more than those of a uniform prediction over a million "
            "tokens: give nats per token, not perplexities"
        )


def check_one_tokenizer(table: pd.DataFrame) -> None:
    """Raise `LmsatError` where the columns ``tokenizer`` or ``vocab_size`` show losses that do not compare."""
    if "tokenizer" in table.columns and len(names := sorted(map(str, table["tokenizer"].dropna().unique()))) > 1:
        several = f"the tokenizers {', '.join(names[:_MOST_NAMED])}"
    elif (
        "vocab_size" in table.columns
        and len(sizes := as_floats(table["vocab_size"]).dropna())
        and (sizes.max() > OTHER_VOCABULARY * sizes.min())
    ):
        several = f"vocabularies of {sizes.min():g} to {sizes.max():g} tokens"
    else:
        return
    raise LmsatError(
        f"the losses per token are of {several}, and do not compare: take the rows of one tokenizer, or bits per byte"
    )


def without_diverged(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a table without the runs whose losses end in NaN or infinity, and a sentence on each, which is logged.

    A run is what has the same ``run``, or ``model``, in the order of its steps or tokens. A row without these is a run
    of its own. Raises `LmsatError` where all runs diverged.
    """
    import pandas as pd

    if "loss" not in table.columns or not (bad := is_not_finite(table["loss"])).any() or bad.all():
        return table, []
    key = next((name for name in ("run", "model") if name in table.columns), None)
    numbers_P = np.arange(1, len(table) + 1)
    names = [f"the run of row {number}" for number in numbers_P]
    if key is not None:
        names = [own if pd.isna(name) else str(name) for name, own in zip(table[key], names, strict=True)]
    added: dict[str, Any] = {_ROW: numbers_P, _BAD: bad.to_numpy(), _RUN: names}
    rows = table.assign(**added)
    if (order := next((name for name in ("at", "step", "tokens") if name in table.columns), None)) is not None:
        rows = rows.assign(**{order: as_floats(rows[order])}).sort_values(order, kind="stable")
    gone: list[np.ndarray] = []
    sentences = []
    for name, run in rows.groupby(_RUN, sort=False):
        bad_K = run[_BAD].to_numpy()
        if not bad_K[-1]:
            continue
        first = run.iloc[len(run) - int(np.argmin(bad_K[::-1])) if not bad_K.all() else 0]
        when = "" if order is None or not np.isfinite(first[order]) else f", {order} {first[order]:,.0f}"
        if when and order == "at":
            when = f", {place_in_words(first['axis'], first['at'], first.get('revision'))}"
        sentences.append(f"{name} diverged at row {first[_ROW]}{when}")
        gone.append(run[_ROW].to_numpy() - 1)
    kept = table.iloc[np.setdiff1d(numbers_P - 1, np.concatenate(gone))] if gone else table
    if gone and kept.empty:
        raise LmsatError(f"{sentences[0]}: give runs whose losses stay finite")
    if len(sentences) > _MOST_NAMED:
        sentences[_MOST_NAMED:] = [f"{len(sentences) - _MOST_NAMED} more runs diverged"]
    sentences = [f"{sentence}, and is left out" for sentence in sentences]
    for sentence in sentences:
        logger.warning("%s", sentence)
    return kept, sentences


def loss_of_results(data: Results | pd.DataFrame, metric: str = "loss") -> pd.DataFrame:
    """Return one metric of ``lmsat_loss`` for each checkpoint, one a row.

    Columns: ``model, variant, revision, step, tokens, n_params, n_params_non_embedding, corpus, path`` and those of
    series (`in_series`), as far as the table has them, and ``loss, stderr``. ``tokens`` are those seen since the start
    of training, missing where unknown. ``loss`` is in nats per token unless another metric is asked for. ``variant``
    of `Results` is the model's part alone, the same as that of the checkpoint's other tasks.

    Raises `LmsatError` if there is no such metric, and for losses on several texts, which do not compare.
    """
    if isinstance(data, Results):
        data.check_one_text(_TASK)
    losses = _losses(data, metric)
    corpora = sorted(map(str, losses.corpus.dropna().unique())) if "corpus" in losses.columns else []
    if len(corpora) > 1:
        raise LmsatError(
            f"the results hold lmsat_loss on {', '.join(corpora)}, which do not compare: choose one with --corpus NAME"
        )
    return losses


def losses_of_two_corpora(data: Results | pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the losses of each checkpoint on two corpora, and a sentence on which corpus is which.

    ``loss`` is that on the corpus trained on, ``other_loss`` that on the other, in nats per token, beside the columns
    of `loss_of_results`. The corpus trained on is the first one that was chosen of `Results`, or the first in a table.

    Raises `LmsatError` without two corpora, a corpus chosen of `Results`, or a checkpoint measured on both.
    """
    losses = _losses(data, "loss")
    corpora = list(losses.corpus.dropna().unique()) if "corpus" in losses.columns else []
    texts = data.texts.get(_TASK, ()) if isinstance(data, Results) else corpora
    if len(corpora) != 2 or len(texts) != 2:
        raise LmsatError(
            f"transfer needs lmsat_loss on two corpora, and the results have {', '.join(map(str, texts)) or 'none'}: "
            "choose two with --corpus TRAINED_ON --corpus OTHER"
        )
    if isinstance(data, Results) and data.corpora is None:
        raise LmsatError(
            f"the results do not say whether the models were trained on {corpora[0]} or on {corpora[1]}: "
            "name that one first, with --corpus TRAINED_ON --corpus OTHER"
        )
    keys = [name for name in (*SERIES, "revision") if name in losses.columns]
    other = losses[losses.corpus == corpora[1]].rename(columns={"loss": "other_loss"})
    both = losses[losses.corpus == corpora[0]].merge(other[[*keys, "other_loss"]], on=keys)
    if both.empty:
        raise LmsatError(f"no checkpoint was measured on both {corpora[0]} and {corpora[1]}: measure some on both")
    return both, f"loss is that on {corpora[0]}, the corpus trained on, and other_loss that on {corpora[1]}"


def _losses(data: Results | pd.DataFrame, metric: str) -> pd.DataFrame:
    table = series_in(data)
    measured = table[table.task == _TASK]
    if measured.empty:
        raise LmsatError("the results hold no lmsat_loss: measure it with lm_eval --model lmsat or lmsat sweep")
    loss = measured[measured.metric == metric]
    if loss.empty:
        known = ", ".join(sorted(set(measured.metric)))
        raise LmsatError(f"lmsat_loss has no metric '{metric}' in these results: take one of {known}")
    losses = loss[[name for name in _COLUMNS if name in loss.columns]]
    if isinstance(data, Results):
        losses = losses.assign(variant=losses.variant.map(data.model_variant))
    if "n_params_from_name" in loss.columns:
        # Laws need more digits than names have.
        losses = losses.assign(n_params=loss.n_params.mask(loss.n_params_from_name.fillna(value=False).astype(bool)))
    if (tokens := data_seen(loss)) is not None:
        losses = losses.assign(tokens=tokens)
    stderr = loss["stderr"] if "stderr" in loss.columns else np.nan
    return losses.assign(loss=loss["value"], stderr=stderr).reset_index(drop=True)

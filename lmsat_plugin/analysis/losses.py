"""The losses that analyses take from results: one of each checkpoint, on one corpus or on two, checked to be nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.input_tables import as_floats, table_of
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_TASK = "lmsat_loss"
# The logarithm of a vocabulary larger than any: an untrained model's loss is about the logarithm of its own.
_MOST_NATS = 15.0
_BITS_WITHIN = 0.02
"""How close to log2 of the perplexity a loss has to be to count as bits, as a share."""
_COLUMNS = (*("model", "variant", "revision", "step", "tokens", "n_params", "n_params_non_embedding", "corpus"), "path")


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


def loss_of_results(data: Results | pd.DataFrame, metric: str = "loss") -> pd.DataFrame:
    """Return one metric of ``lmsat_loss`` for each checkpoint, one a row.

    Columns: ``model, variant, revision, step, tokens, n_params, n_params_non_embedding, corpus, path`` as far as the
    table has them, and ``loss, stderr``. ``loss`` is in nats per token unless another metric is asked for. ``variant``
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
    keys = [name for name in ("model", "variant", "revision") if name in losses.columns]
    other = losses[losses.corpus == corpora[1]].rename(columns={"loss": "other_loss"})
    both = losses[losses.corpus == corpora[0]].merge(other[[*keys, "other_loss"]], on=keys)
    if both.empty:
        raise LmsatError(f"no checkpoint was measured on both {corpora[0]} and {corpora[1]}: measure some on both")
    return both, f"loss is that on {corpora[0]}, the corpus trained on, and other_loss that on {corpora[1]}"


def _losses(data: Results | pd.DataFrame, metric: str) -> pd.DataFrame:
    table = table_of(data)
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
    stderr = loss["stderr"] if "stderr" in loss.columns else np.nan
    return losses.assign(loss=loss["value"], stderr=stderr).reset_index(drop=True)

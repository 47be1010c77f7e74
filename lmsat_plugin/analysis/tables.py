"""The tables that analyses read: a CSV, or the tidy table of results."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

logger = logging.getLogger(__name__)

TIDY = ("model", "task", "metric", "value")
"""What a tidy table of results has, whatever else."""
# ln of a vocabulary larger than any: an untrained model's loss is about ln of its own.
_MOST_NATS = 15.0
_BITS_BY_EVIDENCE = 0.02


def read_csv(path: Path) -> pd.DataFrame:
    """Return a CSV's rows. Raises `LmsatError` for a file that is none, and for one without rows."""
    import pandas as pd

    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise LmsatError(
            f"{path} cannot be read as CSV ({first_sentence(error)}): give a file whose first line names its columns"
        ) from error
    table.columns = table.columns.map(str.strip)
    if table.empty:
        raise LmsatError(f"{path} has no rows below its first line: add one for each checkpoint")
    return table


def is_tidy(table: pd.DataFrame) -> bool:
    """Return whether a table holds results by task and metric, as `lmsat_plugin.load_results` gives them."""
    return set(TIDY) <= set(table.columns)


def table_of(data: Results | pd.DataFrame) -> pd.DataFrame:
    """Return the table of results, or a table as it is."""
    return data.table if isinstance(data, Results) else data


def of_corpora(table: pd.DataFrame, names: Sequence[str], source: Path) -> pd.DataFrame:
    """Return the rows of some corpora, in the order of their names, and those of none.

    Raises `LmsatError`, in which ``source`` stands for the table, for a corpus that is not there.
    """
    if "corpus" not in table.columns:
        raise LmsatError(f"{source} has no column corpus: leave out --corpus")
    there = table.corpus.dropna().unique()
    if missing := [name for name in names if name not in there]:
        raise LmsatError(
            f"nothing in {source} was measured on --corpus {missing[0]}: give some of {', '.join(map(str, there))}"
        )
    kept = table[table.corpus.isna() | table.corpus.isin(names)]
    if len(names) == 1:
        return kept
    places = {name: place for place, name in enumerate(names)}
    return kept.sort_values("corpus", key=lambda column: column.map(places), kind="stable")


def of_variant(table: pd.DataFrame, variant: str, source: Path) -> pd.DataFrame:
    """Return the rows of one variant. Raises `LmsatError`, in which ``source`` stands for the table, without any."""
    kept = table[table.variant == variant] if "variant" in table.columns else table[:0]
    if kept.empty:
        raise LmsatError(
            f"no row of {source} has the variant '{variant}': leave out --variant, or correct it"
        )
    return kept


def numbers(
    table: pd.DataFrame, needed: Sequence[str], *, optional: Sequence[str] = (), positive: Sequence[str] = ()
) -> pd.DataFrame:
    """Return a table with some columns as float64, without the rows that lack a number in a needed one.

    Such rows are left out with a warning. Other columns stay as they are; of ``optional`` those that are there
    become float64, with NaN for what is no number.

    Raises:
        LmsatError: For a column that is missing, for one of ``positive`` that is not above 0, and if no row is left.
    """
    import pandas as pd

    if missing := [name for name in needed if name not in table.columns]:
        raise LmsatError(
            f"the table has no column '{missing[0]}': it needs {', '.join(needed)}, and has {', '.join(table.columns)}"
        )
    present = [*needed, *(name for name in optional if name in table.columns)]
    columns = {name: pd.to_numeric(table[name], errors="coerce").astype("float64") for name in present}
    table = table.assign(**columns)
    known = np.isfinite(table[list(needed)].to_numpy("float64")).all(axis=1)
    rows_P = np.arange(1, len(table) + 1)
    if known.any() and not known.all():
        logger.warning(
            "%d of %d rows are left out, the first of them row %d: they have no finite number for %s",
            int((~known).sum()),
            len(table),
            rows_P[int(np.argmin(known))],
            " and ".join(needed),
        )
    table, rows_P = table.iloc[np.flatnonzero(known)], rows_P[known]
    if table.empty:
        empty = [name for name in needed if not np.isfinite(columns[name]).any()] or list(needed)
        raise LmsatError(f"no row has a finite number for {' and '.join(empty)}: fill it in")
    for name in positive:
        if name in present and (bad := table[name] <= 0).any():
            raise LmsatError(
                f"row {rows_P[int(np.argmax(bad))]} has {name}={table[name][bad].iloc[0]:g}, "
                "which must be above 0: correct it or leave the row out"
            )
    return table


def check_nats(table: pd.DataFrame) -> None:
    """Raise `LmsatError` where the column ``loss`` is, as far as one can tell, not in nats per token.

    A column ``perplexity`` or ``bits_per_byte`` beside it tells; else only a loss above that of guessing does.
    """
    import pandas as pd

    loss = table["loss"]
    if "perplexity" in table.columns:
        perplexity = pd.to_numeric(table["perplexity"], errors="coerce").astype("float64")
        bits = np.log2(perplexity.where(perplexity > 0))
        if (abs(bits / loss - 1) < _BITS_BY_EVIDENCE).mean() > 0.5:
            raise LmsatError(
                "the losses are binary logarithms of the perplexities, that is bits: multiply them by ln 2 = 0.6931"
            )
    if "bits_per_byte" in table.columns:
        per_byte = pd.to_numeric(table["bits_per_byte"], errors="coerce").astype("float64")
        if (abs(per_byte / loss - 1) < 1e-6).mean() > 0.5:
            raise LmsatError("the losses are bits per byte: give nats per token in the column loss")
    if (loss <= 0).any():
        raise LmsatError(
            f"a loss of {loss.min():g} is none: give nats per token, which are above 0, in the column loss"
        )
    if "vocab_size" in table.columns:
        size = pd.to_numeric(table["vocab_size"], errors="coerce").astype("float64")
        if (loss > 1.2 * np.log(size)).mean() > 0.5:
            raise LmsatError(
                f"most losses are above ln(vocab_size) = {np.log(size.median()):.2f}, that of guessing: give nats per "
                "token, not bits or perplexities"
            )
    if loss.median() > _MOST_NATS:
        raise LmsatError(
            f"half of the losses are above {_MOST_NATS:g}, more than guessing among a million tokens: give nats per "
            "token, not perplexities"
        )


def loss_of_results(data: Results | pd.DataFrame, metric: str = "loss") -> pd.DataFrame:
    """Return a metric of ``lmsat_loss`` of each checkpoint in results, one a row.

    Columns: ``model, variant, revision, step, tokens, n_params, n_params_non_embedding, corpus, loss, stderr, path``, as
    far as the table has them; ``loss`` is in nats per token unless another metric is asked for.

    Raises:
        LmsatError: If there is none, or if there are losses on several texts, which do not compare.
    """
    if isinstance(data, Results):
        data.check_one_text("lmsat_loss")
    losses = _losses(table_of(data), metric)
    corpora = sorted(map(str, losses.corpus.dropna().unique())) if "corpus" in losses.columns else []
    if len(corpora) > 1:
        raise LmsatError(
            f"the results hold lmsat_loss on {', '.join(corpora)}, which do not compare: choose one with --corpus NAME"
        )
    return losses


def losses_of_two_corpora(data: Results | pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the losses of each checkpoint on two corpora, ``loss`` and ``other_loss``, and which is which in words.

    Both are in nats per token. The corpus trained on is the first one chosen of `Results`, the first one in a table.
    The other columns are those of `loss_of_results`.

    Raises:
        LmsatError: If there are not two corpora, if results do not say which one the models were trained on, or if no
            checkpoint was measured on both.
    """
    losses = _losses(table_of(data), "loss")
    corpora = list(losses.corpus.dropna().unique()) if "corpus" in losses.columns else []
    if len(corpora) != 2:
        raise LmsatError(
            f"transfer needs lmsat_loss on two corpora, and the results have {', '.join(map(str, corpora)) or 'none'}: "
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
        raise LmsatError(
            f"no checkpoint was measured on both {corpora[0]} and {corpora[1]}: measure some on both"
        )
    return both, f"loss is that on {corpora[0]}, the corpus trained on, and other_loss that on {corpora[1]}"


def _losses(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    measured = table[table.task == "lmsat_loss"]
    if measured.empty:
        raise LmsatError(
            "the results hold no lmsat_loss: measure it with lm_eval --model lmsat or lmsat sweep"
        )
    loss = measured[measured.metric == metric]
    if loss.empty:
        known = ", ".join(sorted(set(measured.metric)))
        raise LmsatError(f"lmsat_loss has no metric '{metric}' in these results: take one of {known}")
    columns = (
        "model",
        "variant",
        "revision",
        "step",
        "tokens",
        "n_params",
        "n_params_non_embedding",
        "corpus",
        "path",
    )
    losses = loss[[name for name in columns if name in loss.columns]]
    return losses.assign(
        loss=loss["value"], stderr=loss["stderr"] if "stderr" in loss.columns else np.nan
    ).reset_index(drop=True)

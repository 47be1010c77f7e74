"""Losses of a table of results: on one corpus or two, in nats per token."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.analysis.losses import check_nats, loss_of_results, losses_of_two_corpora
from lmsat_plugin.errors import LmsatError


def test_rows_of_other_tasks_stay_with_a_corpus():
    table = pd.DataFrame(
        {
            "model": "m",
            "revision": ["a", "a", "b"],
            "task": "lmsat_loss",
            "metric": ["loss", "perplexity", "loss"],
            "value": [1.0, 2.7, 3.0],
            "corpus": ["x", "x", "y"],
        }
    )
    assert list(loss_of_results(table[:2]).loss) == [1.0]
    assert list(loss_of_results(table[:2], "perplexity").loss) == [2.7]
    with pytest.raises(LmsatError, match="no metric 'bits' in these results: take one of loss, perplexity"):
        loss_of_results(table[:2], "bits")
    with pytest.raises(LmsatError, match="no checkpoint was measured on both x and y"):
        losses_of_two_corpora(table)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"perplexity": 8.0}, "multiply them by ln 2"),
        ({"bits_per_byte": 3.0}, "bits per byte"),
        ({"vocab_size": 8}, "ln\\(vocab_size\\) = 2.08"),
    ],
)
def test_losses_in_other_units_are_told(columns, said):
    table = pd.DataFrame({"loss": [3.0] * 5, **columns})
    with pytest.raises(LmsatError, match=said):
        check_nats(table)


def test_losses_in_nats_pass():
    check_nats(
        pd.DataFrame({"loss": [3.0], "perplexity": [np.exp(3)], "vocab_size": [50257], "bits_per_byte": 1.1})
    )
    check_nats(pd.DataFrame({"loss": [3.0], "vocab_size": pd.array([pd.NA], dtype="Int64")}))

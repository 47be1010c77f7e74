"""Losses of a table of results: on one corpus or two, in nats per token."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from result_files import ours, write
from result_trees import write_result

from lmsat_plugin.analysis import fit
from lmsat_plugin.analysis.losses import check_nats, loss_of_results, losses_of_two_corpora, without_diverged
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results


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
    check_nats(pd.DataFrame({"loss": [3.0], "perplexity": [np.exp(3)], "vocab_size": [50257], "bits_per_byte": 1.1}))
    check_nats(pd.DataFrame({"loss": [3.0], "vocab_size": pd.array([pd.NA], dtype="Int64")}))


@pytest.fixture
def two_corpora(tmp_path) -> Results:
    """Losses on ``theirs`` are 0.7 nats more than on ``ours``, which comes later in the alphabet."""
    for model in "abcdef":
        for step in (100, 200):
            loss = 3.0 + ord(model) / 100 - step / 1000
            for corpus, more in (("ours", 0.0), ("but theirs", 0.7)):
                write_result(tmp_path, model, step, {"lmsat_loss": {"loss": loss + more}}, corpus=corpus)
    return Results.read(tmp_path, tokens_per_step=1000)


def test_two_corpora_need_an_order(two_corpora):
    with pytest.raises(LmsatError, match="trained on but theirs or on ours: name that one first, with --corpus"):
        losses_of_two_corpora(two_corpora)
    for first, other, more in (("ours", "but theirs", 0.7), ("but theirs", "ours", -0.7)):
        losses, note = losses_of_two_corpora(two_corpora.select([first, other]))
        assert len(losses) == 12
        np.testing.assert_allclose(losses.other_loss - losses.loss, more)
        assert note == f"loss is that on {first}, the corpus trained on, and other_loss that on {other}"
        law = fit("transfer", two_corpora.select([first, other]), repetitions=0)
        assert law.derived["offset_at_slope_1"].value == pytest.approx(more)
        assert note in law.notes


def test_two_corpora_are_two_texts(two_corpora, tmp_path):
    with pytest.raises(LmsatError, match="transfer needs lmsat_loss on two corpora, and the results have ours"):
        losses_of_two_corpora(two_corpora.select(["ours"]))
    for number, tokens in enumerate((100, 200)):
        text = {"corpus": "ours", "max_tokens": tokens, "sha256": "ab" * 32, "documents": 40, "window": None}
        content = ours(3.0, args={"pretrained": "a", "revision": "step300"}, corpus=text)
        write(tmp_path / f"{number}" / "results_1.json", content)
    results = Results.read(tmp_path).select(["ours", "but theirs"])
    with pytest.raises(LmsatError, match=r"the results have but theirs, ours.*ours \(max_tokens=100"):
        losses_of_two_corpora(results)


def test_runs_that_diverged_are_left_out_by_name(caplog):
    table = pd.DataFrame(
        {
            "model": ["a", "b", "a", "b", "a", "b", None],
            "step": [1, 1, 3, 3, 2, 2, 1],
            "loss": [3.0, 3.0, np.inf, 1.0, 2.0, np.nan, 4.0],
        }
    )
    kept, sentences = without_diverged(table)
    # A value that is missing in the midst of a run is no divergence.
    assert list(kept.index) == [1, 3, 5, 6]
    assert sentences == ["a diverged at row 3, step 3, and is left out"]
    assert sentences == caplog.messages
    kept, sentences = without_diverged(table[["loss"]])
    assert len(kept) == 5
    assert sentences[0] == "the run of row 3 diverged at row 3, and is left out"
    with pytest.raises(LmsatError, match="a diverged at row 3, step 2: give runs whose losses stay finite"):
        without_diverged(table.assign(model="a", step=range(7))[:3])


def test_a_fit_leaves_out_runs_that_diverged():
    n, tokens = np.meshgrid(np.geomspace(1e6, 1e9, 7), np.geomspace(1e9, 1e11, 3))
    loss = 1.7 + 400 / n**0.34 + 400 / tokens**0.28
    table = pd.DataFrame({"model": np.tile(list("abcdefg"), 3), "n_params": n.ravel(), "tokens": tokens.ravel()})
    table["loss"] = loss.ravel()
    table.loc[table.model == "c", "loss"] = [9.0, 9.0, np.nan]
    law = fit("chinchilla", table, repetitions=0)
    assert law.params["E"].value == pytest.approx(1.7, rel=0.02)
    assert len(law.points.losses_P) == 18
    assert "c diverged at row 17, tokens 100,000,000,000, and is left out" in law.warnings

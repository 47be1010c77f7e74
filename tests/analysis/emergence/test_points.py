"""Scores beside losses: from tables and from results, their chance, their variance, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from emergence_scores import RISES, table_of, verdict

from lmsat_plugin.analysis import find_emergence
from lmsat_plugin.analysis.emergence import by_task, scores_of
from lmsat_plugin.errors import LmsatError


def test_normalised_scores():
    table = table_of(0, RISES["line"], "brier_score")
    (scores,) = scores_of(table)
    np.testing.assert_allclose(scores.normalised(), 1 - scores.table.score / 0.75)
    (scores,) = scores_of(table_of(0, RISES["line"]))
    np.testing.assert_allclose(scores.normalised(), (scores.table.score - 0.25) / 0.75)
    (scores,) = scores_of(table_of(0, RISES["line"]).drop(columns="chance"))
    assert np.isnan(scores.normalised()).all()


def test_chance_is_looked_up():
    table = table_of(0, RISES["line"]).drop(columns="chance").assign(task="mmlu")
    assert verdict(table).chance == 0.25


def test_sampling_variance_from_questions_and_standard_errors():
    table = table_of(0, RISES["line"], questions=400)
    (scores,) = scores_of(table)
    expected = scores.table.score * (1 - scores.table.score) / 400
    np.testing.assert_allclose(scores.table.variance, expected)
    (scores,) = scores_of(table.assign(stderr=0.02))
    np.testing.assert_allclose(scores.table.variance, 0.0004)
    (scores,) = scores_of(table.drop(columns="n_samples"))
    assert not scores.table.variance.any()
    assert verdict(table.drop(columns="n_samples")).emergent


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="loss"), "no column 'loss': it needs model, "),
        (lambda t: t.drop(columns="model"), "no column 'model'"),
        (lambda t: t.assign(model=t.model.where(t.step != 3)), "row 4 lacks a model, task or metric"),
        (lambda t: t.assign(score=np.nan), "no row has a finite number for score"),
        (lambda t: t.assign(score=100 * t.score), "give shares from 0 to 1, not per cent"),
        (lambda t: t.assign(perplexity=2**t.loss), "multiply them by ln 2"),
        (lambda t: t.assign(loss=-t.loss), "must be above 0"),
        (lambda t: t.assign(metric="word_perplexity"), "improve in a known direction: there are quiz word_perp"),
        (lambda t: t.assign(chance=t.chance + 0.1 * (t.step > 5)), "give one for each task"),
    ],
)
def test_bad_tables_are_one_sentence(change, sentence):
    with pytest.raises(LmsatError, match=sentence):
        find_emergence(change(table_of(0, RISES["line"])))


def test_unknown_factor_and_globs():
    table = table_of(0, RISES["line"])
    with pytest.raises(LmsatError, match="no column 'tokenizer' for a factor: it has model, step"):
        find_emergence(table, factor="tokenizer")
    with pytest.raises(LmsatError, match="match 'mmlu\\*' and '\\*'"):
        find_emergence(table, task="mmlu*")
    assert verdict(table, task="q*", metric="a?c").task == "quiz"


def test_rows_without_numbers_are_left_out(caplog):
    table = table_of(0, RISES["line"])
    table.loc[3, "score"] = np.nan
    with caplog.at_level(logging.WARNING):
        assert verdict(table).n_points == len(table) - 1
    assert "1 of" in caplog.text


def tidy_of(table: pd.DataFrame, **columns) -> pd.DataFrame:
    """Return a table of results with the losses and scores of a CSV's table, and things to leave out."""
    names = {"revision": "step" + table.step.astype(str), "corpus": None, "filter": "none", "num_fewshot": 0}
    base = table[["model", "step", "n_samples"]].assign(**names, **columns)
    parts = [
        base.assign(task="lmsat_loss", metric="loss", value=table.loss, corpus="pile"),
        base.assign(task="lmsat_loss", metric="bits_per_byte", value=table.loss / 3, corpus="pile"),
        base.assign(task="mmlu", metric="acc", value=table.score, higher_is_better=True),
        base.assign(task="wikitext", metric="word_perplexity", value=20.0, higher_is_better=False),
    ]
    return pd.concat(parts, ignore_index=True).assign(stderr=np.nan)


def test_results_are_joined_by_checkpoint(caplog):
    table = table_of(0, RISES["line"])
    expected = verdict(table.assign(task="mmlu"))
    tidy = tidy_of(table, vocab_size=50304).sample(frac=1, random_state=0)
    found = verdict(tidy)
    assert (found.threshold, found.low, found.high) == (expected.threshold, expected.low, expected.high)
    assert not caplog.records
    bits = verdict(tidy, loss="bits_per_byte")
    assert bits.threshold == pytest.approx(expected.threshold / 3)
    other = tidy.assign(vocab_size=np.where(tidy.model == "run-0", 32000, 50304))
    with caplog.at_level(logging.WARNING):
        verdict(other)
    assert "32000 to 50304 tokens" in caplog.text
    several = pd.concat([tidy, tidy[tidy.task == "lmsat_loss"].assign(corpus="c4")])
    with pytest.raises(LmsatError, match="on c4, pile, which do not compare"):
        find_emergence(several)
    with pytest.raises(LmsatError, match=r"no metric 'nats'.*bits_per_byte, loss"):
        find_emergence(tidy, loss="nats")
    with pytest.raises(LmsatError, match="hold no lmsat_loss"):
        find_emergence(tidy[tidy.task == "mmlu"])


def test_shots_and_filters_stand_apart():
    table = table_of(0, RISES["line"])
    tidy = tidy_of(table)
    more = tidy[tidy.task == "mmlu"]
    both = pd.concat([tidy, more.assign(num_fewshot=5), more.assign(filter="strict", metric="exact_match")])
    found = [(one.task, one.metric, one.variant, one.chance) for one in find_emergence(both)]
    assert found == [
        ("mmlu", "acc", "num_fewshot=0", 0.25),
        ("mmlu", "acc", "num_fewshot=5", 0.25),
        ("mmlu", "exact_match", None, 0.0),
    ]


def test_chance_that_a_sweep_measured_counts():
    tidy = tidy_of(table_of(0, RISES["line"])).replace({"task": {"mmlu": "quiz"}})
    assert verdict(tidy).chance is None
    guesses = tidy[tidy.metric == "acc"].assign(metric="chance", value=0.25, higher_is_better=None)
    found = verdict(pd.concat([tidy, guesses]))
    assert found.chance == 0.25
    assert "chance is not known" not in found.reason


def test_of_many_checkpoints_some_are_used(monkeypatch):
    table = table_of(0, RISES["line"])
    (whole,) = scores_of(table)
    thinned, every = whole.thinned(len(whole.table) // 2)
    assert every == 2
    assert len(thinned.table) <= len(whole.table) / 2 + len(whole.runs)
    for run, of_whole in zip(thinned.runs, whole.runs, strict=True):
        assert thinned.losses_P[run].tolist() == whole.losses_P[of_whole][::-1][::2][::-1].tolist()
    full = verdict(table)
    monkeypatch.setattr(by_task, "_MOST_POINTS", len(whole.table) // 2)
    half = verdict(table)
    assert (half.emergent, half.n_points) == (full.emergent, len(thinned.table))
    assert "; of each 2 checkpoints of a run one was used" in half.reason
    assert half.low < full.threshold < half.high

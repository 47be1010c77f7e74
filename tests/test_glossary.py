"""The words of verdicts, tables and charts: each is explained, once, on the page and by ``lmsat explain``."""

from __future__ import annotations

import re

import pytest

from lmsat_plugin.analysis.saturation.replicates import ORDER
from lmsat_plugin.cli.main import main
from lmsat_plugin.glossary import WORDS, word_of
from lmsat_plugin.metrics import _ROWS
from lmsat_plugin.page import tables
from lmsat_plugin.page.explained import explained, meaning
from lmsat_plugin.ranking.columns import COLUMNS

PLAIN = {"model", "variant", "stage", "run", "task", "metric", "models"}
"""Columns that need no explanation."""


def test_every_column_of_verdicts_is_explained():
    columns = {*tables._SATURATION.values(), *tables._EMERGENCE.values()} - PLAIN
    assert [column for column in sorted(columns) if not meaning(column)] == []


def test_verdicts_and_measures_are_explained():
    measured = ("singular_entropy", "effective_rank", "anisotropy_last", "bits_per_byte", "acc", "brier_score")
    words = (*ORDER, *measured, "head capacity", "shared rank", "onset", "p", "Singular  Entropy", "p-value")
    assert [word for word in words if word_of(word) is None] == []
    of_boards = {column.title for column in COLUMNS}
    assert {"head capacity", "singular entropy", "gap to the law", "saturates?"} <= of_boards
    assert all(word_of(title) for title in ("head capacity", "singular entropy", "gap to the law", "saturates?"))


def test_every_metric_of_lmsats_own_is_explained():
    """Those of probes are on the page and in figures without a sentence around them."""
    names = [name for names, *_ in _ROWS for name in names.split()]
    # Metrics of lm-eval's tasks come first.
    own = {*names[names.index("unigram_normalised_perplexity") :]} - {"bits_per_byte_corr", "bytes"}
    assert [name for name in sorted(own) if word_of(name) is None] == []


def test_no_name_has_two_meanings():
    names = [re.sub(r"[\s_-]+", " ", name).casefold() for word in WORDS for name in {word.name, *word.also}]
    own = [(word.name, re.sub(r"[\s_-]+", " ", name).casefold()) for word in WORDS for name in (word.name, *word.also)]
    assert len(set(names)) == len(set(own))


def test_words_in_sentences_are_marked_once_and_names_stay_text():
    said = explained('<i>saturates</i>: p = 0.01 of a rise, & it saturates; "improving"')
    assert said.count("<abbr") == 3
    assert "<i>" not in said
    assert "&lt;i&gt;<abbr title=" in said
    plain = "&lt;i&gt;saturates&lt;/i&gt;: p = 0.01 of a rise, &amp; it saturates; &#34;improving&#34;"
    assert re.sub(r"</?abbr[^>]*>", "", said) == plain


@pytest.mark.parametrize(("words", "said"), [(["effective", "rank"], "exp of the entropy"), (["law"], "gap to")])
def test_the_command_explains(capsys, words, said):
    assert main(["explain", *words]) == 0
    assert said in capsys.readouterr().out


def test_the_command_lists_all_and_refuses_others(capsys):
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out
    assert all(word.name in listed for word in WORDS)
    assert main(["explain", "zebra"]) == 2
    assert "'zebra' is not explained" in capsys.readouterr().err

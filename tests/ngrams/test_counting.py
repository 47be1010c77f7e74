"""Counts of n-grams against a dictionary, in memory and on disk."""

from __future__ import annotations

import resource
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngram_matrices import phrases, successors_of

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams import counting, records
from lmsat_plugin.ngrams.counting import count_ngrams

# 70,000 tokens to the fourth power are more than 64 bits.
VOCABULARIES = [1, 2, 5, 40, 70_000]


@given(
    vocab_size=st.sampled_from(VOCABULARIES),
    order=st.integers(1, 5),
    seed=st.integers(0, 1000),
    length=st.sampled_from([5, 50, 500]),
)
def test_counts_are_those_of_a_dictionary(vocab_size, order, seed, length):
    documents = phrases(seed, vocab_size, length)
    found = count_ngrams(iter(documents), order, vocab_size)
    assert_counts(found, documents, order, vocab_size)


def assert_counts(found, documents, order, vocab_size):
    expected = successors_of(documents, order)
    single = [counts for counts in expected.values() if len(counts) == 1]
    assert found.order == order
    assert found.tokens == sum(map(len, documents))
    assert found.contexts == len(expected)
    for counted, weigh in ((found.single_contexts_V, len), (found.single_ngrams_V, Counter.total)):
        totals: Counter = Counter()
        for counts in single:
            totals[next(iter(counts))] += weigh(counts)
        assert counted.shape == (vocab_size,)
        assert {int(token): int(counted[token]) for token in counted.nonzero()[0]} == totals
    rows = found.branching_BV
    bounds = zip(rows.indptr, rows.indptr[1:], strict=False)
    shown = Counter(frozenset(zip(rows.indices[a:b], rows.data[a:b], strict=True)) for a, b in bounds)
    assert shown == Counter(frozenset(c.items()) for c in expected.values() if len(c) > 1)


@pytest.mark.parametrize("vocab_size", [40, 70_000])
def test_counts_on_disk_are_the_same(tmp_path, monkeypatch, vocab_size):
    documents = phrases(0, vocab_size, 5000)
    monkeypatch.setattr(counting, "_BLOCK", 300)
    monkeypatch.setattr(records, "_IN_MEMORY", 1000)
    opened = []
    temporary_file = records.tempfile.TemporaryFile
    monkeypatch.setattr(records.tempfile, "TemporaryFile", lambda **k: opened.append(temporary_file(**k)) or opened[-1])
    found = count_ngrams(documents, 3, vocab_size, tmp_path)
    assert_counts(found, documents, 3, vocab_size)
    assert opened[0].closed
    assert list(tmp_path.iterdir()) == []


def test_small_corpora_do_not_touch_the_disk(monkeypatch):
    monkeypatch.setattr(records.tempfile, "TemporaryFile", None)
    assert count_ngrams(phrases(0, 40, 5000), 3, 40).contexts > 100


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_IN_MEMORY", 1000)
    documents = phrases(0, 40, 50_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(LmsatError, match=r"n-grams cannot be kept in .*free space") as caught:
            count_ngrams(documents, 3, 40, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []

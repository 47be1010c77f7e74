"""Counts of neighbours against a loop."""

from __future__ import annotations

from collections import Counter

import numpy as np

from lmsat_plugin.ngrams.bigrams import count_bigrams


def test_against_a_loop():
    draws = np.random.default_rng(0)
    documents = [draws.geometric(0.3, size).clip(1, 19).astype(np.int32) for size in (300, 1, 40, 7)]
    counts = count_bigrams(documents, 0, 20, 4)
    pairs = Counter((a, b) for each in documents for a, b in zip([0, *each[:-1]], each, strict=True))
    contexts = Counter(a for each in documents for a in [0, *each[:-1]])
    assert counts.tokens == 348
    assert counts.unigrams_V.tolist() == [sum(int((each == token).sum()) for each in documents) for token in range(20)]
    assert counts.contexts_C.tolist() == sorted(token for token, count in contexts.items() if count >= 4)
    assert 0 in counts.contexts_C, "four documents begin with the prefix token"
    dense = counts.successors_CV.toarray()
    for row, context in enumerate(counts.contexts_C):
        assert dense[row].tolist() == [pairs[context, token] for token in range(20)]


def test_no_text_has_no_contexts():
    counts = count_bigrams([], 0, 20, 1)
    assert (counts.tokens, len(counts.contexts_C), counts.successors_CV.shape) == (0, 0, (0, 20))

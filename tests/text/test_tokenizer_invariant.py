"""Losses that compare between tokenizers, against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.text.tokenizer_invariant import bits_per_byte, unigram_nats, unigram_normalised_perplexity


def test_bits_per_byte_and_unigrams():
    # A byte-level model that guesses: eight bits for each byte, whatever the tokens.
    assert bits_per_byte(2 * math.log(256), 50, 100) == pytest.approx(8)
    documents = [np.array([0, 1, 1, 5]), np.array([], dtype=int), np.array([1, 0, 5, 5, 5, 9])]
    tokens = np.concatenate(documents)
    shares = np.bincount(tokens) / len(tokens)
    assert unigram_nats(documents) == pytest.approx(stats.entropy(shares))
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.1, 0.9, len(tokens))
    product = np.prod(probabilities / shares[tokens]) ** (-1 / len(tokens))
    nats = -np.log(probabilities).mean()
    assert unigram_normalised_perplexity(nats, unigram_nats(documents)) == pytest.approx(product)
    with pytest.raises(LmsatError, match="no tokens"):
        unigram_nats([])
    with pytest.raises(LmsatError, match="0 tokens of 3 bytes"):
        bits_per_byte(1.0, 0, 3)

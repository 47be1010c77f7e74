"""Which tokens follow which in a text, and how often: the contexts of one token that occur often enough.

Shapes: V tokens of the vocabulary, C contexts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lmsat_plugin.text.frequencies import token_counts


@dataclass(frozen=True)
class BigramCounts:
    """The tokens of a text, and the successors of those that occur at least so many times with one."""

    tokens: int
    unigrams_V: np.ndarray
    """How often each token occurs, int64."""
    contexts_C: np.ndarray
    """The tokens that are contexts, ascending."""
    successors_CV: csr_array
    """How often each token follows each context, int64."""


def count_bigrams(documents: Iterable[np.ndarray], prefix: int, vocab_size: int, least: int) -> BigramCounts:
    """Count the pairs of neighbours within each document, of which the token ``prefix`` begins each.

    Documents are arrays of token ids below ``vocab_size``. Contexts are the tokens with at least ``least`` successors.
    """
    parts = list(documents)
    successors_N = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    contexts_N = np.concatenate([np.concatenate([[prefix], part[:-1]]) for part in parts]) if parts else successors_N
    unigrams_V = token_counts([successors_N])
    unigrams_V = np.pad(unigrams_V, (0, vocab_size - len(unigrams_V)))
    contexts_C = np.flatnonzero(np.bincount(contexts_N, minlength=vocab_size) >= least)
    row_of_V = np.full(vocab_size, -1)
    row_of_V[contexts_C] = np.arange(len(contexts_C))
    rows_N = row_of_V[contexts_N]
    kept_N = rows_N >= 0
    pairs, counts = np.unique(rows_N[kept_N] * vocab_size + successors_N[kept_N], return_counts=True)
    bounds = np.searchsorted(pairs, np.arange(len(contexts_C) + 1) * vocab_size)
    successors_CV = csr_array((counts, pairs % vocab_size, bounds), shape=(len(contexts_C), vocab_size))
    return BigramCounts(len(successors_N), unigrams_V, contexts_C, successors_CV)

"""Texts, their n-grams in a dictionary, and their matrix of n-grams by LAPACK."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
from scipy.sparse import csr_array

from lmsat_plugin.ngrams.counting import NgramCounts


def successors_of(documents, order) -> dict[tuple[int, ...], Counter]:
    """Return how often each token follows each context, by looking at one n-gram after the other."""
    found: dict[tuple[int, ...], Counter] = defaultdict(Counter)
    for document in documents:
        for i in range(len(document) - order + 1):
            *context, successor = (int(token) for token in document[i : i + order])
            found[tuple(context)][successor] += 1
    return found


def dense(documents, order, vocab_size, weighted=False) -> np.ndarray:
    """Return W, a row for each context."""
    rows = []
    for counts in successors_of(documents, order).values():
        row = np.zeros(vocab_size)
        row[list(counts)] = np.array(list(counts.values())) / counts.total()
        rows.append(row * math.sqrt(counts.total()) if weighted else row)
    return np.array(rows)


def w_error_of(matrix) -> np.ndarray:
    """Return the W-error of each dimension by LAPACK, for a column of the matrix each."""
    s = np.linalg.svd(matrix, compute_uv=False)
    s = np.concatenate([s, np.zeros(max(matrix.shape[1] - len(s), 0))])[: matrix.shape[1]]
    return np.array([math.sqrt(math.fsum(s[d:] ** 2) / math.fsum(s**2)) for d in range(1, len(s) + 1)])


def phrases(seed, vocab_size, length, order=5, disorder=0.03) -> list[np.ndarray]:
    """Return documents of few phrases said again and again, with rare slips after frequent contexts."""
    rng = np.random.default_rng(seed)
    known = [rng.integers(0, vocab_size, rng.integers(2, 12)) for _ in range(6)]
    parts = [
        rng.integers(0, vocab_size, 3) if rng.random() < disorder else known[int(rng.zipf(1.6)) % 6]
        for _ in range(length // 6 + 1)
    ]
    text = np.concatenate(parts).astype(np.int32)
    return [*np.split(text, sorted(rng.integers(0, len(text), 3))), np.arange(order, dtype=np.int32) % vocab_size]


def twins(seed, vocab_size, length, order) -> list[np.ndarray]:
    """Return n-grams of even tokens, each with its successor and with the odd one after: columns are pairwise equal."""
    rng = np.random.default_rng(seed)
    even = 2 * np.minimum(rng.zipf(1.5, length + order) - 1, max(vocab_size // 2 - 1, 0)).astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(even, order)
    other = windows.copy()
    other[:, -1] += vocab_size > 1
    return [*windows, *other]


def branching_only(counts_BV) -> NgramCounts:
    """Return the counts of a corpus that has these branching contexts and no others."""
    none = np.zeros(counts_BV.shape[1], dtype=np.int64)
    total = int(counts_BV.sum())
    return NgramCounts(
        order=2, tokens=total, contexts=len(counts_BV), single_contexts_V=none, single_ngrams_V=none,
        branching_BV=csr_array(counts_BV),
    )  # fmt: skip


def frequencies_of(counts) -> np.ndarray:
    rows = counts.branching_BV.toarray()
    return rows / rows.sum(1, keepdims=True)

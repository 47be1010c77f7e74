"""How frequent the tokens of a text are in it: thirds of its tokens, and octaves of their counts.

Shapes: V tokens of the vocabulary that occur, up to the one of the greatest number; G groups of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

THIRDS = ("frequent", "medium", "rare")


def token_counts(documents: Iterable[np.ndarray]) -> np.ndarray:
    """Return how often each token of the vocabulary occurs, int64, shape [V]."""
    counts_V = np.zeros(1, np.int64)
    for tokens in documents:
        found_V = np.bincount(tokens, minlength=len(counts_V))
        found_V[: len(counts_V)] += counts_V
        counts_V = found_V
    return counts_V


def thirds_of_mass(counts_V: np.ndarray) -> np.ndarray:
    """Return for each token of the vocabulary in which third of the text it is: 0 frequent, 1 medium, 2 rare.

    The text's tokens stand in order from the most frequent of the vocabulary to the least, of equal counts the one of
    the lower number first. All occurrences of one are in the third in which the middle one of them is.
    """
    order = np.argsort(-counts_V, kind="stable")
    thirds_V = np.empty(len(counts_V), np.int64)
    thirds_V[order] = thirds_in_order(counts_V[order])
    return thirds_V


def thirds_in_order(counts_G: np.ndarray) -> np.ndarray:
    """Return in which third of all tokens each of G groups is, 0 to 2, of groups that stand in order.

    All tokens of one are in the third in which the middle one of them is.
    """
    middles_G = np.cumsum(counts_G) - counts_G / 2
    return np.minimum(3 * middles_G / counts_G.sum(), 2).astype(np.int64)


def octaves_of_count(counts_V: np.ndarray) -> np.ndarray:
    """Return k for each token of the vocabulary that occurs 2ᵏ to 2ᵏ⁺¹ − 1 times; 0 for those that do not occur."""
    return np.log2(np.maximum(counts_V, 1)).astype(np.int64)

"""Unbiased estimates of the gradient's squared norm and noise, and their standard errors by jackknife.

Shapes: K sequences, G groups of them, X entries of a sketch; ``…`` is any shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class GradientNoise:
    """Unbiased estimates of |G|² and tr Σ (McCandlish et al. 2018, App. A.1), of any shape […]."""

    squared_norm: Any
    """|G|², G the expectation of the gradient of the mean loss; the estimate may be negative."""
    trace: Any
    """tr Σ for a batch of one token; for a batch of B independent tokens it is tr Σ / B."""

    @classmethod
    def of(cls, total: Any, squares: Any, tokens: Any, tokens_squared: Any) -> GradientNoise:
        """Return the estimates from gradients s_i of summed losses, of sequences of n_i tokens.

        ``total`` is |Σ s_i|², ``squares`` Σ |s_i|², ``tokens`` N = Σ n_i, ``tokens_squared`` Σ n_i². These are the
        paper's formulas, |G|² = (B_big |G_big|² − B_small |G_small|²)/(B_big − B_small) and
        tr Σ = (|G_small|² − |G_big|²)/(1/B_small − 1/B_big), with B_big = N, |G_big|² = |Σ s_i|²/N²,
        |G_small|² = Σ |s_i|²/Σ n_i² and B_small = Σ n_i²/N: for equal lengths one sequence and the plain mean. For
        any lengths |G|² is then Σ_{i≠j} s_i·s_j / Σ_{i≠j} n_i n_j and tr Σ is Σ_i tr Cov(s_i)/N, in expectation, if
        the s_i are independent with means n_i G; tokens within a sequence need not be.
        """
        pairs = tokens**2 - tokens_squared
        return cls((total - squares) / pairs, tokens * (squares - total * tokens_squared / tokens**2) / pairs)

    @classmethod
    def without_each_group(
        cls, total: float, squares_K: np.ndarray, tokens_K: np.ndarray, sketches_GX: np.ndarray
    ) -> GradientNoise:
        """Return the estimates without each of G groups of sequences, shape [G]; sequence k is in group k mod G.

        ``squares_K`` are |s_k|², ``tokens_K`` the n_k, and ``sketches_GX`` the sums of each group's sketches.
        """
        groups_K = np.arange(len(tokens_K)) % len(sketches_GX)

        def without_G(values_K: np.ndarray) -> np.ndarray:
            return values_K.sum() - np.bincount(groups_K, values_K)

        # |Σ s_i|² is exact: the sketches only estimate how a group's part of it differs from its share of the tokens.
        rest_G, all_X = without_G(tokens_K) / tokens_K.sum(), sketches_GX.sum(0)
        own_GX = sketches_GX - (1 - rest_G[:, None]) * all_X
        total_G = rest_G**2 * total - 2 * rest_G * (own_GX @ all_X) + (own_GX**2).sum(1)
        return cls.of(total_G, without_G(squares_K), without_G(tokens_K), without_G(tokens_K**2))

    @property
    def critical_batch(self) -> Any:
        """B_simple = tr Σ / |G|², in tokens."""
        return self.trace / self.squared_norm


def jackknife(without_G: np.ndarray) -> float:
    """Return a standard error from the estimates without each of G groups: √((G−1)/G Σ (x_g − mean)²)."""
    groups = len(without_G)
    return math.sqrt((groups - 1) / groups * float(((without_G - without_G.mean()) ** 2).sum()))

"""The W-error of a matrix below a rank, and a model's width beside the dimension of a corpus.

Shapes: S singular values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_share, check_whole
from lmsat_plugin.errors import LmsatError


def w_error(singular_values: np.ndarray) -> np.ndarray:
    """Return W-error(d) = √(Σ_{i>d} s² / Σ s²) for d = 1 ... S, float64, from singular values of any order.

    It is the relative Frobenius error of the best approximation of rank d (Godey et al. 2024, Sec. 5.1). The sum starts
    with the smallest values, which keeps it exact. Raises `LmsatError` unless all are finite and one is positive.
    """
    s = np.sort(np.asarray(singular_values, dtype=np.float64))
    if not np.isfinite(s).all() or not s.any():
        raise LmsatError("singular values that are not finite, or all zero, have no W-error: measure them again")
    sums = np.cumsum((s / s[-1]) ** 2)
    return np.sqrt(np.append(sums[-2::-1], 0.0) / sums[-1])


@dataclass(frozen=True)
class Capacity:
    """A model's width beside the n-gram dimension of a corpus."""

    dimension: int | None
    """The least dimension at which the W-error is negligible; None if it lies beyond the known part of the curve."""
    w_error_at_hidden_size: float | None
    """None beyond the known part of the curve."""
    ratio: float | None
    """``dimension`` over the hidden size."""


def capacity(w_error_of_corpus: np.ndarray, hidden_size: int, negligible: float = 0.01) -> Capacity:
    """Compare a model's width with the W-error of a corpus' n-gram model (Godey et al. 2024, Sec. 5.1, Fig. 7).

    ``w_error_of_corpus`` has the W-error of dimension d in entry d − 1; it may end before it reaches 0. Raises
    `LmsatError` for a size that is no whole number from 1 on, and a ``negligible`` W-error that is not between 0 and 1.
    """
    check_whole("hidden_size", hidden_size, "give the model's width, from 1 on", least=1)
    check_share("negligible", negligible)
    enough = np.flatnonzero(w_error_of_corpus <= negligible)
    dimension = int(enough[0]) + 1 if len(enough) else None
    # A curve that ends with 0 is known to its end.
    complete = len(w_error_of_corpus) > 0 and w_error_of_corpus[-1] == 0
    known = float(w_error_of_corpus[hidden_size - 1]) if hidden_size <= len(w_error_of_corpus) else None
    return Capacity(
        dimension=dimension,
        w_error_at_hidden_size=0.0 if known is None and complete else known,
        ratio=None if dimension is None else dimension / hidden_size,
    )

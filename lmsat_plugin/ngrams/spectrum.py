"""The singular values of a corpus' n-gram matrix W, all or the largest of a big one, and its W-error at each dimension.

Shapes: V tokens of the vocabulary, B branching contexts, N tokens that follow one, M rows with those of single
successors merged, L rows with many successors, R rank, K dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import psutil
from scipy.linalg import lapack
from scipy.sparse import csr_array, diags_array, vstack

from lmsat_plugin.analysis.rank_needed.dimension import w_error
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams.counting import NgramCounts
from lmsat_plugin.ngrams.lanczos import ritz_values

DIMENSIONS = 1000
"""How many singular values are computed if all of them would be too many."""
_WHOLE = 16_384
_DENSE_ELEMENTS = 1 << 22
_SHORT_ROW = 10
_BOUND = 5e-5
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class NgramSpectrum:
    """Singular values s of W, all V of them or the greatest, and W-error(d) = √(Σ_{i>d} s² / Σ s²)."""

    singular_values: np.ndarray
    """float64, falling; zeros included."""
    w_error: np.ndarray
    """float64; entry d − 1 is that of dimension d."""
    w_error_bound: float
    """How much smaller than stated the true W-error may be, at any dimension; 0 for a whole spectrum.

    The true W-error is never greater than stated. That it is not smaller by more than the bound follows from the
    eigenvalues' residuals, unless an eigenvalue was missed altogether: residuals do not show that, but a random first
    block makes it improbable. Rounding, about 1e-12, is not included.
    """
    whole: bool
    """Whether all singular values are known."""

    def dimension(self, threshold: float) -> int | None:
        """Return the least dimension, from 1, with at most this W-error; None if it is beyond the known ones."""
        reached = np.flatnonzero(self.w_error <= threshold)
        return int(reached[0]) + 1 if len(reached) else None


def ngram_spectrum(
    counts: NgramCounts, *, weighted: bool = False, exact: bool = False, dimensions: int = DIMENSIONS
) -> NgramSpectrum:
    """Decompose W, the relative frequencies of each context's successors (Godey et al. 2024, Sec. 5.1, Fig. 7).

    With ``weighted``, each row is multiplied by the square root of its context's count. Contexts with a single
    successor change only the diagonal of WᵀW: those with the same successor are merged into one row, and a token
    that follows no other context is a singular value by itself. If the rest has at most 16,384 columns or rows,
    all its singular values are computed, in float64. If it has more, only the ``dimensions`` greatest are computed, by
    block Lanczos, until the W-error is known to 5e-5; ``exact``, or more than a quarter of them, asks for all.

    Raises `LmsatError` if all are needed and memory is too small.
    """
    single_V = np.sqrt(counts.single_ngrams_V if weighted else counts.single_contexts_V)
    branching_BV = _frequencies(counts.branching_BV, weighted)
    columns_N = np.unique(branching_BV.indices)
    alone = np.delete(single_V, columns_N)
    rows_MN = _merged(branching_BV[:, columns_N], single_V[columns_N])
    size = min(rows_MN.shape)
    all_wanted = exact or dimensions > size // 4
    needed = 32 * size * rows_MN.shape[1]
    fits = needed <= psutil.virtual_memory().available
    if fits and (all_wanted or size <= _WHOLE):
        s = np.zeros(len(single_V))
        s[: len(alone)] = alone
        together = _all_singular_values(rows_MN)
        s[len(alone) : len(alone) + len(together)] = together
        return NgramSpectrum(singular_values=np.sort(s)[::-1], w_error=w_error(s), w_error_bound=0.0, whole=True)
    if all_wanted:
        raise LmsatError(
            f"all {size:,} singular values need {needed / 1e9:.0f} GB of free memory: "
            f"use a larger machine, or leave out `exact` and ask for at most {size // 4:,} dimensions"
        )
    return _greatest(rows_MN, alone, dimensions)


def _frequencies(counts_BV: csr_array, weighted: bool) -> csr_array:
    """Return each row's relative frequencies, times the square root of the row's sum if weighted."""
    totals_B = counts_BV.sum(axis=1).astype(np.float64)
    divisors = np.repeat(np.sqrt(totals_B) if weighted else totals_B, np.diff(counts_BV.indptr))
    return csr_array((counts_BV.data / divisors, counts_BV.indices, counts_BV.indptr), shape=counts_BV.shape)


def _merged(branching_BN: csr_array, single_N: np.ndarray) -> csr_array:
    """Return the branching rows below a diagonal that stands for all contexts with a single successor."""
    return csr_array(vstack([csr_array(diags_array(single_N))[single_N > 0], branching_BN]))


def _all_singular_values(rows_MN: csr_array) -> np.ndarray:
    """Return the singular values in any order, without some of those that are zero.

    A small or very wide matrix is decomposed itself. For others it is the Gram matrix: a sum of products that are not
    negative, so that each entry is exact to a few roundings of its own size, and so is the Cholesky factor after
    scaling to a unit diagonal. Pivots below 1e-13 count as zero: their columns depend on others up to 3e-7 of their
    norm.
    """
    m, n = rows_MN.shape
    if 2 * m < n or m * n <= _DENSE_ELEMENTS:
        dense = (rows_MN.T if m < n else rows_MN).toarray()
        return _of_factor(np.asarray(np.linalg.qr(dense, mode="r")))
    gram_NN = (rows_MN.T @ rows_MN).toarray()
    scales_N = np.sqrt(gram_NN.diagonal())
    gram_NN /= scales_N
    gram_NN /= scales_N[:, None]
    factor_NN, pivots_N, rank, _ = lapack.dpstrf(gram_NN.T, tol=1e-13, overwrite_a=True)
    del gram_NN
    factor_RN = np.triu(factor_NN[:rank])
    factor_RN *= scales_N[pivots_N - 1]
    return _of_factor(factor_RN)


def _of_factor(factor_RN: np.ndarray) -> np.ndarray:
    """Return the singular values of a factor with no more rows than columns.

    Their squares, as eigenvalues, take a quarter of the time, but are exact only to a rounding of the greatest. Where
    that might change a W-error by more than 1e-9, the singular values are computed directly.
    """
    squares = np.linalg.eigvalsh(factor_RN @ factor_RN.T)
    if len(squares) and squares[0] > 0:
        rounding = 4 * np.finfo(float).eps * squares[-1]
        tails = np.cumsum(squares)
        errors = np.arange(1, len(squares) + 1) * rounding / (2 * np.sqrt(tails * tails[-1]))
        if errors.max() < _ROUNDING:
            return np.sqrt(squares)
    return np.linalg.svd(factor_RN, compute_uv=False)


def _greatest(rows_MN: csr_array, alone: np.ndarray, dimensions: int) -> NgramSpectrum:
    """Return the greatest singular values of the rows and those that stand alone, together."""
    short_M = np.diff(rows_MN.indptr) <= _SHORT_ROW
    # Most rows are short and made of few pairs of tokens: the sum of their products is smaller than they are.
    short_NN = csr_array(rows_MN[short_M].T @ rows_MN[short_M])
    long_LN = rows_MN[~short_M]

    def multiply(block_NB: np.ndarray) -> np.ndarray:
        return short_NN @ block_NB + long_LN.T @ (long_LN @ block_NB)

    total = (rows_MN.data**2).sum() + (alone**2).sum()
    for values_K, residuals_K in ritz_values(multiply, rows_MN.shape[1], dimensions):
        squares = np.concatenate([values_K, alone**2])
        slack = np.concatenate([residuals_K, np.zeros(len(alone))])
        first_K = np.argsort(-squares)[:dimensions]
        known_K = np.cumsum(squares[first_K])
        w_error_K = np.sqrt((1 - known_K / total).clip(min=0))
        least_K = np.sqrt((1 - (known_K + np.cumsum(slack[first_K])) / total).clip(min=0))
        bound = float((w_error_K - least_K).max())
        if bound <= _BOUND:
            break
    return NgramSpectrum(
        singular_values=np.sqrt(squares[first_K].clip(min=0)), w_error=w_error_K, w_error_bound=bound, whole=False
    )

"""The largest eigenvalues of a big symmetric matrix, by block Lanczos.

Shapes: N rows of the matrix, P vectors of the basis so far, B = 16 vectors of a block, K eigenvalues wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_BLOCK = 16


def ritz_values(
    multiply: Callable[[np.ndarray], np.ndarray], size: int, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield better and better estimates of the ``count`` largest eigenvalues, falling, and their residuals' norms.

    Block Lanczos with full reorthogonalisation and without restarts, in float64, from a fixed random block
    (Golub and Van Loan 2013, Sec. 10.3.6). ``multiply`` maps a block [N, B] to its product with the matrix. The
    basis grows to at most 4 ``count`` + 1024 vectors. The k-th estimate is at most the k-th eigenvalue, and an
    eigenvalue lies within a residual's norm of each estimate.

    For the 1,000 largest of 17,961 it is 14.6 times faster than `scipy.sparse.linalg.svds`, which restarts and
    multiplies one vector at a time (benchmarks/ngrams.py).
    """
    most = min(size, 4 * count + 1024) // _BLOCK * _BLOCK
    basis_PN = np.empty((most, size))
    projected_PP = np.zeros((most, most))
    block_BN = np.linalg.qr(np.random.default_rng(0).standard_normal((size, _BLOCK))).Q.T
    before_BN, coupling_BB = np.zeros_like(block_BN), np.zeros((_BLOCK, _BLOCK))
    norm, check = 0.0, 2 * count + count // 8
    for start in range(0, most, _BLOCK):
        stop = start + _BLOCK
        basis_PN[start:stop] = block_BN
        rest_BN = multiply(np.ascontiguousarray(block_BN.T)).T
        own_BB = rest_BN @ block_BN.T
        projected_PP[start:stop, start:stop] = own_BB
        rest_BN = rest_BN - own_BB @ block_BN - coupling_BB @ before_BN
        next_NB, coupling_BB = np.linalg.qr(_orthogonal(rest_BN, basis_PN[:stop]).T)
        norm = max(norm, float(np.linalg.norm(own_BB, 2)))
        if abs(coupling_BB.diagonal()).min() < 1e-8 * norm:
            # The block has nearly lost its rank: its last vectors are rounding errors, not orthogonal to the basis.
            next_NB = np.linalg.qr(_orthogonal(next_NB.T, basis_PN[:stop]).T).Q
        before_BN, block_BN = block_BN, next_NB.T
        if stop >= check or stop == most:
            check = stop + stop // 8
            values_P, vectors_PP = np.linalg.eigh(projected_PP[:stop, :stop])
            residuals_P = np.linalg.norm(coupling_BB @ vectors_PP[-_BLOCK:], axis=0)
            yield values_P[::-1][:count], residuals_P[::-1][:count]
        if stop < most:
            projected_PP[stop : stop + _BLOCK, start:stop] = coupling_BB


def _orthogonal(block_BN: np.ndarray, basis_PN: np.ndarray) -> np.ndarray:
    """Return the block without its components along the basis."""
    return block_BN - (block_BN @ basis_PN.T) @ basis_PN

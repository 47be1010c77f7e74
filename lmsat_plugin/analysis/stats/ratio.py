"""The standard error of a ratio of two sums over documents, such as nats per token.

Shapes: M documents, X any number of rows.
"""

from __future__ import annotations

import numpy as np


def residuals(sums_XM: np.ndarray, tokens_M: np.ndarray) -> np.ndarray:
    """Return s_m − r t_m with the ratio r = Σ s / Σ t, shape [X, M]."""
    ratio_X1 = sums_XM.sum(-1, keepdims=True) / tokens_M.sum()
    return sums_XM - ratio_X1 * tokens_M


def ratio_stderr(sums_XM: np.ndarray, tokens_M: np.ndarray) -> np.ndarray:
    """Return the standard error of r = Σ s / Σ t over samples of documents, shape [X]; NaN for a single document.

    √(M/(M−1) Σ_m (s_m − r t_m)²) / Σ t, the linearisation of a ratio (Cochran 1977, Sec. 2.11). For the difference of
    two models on the same documents, s is the difference of their sums.
    """
    documents = len(tokens_M)
    if documents < 2:
        return np.full(sums_XM.shape[:-1], np.nan)
    variance_X = documents / (documents - 1) * (residuals(sums_XM, tokens_M) ** 2).sum(-1)
    return np.sqrt(variance_X) / tokens_M.sum()

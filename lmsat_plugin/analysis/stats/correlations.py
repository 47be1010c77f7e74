"""Correlations of two series, as scipy.stats has them, whose import takes longer than most answers."""

from __future__ import annotations

import numpy as np


def pearson(x_K: np.ndarray, y_K: np.ndarray) -> float | None:
    """Return the correlation of two series; None for fewer than three values, or for values that are all alike."""
    if len(x_K) < 3 or not np.ptp(x_K) or not np.ptp(y_K):
        return None
    return float(np.corrcoef(x_K, y_K)[0, 1])


def spearman(x_K: np.ndarray, y_K: np.ndarray) -> float | None:
    """Return the correlation of the ranks of two series, of which ties share one; None as for `pearson`."""
    import pandas as pd

    return pearson(*(pd.Series(values).rank().to_numpy() for values in (x_K, y_K)))

"""Whether differences are real: Holm's correction, standard errors over clusters, the smallest detectable difference.

Shapes: Q hypotheses, M documents or questions.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

SIGNIFICANT = 0.05
POWER = 0.8


def holm(p_values_Q: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number: max over j ≤ i of (Q − j + 1) p_(j), at most 1 (Holm 1979)."""
    order_Q = np.argsort(p_values_Q, kind="stable")
    factors_Q = np.arange(len(p_values_Q), 0, -1)
    corrected_Q = np.empty(len(p_values_Q))
    corrected_Q[order_Q] = np.minimum(np.maximum.accumulate(factors_Q * np.asarray(p_values_Q)[order_Q]), 1)
    return corrected_Q


def clustered_stderr(values_M: np.ndarray, clusters_M: np.ndarray | None = None) -> float:
    """Return the standard error of the mean of M values, of which those of one cluster may correlate.

    √(Σ_c (Σ_{i∈c} (x_i − x̄))²) / M · √(C / (C − 1)) with C clusters (Miller 2024, arXiv:2411.00640, section 2.2, with
    the correction for few clusters). Without clusters each value is its own, which is the usual standard error. NaN for
    fewer than two clusters.
    """
    deviations_M = values_M - values_M.mean()
    if clusters_M is not None:
        _, index_M = np.unique(clusters_M, return_inverse=True)
        deviations_M = np.bincount(index_M, weights=deviations_M)
    number = len(deviations_M)
    if number < 2:
        return float("nan")
    return float(np.sqrt(number / (number - 1) * (deviations_M**2).sum()) / len(values_M))


def smallest_detectable(stderr: float, significant: float = SIGNIFICANT, power: float = POWER) -> float:
    """Return the difference that a two-sided test finds with a given power: (z_{1−α/2} + z_{power}) · stderr.

    Miller 2024 (arXiv:2411.00640), section 5.
    """
    quantile = NormalDist().inv_cdf
    return (quantile(1 - significant / 2) + quantile(power)) * stderr

"""Whether differences are real: tests, Holm's correction, standard errors, the smallest detectable difference.

Shapes: Q hypotheses, M documents or questions, E parts of an error.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def combined(errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error of a sum of E independent parts, and its degrees of freedom.

    Each part is a standard error and its degrees of freedom, which are infinite where the error is known. The degrees
    of freedom of the sum are those of Welch (1947) and Satterthwaite (1946).
    """
    variances_E, freedom_E = np.array([error**2 for error, _ in errors]), np.array([freedom for _, freedom in errors])
    variance, share = float(variances_E.sum()), float((variances_E**2 / freedom_E).sum())
    return float(np.sqrt(variance)), variance**2 / share if share else float("inf")


def two_sided(gap: float, stderr: float, freedom: float = float("inf")) -> float:
    """Return the p-value of a difference by Student's t, or by the normal distribution for infinite ``freedom``."""
    # As scipy.stats, whose import takes longer than most answers.
    from scipy.special import ndtr, stdtr

    if gap == 0:
        return 1.0
    if stderr == 0:
        return 0.0
    z = abs(gap) / stderr
    return 2 * float(ndtr(-z) if np.isinf(freedom) else stdtr(freedom, -z))


def smallest_detectable(
    stderr: float, significant: float = SIGNIFICANT, power: float = POWER, freedom: float = float("inf")
) -> float:
    """Return the difference that a two-sided test finds with a given power: (q_{1−α/2} + q_{power}) · stderr.

    q are quantiles of the normal distribution (Miller 2024, arXiv:2411.00640, section 5), or of Student's t for finite
    ``freedom``, with which the power is 77 % instead of 80 % at two degrees of freedom, and 79 % at four.
    """
    if np.isinf(freedom):
        quantile = NormalDist().inv_cdf
        return (quantile(1 - significant / 2) + quantile(power)) * stderr
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - significant / 2) + stdtrit(freedom, power)) * stderr

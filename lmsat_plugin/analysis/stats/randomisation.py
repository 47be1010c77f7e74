"""Differences without a distribution: a test by their signs, intervals by subsets of units, and what could be found.

The standard error of a ratio such as nats per token is far too small where few documents hold most of the tokens: where
one of 22 holds 56 % of them, Student's t calls up to 48 % of differences without a cause significant at 5 %. What is
here stays valid (benchmarks/comparisons.py).

Shapes: C units (documents, questions, or clusters of these), G kinds of units that are alike, R subsets, S draws,
K models.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmsat_plugin.analysis.stats.bootstrap import p_value
from lmsat_plugin.analysis.stats.differences import POWER, SIGNIFICANT

_REPETITIONS = 9999
_FOR_EACH_PAIR, _MOST_REPETITIONS = 20, 29_999
"""Of several pairs: Holm divides 5 % by their number."""
_SUBSETS, _DRAWS = 999, 199
"""For what could be found: subsets of each draw of signs."""
_AT_ONCE = 2_000_000
_ROUNDING = 1e-9


def sign_test(differences_C: np.ndarray, repetitions: int = _REPETITIONS, seed: int = 0) -> float:
    """Return how often random signs make |Σ ± x_c| at least |Σ x_c| (Fisher's randomisation test).

    It holds its level where each difference is as likely as its negative, as between two models that are equally good,
    however unequal the units are. Of right and wrong answers it is McNemar's test. Where no draw comes as far, p is
    Hoeffding's bound 2 exp(−(Σ x)² / (2 Σ x²)).
    """
    total, squares = float(differences_C.sum()), float((differences_C**2).sum())
    if squares == 0:
        return 1.0
    seen, hits = abs(total) * (1 - _ROUNDING), 0
    for sums_R1 in _subsets(differences_C[:, None], repetitions, seed):
        hits += int((np.abs(2 * sums_R1[:, 0] - total) >= seen).sum())
    p = p_value(hits, repetitions)
    return p if hits else min(p, 2 * float(np.exp(-(total**2) / (2 * squares))))


def sign_tests(sums_KC: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return p of `sign_test` of the differences of each two rows, shape [K, K], 1 on the diagonal.

    All pairs get the same random signs, drawn more often the more pairs there are to be corrected for.
    """
    several, units = sums_KC.shape
    # The difference of two sums that are alike is that of their last digits.
    values_KC = sums_KC - sums_KC.mean(0)
    totals_K = values_KC.sum(1)
    seen_KK = np.abs(totals_K[:, None] - totals_K) * (1 - _ROUNDING)
    squares_KK = np.array([((own_C - values_KC) ** 2).sum(1) for own_C in values_KC])
    repetitions = min(max(_REPETITIONS, _FOR_EACH_PAIR * several * (several - 1) // 2), _MOST_REPETITIONS)
    rng, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // max(units, several))
    hits_KK = np.zeros((several, several), dtype=np.int64)
    for start in range(0, repetitions, at_once):
        subsets_RC = rng.integers(0, 2, (min(at_once, repetitions - start), units), dtype=np.uint8)
        sums_KR = 2 * (subsets_RC @ values_KC.T).T - totals_K[:, None]
        for row in range(several - 1):
            apart_KR = np.abs(sums_KR[row] - sums_KR[row + 1 :])
            hits_KK[row, row + 1 :] += (apart_KR >= seen_KK[row, row + 1 :, None]).sum(1)
    hits_KK += hits_KK.T
    p_KK = (1 + hits_KK) / (1 + repetitions)
    rare_KK = (hits_KK == 0) & (squares_KK > 0)
    p_KK[rare_KK] = np.minimum(p_KK[rare_KK], 2 * np.exp(-(seen_KK[rare_KK] ** 2) / (2 * squares_KK[rare_KK])))
    np.fill_diagonal(p_KK, 1.0)
    return p_KK


def subset_interval(
    differences_C: np.ndarray, counts_C: np.ndarray, repetitions: int = _REPETITIONS, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of r = Σ x / Σ t: the quantiles of r over random subsets of the units.

    Each unit is in a subset or not with the same chance. The interval holds what `sign_test` of x − r t does not
    refuse at 5 %, and is exact where that is (Hartigan 1969, "Using subsample values as typical values").
    """
    pairs_C2 = np.stack([differences_C, counts_C], axis=1)
    sums_R2 = np.concatenate(list(_subsets(pairs_C2, repetitions, seed)))
    sums_R2 = sums_R2[sums_R2[:, 1] > 0]
    low, high = np.quantile(sums_R2[:, 0] / sums_R2[:, 1], [SIGNIFICANT / 2, 1 - SIGNIFICANT / 2])
    return float(low), float(high)


def detectable(differences_C: np.ndarray, counts_C: np.ndarray, *, around_zero: bool, seed: int = 0) -> float:
    """Return the difference r that `sign_test` finds with a power of 80 % among units that scatter like these.

    Random signs make differences without a cause of these. Added to them, r is found where the interval of
    `subset_interval` about 0 ends below it; the result is the r for which that is so in 80 % of draws. For many units
    of one size it is `smallest_detectable` of the standard error. The scatter is that about 0, or that about the
    difference itself, each unit's without its own part in it (the jackknife).
    """
    scatter_C = differences_C
    if not around_zero:
        total = counts_C.sum()
        scatter_C = (differences_C - differences_C.sum() / total * counts_C) / np.maximum(1 - counts_C / total, 1e-9)
    rng = np.random.default_rng(seed)
    sums_RS, counts_R = np.zeros((_SUBSETS, _DRAWS), np.float32), np.zeros(_SUBSETS, np.float32)
    at_once = max(1, _AT_ONCE // _SUBSETS)
    for start in range(0, len(scatter_C), at_once):
        part = slice(start, start + at_once)
        own_C = scatter_C[part].astype(np.float32)
        subsets_RC = rng.integers(0, 2, (_SUBSETS, len(own_C)), dtype=np.uint8).astype(np.float32)
        signs_CS = rng.choice(np.array([-1, 1], np.float32), (len(own_C), _DRAWS))
        sums_RS += subsets_RC @ (signs_CS * own_C[:, None])
        counts_R += subsets_RC @ counts_C[part].astype(np.float32)
    filled = counts_R > 0
    low_S = np.quantile(sums_RS[filled] / counts_R[filled, None], SIGNIFICANT / 2, axis=0)
    return float(np.quantile(-low_S, POWER))


def _subsets(values_CX: np.ndarray, repetitions: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the sums over random subsets of the units, shape [R, X], in parts of bounded size."""
    rng = np.random.default_rng(seed)
    # Of units that are alike, such as questions that only one model gets right, the number drawn is all that counts.
    kinds_GX, numbers_G = np.unique(values_CX, axis=0, return_counts=True)
    at_once = max(1, _AT_ONCE // len(kinds_GX))
    for start in range(0, repetitions, at_once):
        yield rng.binomial(numbers_G, 0.5, (min(at_once, repetitions - start), len(kinds_GX))) @ kinds_GX

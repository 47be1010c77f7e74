"""Other tests of a rise at the end of a run, which benchmarks/verdicts.py holds lmsat's against.

Each returns for runs of evenly spaced checkpoints whether it calls them saturating, at a nominal 5 %.

Shapes: R runs, C checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import stats

from lmsat_plugin.analysis.saturation.rise import SIGNIFICANT, Stretches
from lmsat_plugin.analysis.saturation.trend import PHIS_F
from lmsat_plugin.analysis.stats.autoregressive import simulate, whitening

Rival = Callable[[np.ndarray, float], np.ndarray]
"""From runs, shape [R, C], and the true correlation of neighbours, to calls, shape [R]."""
_FLAT_RUNS = 2000
_EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3, 1.8, 2.5)
_WINDOW = 9
_MOST_PHI = 0.6


def t_test(runs_RC: np.ndarray, phi: float) -> np.ndarray:
    """Welch's t-test of the last fifth against the best fifth before it."""
    size = max(3, round(0.2 * runs_RC.shape[1]))
    windows = np.lib.stride_tricks.sliding_window_view(runs_RC[:, :-size], size, axis=1)
    best_R = windows.mean(2).argmin(1)
    before_RS = windows[np.arange(len(runs_RC)), best_R]
    found = stats.ttest_ind(runs_RC[:, -size:], before_RS, axis=1, equal_var=False, alternative="greater")
    return found.pvalue < SIGNIFICANT


def mann_kendall(runs_RC: np.ndarray, phi: float) -> np.ndarray:
    """Mann and Kendall's test of a rising trend from the best checkpoint to the end."""
    calls = []
    for values_C in runs_RC:
        rest = values_C[int(values_C[:-3].argmin()) :]
        calls.append(stats.kendalltau(np.arange(len(rest)), rest, alternative="greater").pvalue < SIGNIFICANT)
    return np.array(calls)


def local_lines(runs_RC: np.ndarray, phi: float) -> np.ndarray:
    """The largest difference between the last fifth and a stretch before, over the noise about lines of nine.

    The noise and its correlation are those about local lines; the critical value is that of flat runs with it.
    """
    statistic_R, phi_R = _about_lines(runs_RC)
    tenths_R = np.round(10 * np.clip(phi_R, 0, 0.9)).astype(int)
    limits = {tenth: _limit_of_lines(runs_RC.shape[1], tenth) for tenth in np.unique(tenths_R)}
    return statistic_R > np.array([limits[tenth] for tenth in tenths_R])


def _about_lines(runs_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = runs_RC.shape[1]
    residual_CC = np.eye(size)
    for row in range(size):
        first = min(max(0, row - _WINDOW // 2), size - _WINDOW)
        line = np.column_stack([np.ones(_WINDOW), np.arange(_WINDOW)])
        residual_CC[row, first : first + _WINDOW] -= line[row - first] @ np.linalg.pinv(line)
    left_RC = runs_RC @ residual_CC.T
    sigma_R = np.sqrt((left_RC**2).sum(1) / np.trace(residual_CC @ residual_CC.T))
    phi_R = (left_RC[:, 1:] * left_RC[:, :-1]).sum(1) / (left_RC**2).sum(1)
    return Stretches.of(size).rises(runs_RC, np.ones(size))[0] / sigma_R, phi_R


@lru_cache
def _limit_of_lines(size: int, tenth: int) -> float:
    return float(np.quantile(_about_lines(_flat(size, tenth / 10))[0], 1 - SIGNIFICANT))


def fixed_correlation(runs_RC: np.ndarray, phi: float) -> np.ndarray:
    """The likelihood ratio of a power law with a late step, for a correlation of 0.3 whatever it is."""
    return _gain(runs_RC, (0.3,)) > _limit(runs_RC.shape[1], (0.3,), 0.3)


def known_correlation(runs_RC: np.ndarray, phi: float) -> np.ndarray:
    """The same for the true correlation, which nobody knows: no such test can find more."""
    return _gain(runs_RC, (phi,)) > _limit(runs_RC.shape[1], (phi,), phi)


def any_correlation(runs_RC: np.ndarray, phi: float) -> np.ndarray:
    """The same for the most likely correlation of 0 to 0.9, with the critical value of flat runs with 0.6."""
    return _gain(runs_RC, tuple(PHIS_F)) > _limit(runs_RC.shape[1], tuple(PHIS_F), _MOST_PHI)


@lru_cache
def _limit(size: int, phis: tuple[float, ...], phi: float) -> float:
    return float(np.quantile(_gain(_flat(size, phi), phis), 1 - SIGNIFICANT))


def _flat(size: int, phi: float) -> np.ndarray:
    return simulate(np.random.default_rng(1).standard_normal((_FLAT_RUNS, size)), np.full(_FLAT_RUNS, phi))


def _gain(runs_RC: np.ndarray, phis: tuple[float, ...]) -> np.ndarray:
    """Return twice the gain in log-likelihood by a step at one of the last four to ten of 28 checkpoints."""
    size = runs_RC.shape[1]
    share_C = np.arange(1, size + 1) / size
    curves = [-np.log(share_C) if c == 0 else share_C**-c for c in _EXPONENTS]
    steps = [1.0 * (np.arange(size) >= size - late) for late in range(round(size / 7), round(size / 2.8) + 1)]
    likelihoods = np.full((2, len(runs_RC)), -np.inf)
    for phi in phis:
        white_CC = whitening(np.arange(size), phi)
        constant = float(np.log(np.diagonal(white_CC)).sum())
        least_R = [_squares(white_CC, runs_RC, [curve]) for curve in (None, *curves)]
        with_R = [_squares(white_CC, runs_RC, [curve, step]) for curve in (None, *curves) for step in steps]
        for row, squares in enumerate((least_R, least_R + with_R)):
            likelihoods[row] = np.maximum(likelihoods[row], constant - size / 2 * np.log(np.min(squares, axis=0)))
    return 2 * (likelihoods[1] - likelihoods[0])


def _squares(white_CC: np.ndarray, runs_RC: np.ndarray, columns: list[np.ndarray | None]) -> np.ndarray:
    """Return sums of squares about a level and columns with coefficients above 0; those of others are infinite."""
    design = white_CC @ np.column_stack([np.ones(len(white_CC)), *(one for one in columns if one is not None)])
    white_RC = runs_RC @ white_CC.T
    found = white_RC @ np.linalg.pinv(design).T
    squares_R = ((white_RC - found @ design.T) ** 2).sum(1)
    return np.where((found[:, 1:] >= 0).all(1), squares_R, np.inf)


RIVALS: dict[str, Rival] = {
    "t-test, last against best": t_test,
    "Mann-Kendall from the best on": mann_kendall,
    "noise about local lines": local_lines,
    "power law and step, φ = 0.3": fixed_correlation,
    "power law and step, most likely φ": any_correlation,
    "power law and step, φ known": known_correlation,
}

"""The rise at the end of a run above its best stretch, whether checkpoint-to-checkpoint noise explains it, its onset.

A stretch is a number of checkpoints in a row. Lower values are better.
Shapes: K checkpoints, P of them from the best stretch on, S stretches before the last one, R simulated runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.saturation.checkpoint_noise import noise_estimator, without_outliers
from lmsat_plugin.analysis.stats.autoregressive import simulate, stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import TAIL, Simulation, p_value

_SHORTEST = 3
# Mean and spread of the correlation of neighbouring checkpoints in published runs that do not rise.
_USUAL_PHI, _SPREAD_OF_PHI = 0.2, 0.2
_DOUBTFUL = 2.0
_RESOLUTION = 1e-3
_NUMBERS_AT_ONCE = 2_000_000
_LEAST_AFTER = 3
_PARAMETERS = 4


@dataclass(frozen=True)
class Stretches:
    """All stretches that may be the best one, and the last stretch."""

    firsts_S: np.ndarray
    stops_S: np.ndarray
    last: int
    """How many checkpoints the last stretch has."""

    @classmethod
    def of(cls, checkpoints: int, last: int | None = None) -> Stretches:
        """Return the stretches of a run.

        By default the last one has five checkpoints, fewer in a short run and more in a long one. The stretches before
        it have from three checkpoints to as many as it.
        """
        if last is None:
            last = max(5, checkpoints // 12) if checkpoints >= 15 else max(_SHORTEST, checkpoints // 3)
        lengths = range(min(_SHORTEST, last), last + 1)
        pairs = [(first, first + length) for length in lengths for first in range(checkpoints - last - length + 1)]
        # From the shortest to the longest, and from the first to the last.
        firsts, stops = np.array(pairs).T
        return cls(firsts_S=firsts, stops_S=stops, last=last)

    def means(self, values_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of each stretch, shape [R, S], and of the last one, shape [R]."""
        sums = np.cumsum(np.pad(values_RK, ((0, 0), (1, 0))), axis=1)
        means_RS = np.empty((len(values_RK), len(self.firsts_S)))
        lengths_S = self.stops_S - self.firsts_S
        for length in np.unique(lengths_S):
            of_length = np.flatnonzero(lengths_S == length)
            places, count = slice(of_length[0], of_length[-1] + 1), len(of_length)
            np.subtract(sums[:, length : length + count], sums[:, :count], out=means_RS[:, places])
            means_RS[:, places] /= length
        return means_RS, (sums[:, -1] - sums[:, -1 - self.last]) / self.last

    def rises(self, values_RK: np.ndarray, variances_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rise of each run from its best stretch, in standard errors, and the index of that stretch."""
        means_RS, last_R = self.means(values_RK)
        variances_RS, last_variance_R = self.means(variances_K[None])
        errors_S = np.sqrt(variances_RS[0] / (self.stops_S - self.firsts_S) + last_variance_R[0] / self.last)
        rises_RS = (last_R[:, None] - means_RS) / errors_S
        best_R = rises_RS.argmax(1)
        return rises_RS[np.arange(len(values_RK)), best_R], best_R


@dataclass(frozen=True)
class Rise:
    """The last stretch of a run against the best one before it."""

    size: float
    """Mean of the last stretch minus mean of the best, in the unit of the values."""
    first: int
    stop: int
    """``first`` and ``stop`` are the ends of the best stretch, as indices of checkpoints."""
    last: int
    """How many checkpoints the last stretch has."""
    p_value: float
    """The share of runs without a rise in which noise alone gives one as large."""
    sigma: float
    """Standard deviation of one checkpoint about the curve."""
    phi: float
    """Correlation of neighbouring checkpoints."""
    stderr: float
    """Standard error of ``size``, from the noise, for these two stretches."""


def rise_of(log_steps_K: np.ndarray, values_K: np.ndarray, simulation: Simulation) -> Rise:
    """Return the rise at the end of a run, and how often a run without one shows as large a rise.

    Runs without a rise are simulated. They follow this run while it clearly falls to its best stretch, stay at that
    level, and have autoregressive noise of this run's size; everything is estimated anew in each. One run tells only
    roughly how much neighbours correlate, so that each simulated run draws its own correlation.
    """
    from scipy.optimize import isotonic_regression

    repetitions, rng = simulation.repetitions, simulation.rng
    stretches, estimator = Stretches.of(len(values_K)), noise_estimator(tuple(log_steps_K))
    ones_K, size = np.ones(len(values_K)), len(values_K)
    noise = estimator.estimate(values_K[None])
    # Equal values, as of an accuracy on few questions, would have no noise.
    floor = max(_RESOLUTION * float(np.ptp(values_K)), np.finfo(np.float64).tiny)
    scale = max(float(noise.white_R[0]), floor)
    rises_R, best_R = stretches.rises(values_K[None], ones_K)
    first, stop = int(stretches.firsts_S[best_R[0]]), int(stretches.stops_S[best_R[0]])
    means_RS, last_R = stretches.means(values_K[None])
    level = float(means_RS[0, best_R[0]])
    curve_K = np.full(size, level)
    falling = isotonic_regression(values_K[:stop], increasing=False)
    # A block of checkpoints that lies less above the level may lie on it.
    doubtful_K = _DOUBTFUL * scale / np.sqrt(np.repeat(falling.weights, np.diff(falling.blocks)))
    above_K = falling.x - level
    curve_K[:stop] += np.where(above_K > doubtful_K, above_K, 0)
    usual, spread = _belief(estimator.phi(noise), size)
    as_large, done = 0, 0
    while done < repetitions:
        number = min(max(1, _NUMBERS_AT_ONCE // len(stretches.firsts_S)), repetitions - done)
        phi_R = np.clip(rng.normal(usual, spread, number), 0, 0.8)
        sigma_R1 = scale * estimator.sigma_over_white(noise, phi_R)[:, None]
        runs_RK = curve_K + sigma_R1 * simulate(rng.standard_normal((number, size)), phi_R)
        runs_RK = without_outliers(runs_RK)
        scales_R = estimator.estimate(runs_RK).white_R
        as_large += int((stretches.rises(runs_RK, ones_K)[0] / scales_R >= rises_R[0] / scale).sum())
        done += number
    sigma = scale * float(estimator.sigma_over_white(noise, np.array([usual]))[0])
    weights_K = np.zeros(size)
    weights_K[first:stop] = -1 / (stop - first)
    weights_K[size - stretches.last :] += 1 / stretches.last
    return Rise(
        size=float(last_R[0]) - level,
        first=first,
        stop=stop,
        last=stretches.last,
        p_value=p_value(as_large, repetitions),
        sigma=sigma,
        phi=usual,
        stderr=stderr_of_sum(weights_K, sigma, usual),
    )


def _belief(phi: float, checkpoints: int) -> tuple[float, float]:
    """Return mean and spread of the correlation of neighbours, given the one that a run shows (normal posterior)."""
    error = 0.9 / np.sqrt(checkpoints)
    precision = 1 / _SPREAD_OF_PHI**2 + 1 / error**2
    return (_USUAL_PHI / _SPREAD_OF_PHI**2 + phi / error**2) / precision, precision**-0.5


@dataclass(frozen=True)
class Onset:
    """Where a rise begins, as indices of checkpoints."""

    first: int
    """The first risen checkpoint."""
    low: int
    """The last checkpoint before the 90 % interval: surely not risen."""
    high: int
    """The end of the 90 % interval: surely risen."""


def onset_of(log_steps_K: np.ndarray, values_K: np.ndarray, rise: Rise, simulation: Simulation) -> Onset:
    """Return where the values leave the level of the best stretch for good.

    The curve from that stretch on is a level up to the onset, and then a line in ln(step) that may start with a jump.
    Least squares choose the onset. Its 90 % interval holds the onsets chosen in simulations of that curve with the
    run's autoregressive noise, or with noise of the size of the curve's residuals if these are larger.
    """
    start = rise.first
    x_P, y_P = log_steps_K[start:], values_K[start:]
    onsets = np.arange(max(2, rise.stop - start - 1), len(y_P) - _LEAST_AFTER + 1)
    bases = []
    for onset in onsets:
        after = np.arange(len(y_P)) >= onset
        design = np.stack([np.ones(len(y_P)), after, after * (x_P - x_P[onset])], axis=1).astype(float)
        bases.append(np.linalg.qr(design)[0])

    def choose(runs_RP: np.ndarray) -> np.ndarray:
        """Return the index of the best onset of each run, whose curve explains the most."""
        return np.stack([((runs_RP @ basis) ** 2).sum(1) for basis in bases]).argmax(0)

    best = int(choose(y_P[None])[0])
    curve_P = bases[best] @ (bases[best].T @ y_P)
    left = np.sqrt(((y_P - curve_P) ** 2).sum() / max(1, len(y_P) - _PARAMETERS))
    repetitions = simulation.repetitions
    white_RP = max(left, rise.sigma) * simulation.rng.standard_normal((repetitions, len(y_P)))
    onsets_R = onsets[choose(curve_P + simulate(white_RP, np.full(repetitions, rise.phi)))]
    low, high = np.quantile(onsets_R, [TAIL, 1 - TAIL], method="inverted_cdf")
    first = int(onsets[best])
    return Onset(first=start + first, low=start + min(int(low), first) - 1, high=start + max(int(high), first))

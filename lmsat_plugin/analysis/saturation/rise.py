"""Whether the end of a run is worse than its best stretch by more than choosing the best of many explains.

A stretch is some checkpoints in a row. All values here are such that lower is better.
Shapes: K checkpoints, S stretches before the last, M documents, R repetitions, m checkpoints of the last stretch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from lmsat_plugin.analysis.saturation.checkpoint_noise import Smoother, without_outliers
from lmsat_plugin.analysis.stats.autoregressive import simulate, stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import Simulation, p_value

_SHORTEST = 3
# How neighbouring checkpoints of healthy published runs correlate: weighed against what a run itself shows.
_USUAL_PHI, _SPREAD_OF_PHI = 0.2, 0.2
_DOUBTFUL = 2.0
_RESOLUTION = 1e-3
_DRAWN = 2_000_000


@dataclass(frozen=True)
class Stretches:
    """Every stretch that may be the best, and the last one."""

    firsts_S: np.ndarray
    stops_S: np.ndarray
    last: int
    """Number of checkpoints in the last stretch."""

    @classmethod
    def of(cls, checkpoints: int, last: int | None = None) -> Stretches:
        """Return those of a run; by default the last has five checkpoints, less of a short run, more of a long one.

        Stretches before it have from three checkpoints to as many as it.
        """
        if last is None:
            last = max(5, checkpoints // 12) if checkpoints >= 15 else max(_SHORTEST, checkpoints // 3)
        lengths = range(min(_SHORTEST, last), last + 1)
        pairs = [
            (first, first + length) for length in lengths for first in range(checkpoints - last - length + 1)
        ]
        firsts, stops = np.array(pairs).T
        return cls(firsts_S=firsts, stops_S=stops, last=last)

    def means(self, values_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of each stretch, shape [R, S], and that of the last, shape [R]."""
        sums = np.cumsum(np.pad(values_RK, ((0, 0), (1, 0))), axis=1)
        means_RS = (sums[:, self.stops_S] - sums[:, self.firsts_S]) / (self.stops_S - self.firsts_S)
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
    """The last stretch of a run against the best before it."""

    size: float
    """Mean of the last minus mean of the best, in the unit of the values."""
    first: int
    stop: int
    """Where the best stretch begins and ends, as indices of checkpoints."""
    last: int
    """Number of checkpoints in the last stretch."""
    p_value: float
    """How often noise alone gives as much in a run that does not rise."""
    sigma: float
    """Standard deviation of one checkpoint about the curve."""
    phi: float
    """Correlation of neighbouring checkpoints."""
    stderr: float
    """Standard error of ``size`` for these two stretches, from the noise."""


def rise_of(log_steps_K: np.ndarray, values_K: np.ndarray, simulation: Simulation) -> Rise:
    """Return the rise at the end of a run, with the share of runs without a rise that show one as large.

    Those are simulated: they follow this one while it falls, clearly, to its best stretch and stay there, with
    autoregressive noise of its own size, and everything is estimated anew in each. How strongly neighbours correlate
    is known only roughly from one run, so each draws its own.
    """
    repetitions, rng = simulation.repetitions, simulation.rng
    stretches, smoother = Stretches.of(len(values_K)), Smoother(log_steps_K)
    ones_K, size = np.ones(len(values_K)), len(values_K)
    noise = smoother.estimate(values_K[None])
    # Equal values, as of an accuracy on few questions, would have no noise at all.
    floor = max(_RESOLUTION * float(np.ptp(values_K)), np.finfo(np.float64).tiny)
    scale = max(float(noise.white_R[0]), floor)
    rises_R, best_R = stretches.rises(values_K[None], ones_K)
    first, stop = int(stretches.firsts_S[best_R[0]]), int(stretches.stops_S[best_R[0]])
    means_RS, last_R = stretches.means(values_K[None])
    level = float(means_RS[0, best_R[0]])
    curve_K = np.full(size, level)
    falling = isotonic_regression(values_K[:stop], increasing=False)
    # A block of checkpoints that lies this little above the level may well lie on it.
    doubtful_K = _DOUBTFUL * scale / np.sqrt(np.repeat(falling.weights, np.diff(falling.blocks)))
    above_K = falling.x - level
    curve_K[:stop] += np.where(above_K > doubtful_K, above_K, 0)
    usual, spread = _belief(smoother.phi(noise), size)
    as_large, done = 0, 0
    while done < repetitions:
        number = min(max(1, _DRAWN // size**2), repetitions - done)
        phi_R = np.clip(rng.normal(usual, spread, number), 0, 0.8)
        sigma_R1 = scale * smoother.sigma_over_white(noise, phi_R)[:, None]
        runs_RK = curve_K + sigma_R1 * simulate(rng.standard_normal((number, size)), phi_R)
        runs_RK = without_outliers(runs_RK)
        scales_R = smoother.estimate(runs_RK).white_R
        as_large += int((stretches.rises(runs_RK, ones_K)[0] / scales_R >= rises_R[0] / scale).sum())
        done += number
    sigma = scale * float(smoother.sigma_over_white(noise, np.array([usual]))[0])
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
    """Return mean and spread of the correlation of neighbours, given what one run shows."""
    error = 0.9 / np.sqrt(checkpoints)
    precision = 1 / _SPREAD_OF_PHI**2 + 1 / error**2
    return (_USUAL_PHI / _SPREAD_OF_PHI**2 + phi / error**2) / precision, precision**-0.5

"""The rise at the end of a run above its best stretch, how often noise alone shows one, its onset.

A stretch is a share of training: a number of cells in a row (`Cells`). Lower values are better.
Shapes: C cells, P of them from the best stretch on, S stretches before the last one, R simulated runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.trend import LONG, Best, RiseModel, least_after, rise_model
from lmsat_plugin.analysis.stats.autoregressive import simulate, stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import TAIL, Simulation
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT
from lmsat_plugin.analysis.stats.tails import tail_p_values

SHORTEST = 3
"""The least number of cells in a stretch."""
_LAST = 0.2
"""The share of training that the last stretch is."""
_LENGTHS = 4
_MOST_PHI, _MOST_PHI_OF_SHORT = 0.6, 0.4
"""The largest correlation that is reckoned with: published healthy runs have 0 to 0.4."""
_MARGIN = 2.0
"""Times 1/√C: how much larger than the most likely correlation the true one may be, its bias included."""
_SHARES, _SHARES_IN_SHORT = (0.85, 0.05, 0.1), (0.0, 0.5, 0.5)
"""The shares of the chance of a false alarm that the statistics have (Bonferroni with weights)."""
_RESOLUTION = 1e-3
_FAR_LARGER = 1.5
MEDIAN_OF_NORMAL = 0.6745
"""Median absolute deviation over standard deviation of normal numbers."""
_AT_ONCE = 200
RISE = 3.0
"""The rise whose power is stated, in standard deviations of the noise."""
_POWER_RUNS = 300
_LEAST_AFTER = 3
_PARAMETERS = 4
_LEAST_ABOVE = 1.0
"""How many standard errors the last checkpoints have to lie above the best stretch."""


@dataclass(frozen=True)
class Stretches:
    """All stretches that may be the best one, and the last stretch."""

    firsts_S: np.ndarray
    stops_S: np.ndarray
    last: int
    """How many cells the last stretch has."""

    @classmethod
    def of(cls, cells: int, last: int | None = None) -> Stretches:
        """Return the stretches of a run.

        By default the last one is a fifth of the run, three cells at least. Those before it are half as long to as
        long as it.
        """
        last = max(SHORTEST, round(_LAST * cells)) if last is None else last
        lengths = np.unique(np.linspace(min(last, max(SHORTEST, last // 2)), last, _LENGTHS).astype(int))
        pairs = [(first, first + length) for length in lengths for first in range(cells - last - length + 1)]
        # From the shortest to the longest, and from the first to the last.
        firsts, stops = np.array(pairs).T
        return cls(firsts_S=firsts, stops_S=stops, last=last)

    def means(self, values_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of each stretch, shape [R, S], and of the last one, shape [R]."""
        sums = np.cumsum(np.pad(values_RC, ((0, 0), (1, 0))), axis=1)
        means_RS = np.empty((len(values_RC), len(self.firsts_S)))
        lengths_S = self.stops_S - self.firsts_S
        for length in np.unique(lengths_S):
            of_length = np.flatnonzero(lengths_S == length)
            places, count = slice(of_length[0], of_length[-1] + 1), len(of_length)
            np.subtract(sums[:, length : length + count], sums[:, :count], out=means_RS[:, places])
            means_RS[:, places] /= length
        return means_RS, (sums[:, -1] - sums[:, -1 - self.last]) / self.last

    def rises(self, values_RC: np.ndarray, variances_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rise of each run from its best stretch, in standard errors, and the index of that stretch."""
        means_RS, last_R = self.means(values_RC)
        variances_RS, last_variance_R = self.means(variances_C[None])
        errors_S = np.sqrt(variances_RS[0] / (self.stops_S - self.firsts_S) + last_variance_R[0] / self.last)
        rises_RS = (last_R[:, None] - means_RS) / errors_S
        best_R = rises_RS.argmax(1)
        return rises_RS[np.arange(len(values_RC)), best_R], best_R


@dataclass(frozen=True, kw_only=True)
class Rise:
    """The last stretch of a run against the best one before it, and against the one before."""

    size: float
    """Mean of the last stretch minus mean of the best, in the unit of the values."""
    stderr: float
    """Its standard error, from the noise, for these two stretches."""
    change: float
    """Mean of the last stretch minus mean of the one before it."""
    change_stderr: float
    first: int
    stop: int
    """``first`` and ``stop`` are the ends of the best stretch, as indices of cells."""
    last: int
    """How many cells the last stretch has."""
    p_value: float
    """How often noise alone shows as clear a rise in runs without one, for the largest correlation of neighbours that
    this run allows."""
    own_p_value: float
    """The same for the correlation that is most plausible."""
    sigma: float
    """Standard deviation of one cell about the curve."""
    phi: float
    """Correlation of neighbouring cells, the most plausible."""
    most_phi: float
    """The largest one that this run allows."""
    power: float
    """The share of runs like this one in which a rise of `RISE` standard deviations would be found."""


def rise_of(cells: Cells, at_K: np.ndarray, values_C: np.ndarray, repetitions: int) -> Rise:
    """Return the rise at the end of a run, and how often a run without one shows as likely a one.

    There are three statistics: twice the gain in log-likelihood by a rise (`RiseModel`) that is late, the same by any
    rise, and the largest difference between the last stretch and one before it over the noise, which finds slow ones.
    p is the least of theirs, each over its share in the chance of a false alarm (0.85, 0.05, 0.1; in short runs 0,
    0.5, 0.5). Without a rise the statistics are largest in flat runs, so that such runs are simulated. One run tells
    only roughly how much neighbours correlate: p is that of the largest correlation that it allows, at most 0.6, or
    0.4 for runs shorter than `LONG`. The last checkpoints have to lie a standard error above the best stretch, too.
    """
    at_C = at_K[cells.last_C]
    model, size = rise_model(tuple(at_C.tolist()), tuple(cells.place_C.tolist())), len(values_C)
    best = best_models(model, values_C[None])
    stretches = Stretches.of(size)
    usual = float(best.plausible_R[0])
    sigma = _noise_without_bumps(values_C, float(best.sigma_R[0]), usual)
    most = float(largest_phi(best.phi_R, best.plausible_R, size)[0])

    chosen = int(stretches.rises(values_C[None], np.ones(size))[1][0])
    first, stop, last = int(stretches.firsts_S[chosen]), int(stretches.stops_S[chosen]), stretches.last
    against_best_C = _contrast(size, slice(first, stop), last)
    against_before_C = _contrast(size, slice(max(0, size - 2 * last), size - last), last)
    p_most, p_own = (float(p_R[0]) for p_R in p_values(model, values_C[None], best, repetitions))
    return Rise(
        size=float(against_best_C @ values_C),
        stderr=stderr_of_sum(against_best_C, sigma, usual),
        change=float(against_before_C @ values_C),
        change_stderr=stderr_of_sum(against_before_C, sigma, usual),
        first=first,
        stop=stop,
        last=last,
        p_value=p_most,
        own_p_value=p_own,
        sigma=sigma,
        phi=usual,
        most_phi=most,
        power=_power(model, round(usual, 1), round(most, 1), repetitions),
    )


def best_models(model: RiseModel, values_RC: np.ndarray) -> Best:
    """Return the most likely models of R runs."""
    # Equal values, as of an accuracy on few questions, would have no noise.
    return model.best(values_RC, np.maximum(_RESOLUTION * np.ptp(values_RC, axis=1), np.finfo(np.float64).tiny))


def p_values(model: RiseModel, values_RC: np.ndarray, best: Best, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `Rise.p_value` and `Rise.own_p_value` of R runs with cells at the same places."""
    from scipy.special import ndtr

    stretches = Stretches.of(model.size)
    seen = statistics(stretches, best, values_RC)
    chosen_R = stretches.rises(values_RC, np.ones(model.size))[1]
    p_last_R = np.empty(len(values_RC))
    for run, (values_C, chosen) in enumerate(zip(values_RC, chosen_R, strict=True)):
        phi = float(best.plausible_R[run])
        sigma = _noise_without_bumps(values_C, float(best.sigma_R[run]), phi)
        # A rise that came back is none.
        best_stretch = slice(int(stretches.firsts_S[chosen]), int(stretches.stops_S[chosen]))
        at_end_C = _contrast(model.size, best_stretch, least_after(model.size))
        above = float(at_end_C @ values_C) / stderr_of_sum(at_end_C, sigma, phi)
        p_last_R[run] = 0.0 if above > _LEAST_ABOVE else float(ndtr(-above))
    most_R = largest_phi(best.phi_R, best.plausible_R, model.size)
    p_most_R, p_own_R = (_against_flat_runs(model, seen, phi_R, repetitions) for phi_R in (most_R, best.plausible_R))
    return np.maximum(p_most_R, p_last_R), np.maximum(p_own_R, p_last_R)


def _noise_without_bumps(values_C: np.ndarray, sigma: float, phi: float) -> float:
    """Return the noise, or that of the usual difference between neighbours if this is far smaller.

    What no model has, such as a bump, enlarges the noise about it, and few differences between neighbours.
    """
    local = float(np.median(np.abs(np.diff(values_C)))) / (MEDIAN_OF_NORMAL * (2 * (1 - phi)) ** 0.5)
    return local if 0 < _FAR_LARGER * local < sigma else sigma


def _contrast(size: int, earlier: slice, last: int) -> np.ndarray:
    weights_C = np.zeros(size)
    weights_C[earlier] = -1 / (earlier.stop - earlier.start)
    weights_C[size - last :] = 1 / last
    return weights_C


def _noise(model: RiseModel, runs: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """Return runs of noise of variance one, shape [R, C]."""
    white = rng.standard_normal((runs, int(model.place_C[-1]) + 1))
    return simulate(white, np.full(runs, phi))[:, model.place_C]


def largest_phi(phi_R: np.ndarray, plausible_R: np.ndarray, cells: int) -> np.ndarray:
    """Return the largest correlation of neighbours that runs allow, given their most likely and most plausible ones."""
    most = _MOST_PHI if cells >= LONG else _MOST_PHI_OF_SHORT
    return np.maximum(plausible_R, np.minimum(phi_R + _MARGIN / cells**0.5, most))


def statistics(stretches: Stretches, best: Best, values_RC: np.ndarray) -> np.ndarray:
    """Return the gains in likelihood of each run by a late and any rise, and its largest rise over its noise.

    The shape is [3, R].
    """
    rises_R = stretches.rises(values_RC, np.ones(values_RC.shape[1]))[0]
    return np.stack([best.late_gain_R, best.gain_R, rises_R / np.maximum(best.sigma_R, np.finfo(np.float64).tiny)])


@lru_cache(maxsize=64)
def _without_rise(model: RiseModel, tenths: int, repetitions: int) -> np.ndarray:
    """Return the statistics of flat runs whose neighbours correlate by so many tenths, each sorted, shape [3, R]."""
    rng, stretches = np.random.default_rng(0), Stretches.of(model.size)
    parts = []
    for start in range(0, repetitions, _AT_ONCE):
        runs_RC = _noise(model, min(_AT_ONCE, repetitions - start), tenths / 10, rng)
        parts.append(statistics(stretches, model.best(runs_RC), runs_RC))
    return np.sort(np.concatenate(parts, axis=1), axis=1)


def _against_flat_runs(model: RiseModel, seen: np.ndarray, phi_R: np.ndarray, repetitions: int) -> np.ndarray:
    """Return p of runs, shape [R], from their `statistics`: the least p of these, each over its share."""
    shares = _SHARES if model.size >= LONG else _SHARES_IN_SHORT
    p_R, tenths_R = np.ones(seen.shape[1]), np.rint(10 * phi_R).astype(int)
    for tenths in np.unique(tenths_R):
        flat, own = _without_rise(model, int(tenths), repetitions), tenths_R == tenths
        for seen_R, flat_R, share in zip(seen[:, own], flat, shares, strict=True):
            if share:
                # A gain of 0 is no rise at all.
                each_R = np.minimum(p_R[own], tail_p_values(seen_R, flat_R) / share)
                p_R[own] = np.where(seen_R > 0, each_R, p_R[own])
    return p_R


@lru_cache(maxsize=64)
def _power(model: RiseModel, phi: float, most_phi: float, repetitions: int) -> float:
    """Return the share of flat runs with a rise of `RISE` standard deviations over the last stretch that are found."""
    stretches = Stretches.of(model.size)
    risen_RC = _noise(model, _POWER_RUNS, phi, np.random.default_rng(1))
    risen_RC[:, model.size - stretches.last :] += RISE
    seen = statistics(stretches, model.best(risen_RC), risen_RC)
    p_R = _against_flat_runs(model, seen, np.full(_POWER_RUNS, most_phi), repetitions)
    return float((p_R < SIGNIFICANT).mean())


@dataclass(frozen=True)
class Onset:
    """Where a rise begins, as indices of cells."""

    first: int
    """The first risen cell."""
    low: int
    """The last cell before the 90 % interval: surely not risen."""
    high: int
    """The end of the 90 % interval: surely risen."""


def onset_of(log_steps_C: np.ndarray, values_C: np.ndarray, rise: Rise, simulation: Simulation) -> Onset:
    """Return where the values leave the level of the best stretch for good.

    The curve from that stretch on is a level up to the onset, and then a line in ln(step) that may start with a jump.
    Least squares choose the onset. Its 90 % interval holds the onsets chosen in simulations of that curve with the
    run's autoregressive noise, or with noise of the size of the curve's residuals if these are larger.
    """
    start = rise.first
    x_P, y_P = log_steps_C[start:], values_C[start:]
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

"""Turns and jumps of a series: where its direction changes, where it changes abruptly, and how often noise does so.

Nothing is assumed of the curve but the noise about it, AR(1) with one standard deviation. A stretch is a number of
cells in a row (`Cells`), at least two. Shapes: C cells, R runs, S stretches, L lengths of stretches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from lmsat_plugin.analysis.saturation.rise import largest_phi
from lmsat_plugin.analysis.stats.autoregressive import simulate
from lmsat_plugin.analysis.stats.bootstrap import p_value
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT
from lmsat_plugin.analysis.stats.tails import tail_p_values

Kind = Literal["turns up", "turns down", "jumps up", "jumps down"]

_SHORTEST = 3
"""Cells of a stretch that shows a direction: one that is far off does not make a turn."""
_LENGTHS = 4
_LONGEST = 3
"""The longest stretch is the run over this."""
_HALF, _SHARE_OF_HALF = 2, 8
"""A jump is between stretches of two cells, up to the run over eight."""
_STEEPER = 2.0
"""How many times as much a metric has to change in a jump as just before and just after."""
_TRIMMED = 0.8
"""The share of second differences, the smallest ones, that tell the noise: a jump enlarges the others."""
_SLOPES = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Standard deviations of the noise per cell. Noise steepens a slope as noise alone does not make a jump."""
_RESOLUTION = 1e-3
_SIMULATED, _LEAST_RUNS = 280_000, 4000
"""Cells, and runs, of simulations: 10,000 runs of 28 cells, and 4,000 of 70 or more."""
_AT_ONCE = 1000
_WITHIN = 2.7
"""How far squares about a curve may exceed the least, in variances of the noise, for its turn to be in the interval."""
_PARAMETERS = 4
_TINY = float(np.finfo(np.float64).tiny)
_TESTS = 3
"""Turns up, turns down, jumps."""


@dataclass(frozen=True)
class Turn:
    """One change of course of a series, as indices of cells."""

    kind: Kind
    p_value: float
    """How often noise about a curve without such an event shows as clear a one."""
    at: int
    """The cell at which it turns, or the first one after a jump."""
    low: int
    high: int
    """``low`` and ``high`` are the ends of the 90 % interval."""


def turns_of(x_C: np.ndarray, values_C: np.ndarray) -> tuple[int, list[Turn]]:
    """Return how many tests a series has, and the turns and the jump whose p is below 5 %, one of a kind at most.

    *Turns up*: it falls from one stretch to a later one, and rises from there to a third. The statistic is the smaller
    of the two differences of means, each over its standard error, largest over all triples of stretches. Where
    there is no turn, the curve never falls or never rises. Then one of the two differences is of noise, and is largest
    where the curve is flat: p is how often the largest rise between two stretches of a flat run is as large.
    *Turns down*: the same of the negated values.

    *Jumps*: from the k cells before a place to the k after it, it changes more than twice as much as just before and
    just after, per distance in steps or in ln(step), whichever allows more; k is from 2 to C/8. The statistic is what
    is left over its standard error, largest over places and k; p is against the same of straight runs, of the slope
    that makes it largest. Its interval has to be shorter than 2k cells. A steep beginning, a schedule's fall and a bump
    of one checkpoint are no jumps.

    The noise is that of second differences of neighbours, which a smooth curve hardly enlarges. Simulated runs have the
    largest correlation that the series allows (`largest_phi`), and are measured by the same statistics.

    Args:
        x_C: The places of cells, above 0.
        values_C: Their values, of eight cells at least.
    """
    size = len(values_C)
    spread = float(np.ptp(values_C / 2)) * 2
    if not 0 < spread < np.inf:
        return 0, []
    # Squares of very large and very small values are out of range.
    values_C = values_C / spread
    floor = max(_RESOLUTION, _rounding(values_C))
    noise = max(float(_noise(values_C[None])[0]), floor)
    # Rounded up, so that few noises are simulated.
    phi = math.ceil(5 * _phi(values_C) - 1e-9) / 5
    simulated = _of_noise(size, phi)
    variance = noise**2 / (1 - 4 / 3 * phi + phi**2 / 3)
    allowed = _WITHIN * variance * (1 + phi) / (1 - phi)
    found: list[Turn] = []
    signs: tuple[tuple[Kind, float], ...] = (("turns up", 1.0), ("turns down", -1.0))
    for kind, sign in signs:
        statistic, window = _clearest_turn(sign * values_C)
        p = _p_value(float(np.log(max(statistic / noise, _TINY))), simulated.rises_R)
        if p < SIGNIFICANT:
            own = _place_of_turn(sign * values_C[window], allowed)
            found.append(Turn(kind, p, *(window.start + place for place in own)))
    statistic, place, half = _clearest_jump(x_C, values_C)
    p = _p_value(statistic / noise, simulated.jumps_R)
    if p < SIGNIFICANT:
        jump = _place_of_jump(values_C, place, half, p_value=p, allowed=allowed)
        # What may lie anywhere within so many cells is no jump but a slope.
        found += [jump] if jump.high - jump.low < 2 * half else []
    return _TESTS, found


def _rounding(values_C: np.ndarray) -> float:
    """Return the standard deviation of rounding to the values' grid, if they are few enough to lie on one."""
    distinct = np.unique(values_C)
    return float(np.diff(distinct).min()) / 12**0.5 if 1 < len(distinct) <= len(values_C) / 2 else 0.0


def _noise(values_RC: np.ndarray, cells: int = 1) -> np.ndarray:
    """Return the standard deviation of white noise with such second differences over so many cells, shape [R].

    The largest fifth of these has no say.
    """
    second_RC = values_RC[:, 2 * cells :] - 2 * values_RC[:, cells:-cells] + values_RC[:, : -2 * cells]
    squares_RC = np.sort(second_RC**2, axis=1)
    kept = max(1, round(_TRIMMED * squares_RC.shape[1]))
    return np.sqrt(squares_RC[:, :kept].mean(1) / 6)


def _phi(values_C: np.ndarray) -> float:
    """Return the largest correlation of neighbours that a series allows.

    Its second differences over two cells have (6 − 8φ² + 2φ⁴) / (6 − 8φ + 2φ²) times the variance of those over one.
    A curve makes the ratio larger, which is cautious.
    """
    one, two = (float(_noise(values_C[None], cells)[0]) for cells in (1, 2))
    grid = np.linspace(0, 0.9, 19)
    ratios = (6 - 8 * grid**2 + 2 * grid**4) / (6 - 8 * grid + 2 * grid**2)
    likely = grid[int(np.searchsorted(ratios, (two / max(one, _TINY)) ** 2).clip(0, len(grid) - 1))]
    # As no value is more plausible than the largest that is reckoned with, curves do not push it beyond.
    return float(largest_phi(np.array([likely]), np.zeros(1), len(values_C))[0])


@dataclass(frozen=True)
class _Noise:
    """The statistics of runs without events, each sorted, shape [R]."""

    rises_R: np.ndarray
    """Logarithms: over the noise of few cells, rises have the tails of Student's t, a power."""
    jumps_R: np.ndarray
    """Each quantile is the largest of those of runs with several slopes."""


@lru_cache(maxsize=64)
def _of_noise(size: int, phi: float) -> _Noise:
    rng, index_C = np.random.default_rng(0), np.arange(size)
    rises, jumps = [], []
    for _ in range(max(_LEAST_RUNS, _SIMULATED // size) // _AT_ONCE):
        runs_RC = simulate(rng.standard_normal((_AT_ONCE, size)), np.full(_AT_ONCE, phi))
        noise_R = _noise(runs_RC)
        rises.append(np.log(np.maximum(_rises_after(runs_RC)[0].max(1) / noise_R, _TINY)))
        jumps.append([_jumps_of(runs_RC + slope * index_C) / noise_R for slope in _SLOPES])
    jumps_GR = np.sort(np.concatenate(jumps, axis=1), axis=1)
    return _Noise(rises_R=np.sort(np.concatenate(rises)), jumps_R=jumps_GR.max(0))


def _jumps_of(runs_RC: np.ndarray) -> np.ndarray:
    places_C = np.arange(1.0, runs_RC.shape[1] + 1)
    largest_R: np.ndarray = np.max([excess.max(1) for excess, _ in _jumps(places_C, runs_RC)], axis=0)
    return largest_R


def _p_value(statistic: float, simulated_R: np.ndarray) -> float:
    """Return how often simulated runs show as large a statistic, with the tail of their largest hundredth beyond."""
    tenth = len(simulated_R) // 10
    upper_R = simulated_R[-tenth:]
    if statistic < upper_R[0]:
        return p_value(len(simulated_R) - int(np.searchsorted(simulated_R, statistic)), len(simulated_R))
    return float(tail_p_values(np.array([statistic]), upper_R)[0]) * tenth / len(simulated_R)


def _lengths(size: int) -> list[int]:
    return _spread(_SHORTEST, max(_SHORTEST, size // _LONGEST))


def _spread(least: int, most: int) -> list[int]:
    """Return four numbers of cells, or fewer, from the least to the most, with equal ratios."""
    return sorted({round(number) for number in np.geomspace(least, most, _LENGTHS)})


def _running_means(values_RC: np.ndarray, length: int) -> np.ndarray:
    sums = np.zeros((len(values_RC), values_RC.shape[1] + 1))
    np.cumsum(values_RC, axis=1, out=sums[:, 1:])
    means_RS: np.ndarray = (sums[:, length:] - sums[:, :-length]) / length
    return means_RS


def _rises_after(values_RC: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the largest rise from each stretch to a later one, in standard errors of white noise of variance one.

    The shape is [R, S], −∞ where no stretch comes after. Beside it the ends of the stretches.
    """
    size = values_RC.shape[1]
    means = {length: _running_means(values_RC, length) for length in _lengths(size)}
    highest = {length: np.maximum.accumulate(own[:, ::-1], axis=1)[:, ::-1] for length, own in means.items()}
    parts, ends = [], []
    for length, own in means.items():
        best = np.full(own.shape, -np.inf)
        for other, high in highest.items():
            # The stretch from ``first`` on is followed by those from ``first + length`` on.
            count = max(0, high.shape[1] - length)
            rise = (high[:, length : length + count] - own[:, :count]) / (1 / length + 1 / other) ** 0.5
            best[:, :count] = np.maximum(best[:, :count], rise)
        parts.append(best)
        ends += [(first, first + length) for first in range(own.shape[1])]
    return np.concatenate(parts, axis=1), ends


def _clearest_turn(values_C: np.ndarray) -> tuple[float, slice]:
    """Return the statistic of the clearest turn up, and the cells from the stretch before it to that after it."""
    rises, ends = _rises_after(values_C[None])
    falls, back = _rises_after(values_C[None, ::-1])
    size = len(values_C)
    before = {(size - stop, size - first): float(fall) for (first, stop), fall in zip(back, falls[0], strict=True)}
    both = [min(float(rise), before[end]) for end, rise in zip(ends, rises[0], strict=True)]
    best = int(np.argmax(both))
    first, stop = ends[best]
    # From the highest stretch before to the highest after: what lies beyond may have turned again.
    means = _running_means(values_C[None], _SHORTEST)[0]
    start = int(means[: max(1, first - _SHORTEST + 1)].argmax())
    end = stop + int(means[stop:].argmax()) + _SHORTEST if stop < len(means) else size
    return both[best], slice(start, max(end, stop))


def _isotonic_squares(values_C: np.ndarray) -> np.ndarray:
    """Return the squares left by the best curve that never falls, for the first 0, 1, ... C values, shape [C + 1].

    Pool adjacent violators (Ayer et al. 1955).
    """
    squares = np.zeros(len(values_C) + 1)
    blocks: list[tuple[float, int, float]] = []  # sum, number, squares about the mean
    left = 0.0
    for index, value in enumerate(values_C):
        block = (float(value), 1, 0.0)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            total, number, own = blocks.pop()
            gap = total / number - block[0] / block[1]
            joint = own + block[2] + gap**2 * number * block[1] / (number + block[1])
            left += joint - own - block[2]
            block = (total + block[0], number + block[1], joint)
        blocks.append(block)
        squares[index + 1] = left
    return squares


def _place_of_turn(values_C: np.ndarray, allowed: float) -> tuple[int, int, int]:
    """Return where a series turns up, and the interval: its curve falls until there, and rises from there on.

    The curve is otherwise free (isotonic regression on both sides). In the interval are the turns whose squares exceed
    the least by no more than ``allowed``, with a cell on either side, since the curve may turn between two.
    """
    size = len(values_C)
    squares_C = _isotonic_squares(-values_C)[1:] + _isotonic_squares(-values_C[::-1])[::-1][:-1]
    # The squares are of curves that turn at a cell, which belongs to both parts and fits either.
    possible = np.flatnonzero(squares_C <= squares_C.min() + allowed)
    smooth = np.convolve(np.pad(values_C, 1, mode="edge"), [1 / 3] * 3, mode="valid")
    best = np.flatnonzero(squares_C <= squares_C.min() + 1e-12 * max(1.0, float(np.ptp(values_C)) ** 2))
    at = int(best[smooth[best].argmin()])
    return at, max(0, int(possible[0]) - 1), min(size - 1, int(possible[-1]) + 1)


def _jumps(x_C: np.ndarray, values_RC: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield for each k by how much changes exceed twice those before and after, in standard errors, and k.

    The shape is [R, places], of the places from the cell 2k on, each the first cell after a jump.
    """
    size = values_RC.shape[1]
    for half in _spread(_HALF, max(_HALF, size // _SHARE_OF_HALF)):
        means = _running_means(values_RC, half)
        changes = means[:, half:] - means[:, :-half]
        spans = []
        for place_C in (x_C, np.log(x_C)):
            middles = _running_means(place_C[None], half)[0]
            spans.append(middles[half:] - middles[:-half])
        across = changes[:, half:-half]
        excess = np.full(across.shape, np.inf)
        for other in (slice(None, -2 * half), slice(2 * half, None)):
            factor = _STEEPER * np.maximum(1.0, np.max([span[half:-half] / span[other] for span in spans], axis=0))
            stderr = np.sqrt((1 + (1 + factor) ** 2 + factor**2) / half)
            excess = np.minimum(excess, (np.abs(across) - factor * np.abs(changes[:, other])) / stderr)
        yield excess, half


def _clearest_jump(x_C: np.ndarray, values_C: np.ndarray) -> tuple[float, int, int]:
    """Return the statistic of the clearest jump, the first cell after it, and k."""
    jumps = _jumps(x_C, values_C[None])
    return max((float(excess[0].max()), 2 * half + int(excess[0].argmax()), half) for excess, half in jumps)


def _place_of_jump(values_C: np.ndarray, place: int, half: int, *, p_value: float, allowed: float) -> Turn:
    """Return a jump with its place.

    About it the curve is a line with a step. In the interval are the steps whose squares exceed the least by no more
    than ``allowed``. It begins with the last cell before.
    """
    start, stop = max(0, place - 2 * half), min(len(values_C), place + 2 * half)
    own_C, index_C = values_C[start:stop], np.arange(stop - start)
    places = range(half, len(own_C) - half + 1)
    squares, heights = [], []
    for first in places:
        after_C = (index_C >= first).astype(float)
        design = np.stack([np.ones(len(own_C)), index_C - index_C.mean(), after_C], axis=1)
        solution, *_ = np.linalg.lstsq(design, own_C, rcond=None)
        squares.append(float(((own_C - design @ solution) ** 2).sum()))
        heights.append(float(solution[2]))
    best = int(np.argmin(squares))
    # A change over several cells is no step, and its place as uncertain as the misfit is large.
    allowed = max(allowed, _WITHIN * squares[best] / max(1, len(own_C) - _PARAMETERS))
    possible = np.flatnonzero(np.array(squares) <= squares[best] + allowed)
    first, low, high = (start + places[int(one)] for one in (best, possible[0], possible[-1]))
    kind: Kind = "jumps up" if heights[best] > 0 else "jumps down"
    return Turn(kind, p_value, at=first, low=low - 1, high=high)

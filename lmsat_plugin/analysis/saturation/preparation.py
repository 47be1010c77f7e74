"""What is done to a series before it is judged: crowded checkpoints count as one, single far-off ones are set aside.

Shapes: K checkpoints, C cells of checkpoints, R runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_CHECKPOINTS = 8
"""Fewer cannot tell a trend from checkpoint-to-checkpoint noise."""
_MOST_CELLS = 150
_CROWDED = 0.5
"""Checkpoints that lie closer than this share of the usual gap count as one."""
_OUTLYING = 5.0
_MEDIAN_OF_SECOND_DIFFERENCES = 0.6745 * 6**0.5
"""Of independent normal numbers of variance one."""
_MOST_SET_ASIDE = 0.1
_TRAVEL = 3.0


@dataclass(frozen=True, eq=False)
class Cells:
    """The checkpoints of a run, those that lie close together as one, without those that are set aside."""

    first_C: np.ndarray
    """Index of the first checkpoint of each cell."""
    last_C: np.ndarray
    """Index of its last one."""
    place_C: np.ndarray
    """Number of each cell, counted with those that are set aside: how far cells are apart."""
    weights_CK: np.ndarray
    """The mean of each cell's checkpoints is ``weights_CK @ values_K``."""
    set_aside: tuple[int, ...]
    """Indices of checkpoints without a say."""

    @classmethod
    def of(cls, at_K: np.ndarray, losses_K: np.ndarray) -> Cells:
        """Return the cells of a run whose checkpoints lie at ``at_K``, of which lower losses are better."""
        starts = cell_starts(at_K)
        aside_K = set_aside(losses_K)
        stops = np.append(starts[1:], len(at_K))
        weights_CK = np.zeros((len(starts), len(at_K)))
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            kept = np.flatnonzero(~aside_K[start:stop]) + start
            if len(kept):
                weights_CK[row, kept] = 1 / len(kept)
        place_C = np.flatnonzero(weights_CK.any(1))
        return cls(
            first_C=starts[place_C],
            last_C=stops[place_C] - 1,
            place_C=place_C,
            weights_CK=weights_CK[place_C],
            set_aside=tuple(map(int, np.flatnonzero(aside_K))),
        )


def cell_starts(at_K: np.ndarray) -> np.ndarray:
    """Return the index of the first checkpoint of each cell.

    A cell is less wide than half the usual gap, both in steps and in ln(step). The usual gap is the median over
    training, not over checkpoints: a part of training that was measured densely does not change it. So evenly spaced
    checkpoints stay apart, whether they are even in steps or in ln(step).
    """
    with np.errstate(divide="ignore"):
        # Step 0 is infinitely far from all others.
        places = [at_K.astype(np.float64), np.log(at_K)]
    usual = [_usual_gap(np.diff(place_K)) for place_K in places]
    for widening in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        starts = [0]
        for index in range(1, len(at_K)):
            pairs = zip(places, usual, strict=True)
            if any(place_K[index] - place_K[starts[-1]] >= _CROWDED * widening * gap for place_K, gap in pairs):
                starts.append(index)
        if len(starts) <= _MOST_CELLS:
            return np.array(starts)
    return np.array(starts)[:: -(-len(starts) // _MOST_CELLS)]


def _usual_gap(gaps: np.ndarray) -> float:
    """Return the median of the gaps, each weighed by its own length."""
    ordered = np.sort(gaps)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]) if len(gaps) else 0.0


def set_aside(losses_K: np.ndarray) -> np.ndarray:
    """Return which checkpoints are set aside, bool, shape [K].

    That is a single one whose distance from the median of the five around it is more than five times the upper quartile
    of all such distances and than five standard deviations of the noise (Hampel's filter), unless it lies that near to
    the line through the two before or the two after. The first two, where runs fall
    steeply, are none. The last two are compared with the last five. There a distance in the direction in which the
    run travels has to be larger by three times the way of the four checkpoints before: an end that goes on
    is no outlier. If more than a tenth of all checkpoints, and more than two, were set aside, that is how noisy the run
    is, and none is; nor is one of fewer than nine.
    """
    none_K = np.zeros(len(losses_K), bool)
    if len(losses_K) < 5:
        return none_K
    largest = float(np.abs(losses_K).max())
    losses_K = losses_K / largest if largest > 0 else losses_K
    windows = np.lib.stride_tricks.sliding_window_view(losses_K, 5)
    medians = np.median(windows, axis=1)
    medians_K = np.concatenate([losses_K[:2], medians, medians[[-1, -1]]])
    away_K = losses_K - medians_K
    usual = float(np.quantile(np.abs(away_K[2:]), 0.75))
    # Of values that are mostly equal, each other one would be far off.
    limits_K = np.full(len(losses_K), np.inf)
    if usual > 0:
        # Along a steep curve each median is close by, and the second differences tell the noise.
        noise = float(np.median(np.abs(np.diff(losses_K, 2)))) / _MEDIAN_OF_SECOND_DIFFERENCES
        limits_K[:] = max(_OUTLYING * usual, _OUTLYING * noise)
    for last in (len(losses_K) - 2, len(losses_K) - 1):
        travel = losses_K[last - 1] - losses_K[max(0, last - 4)]
        if travel * away_K[last] > 0:
            limits_K[last] += _TRAVEL * abs(travel)
    # In line with the two checkpoints before or after, it is the edge of a step.
    line_K = 2 * losses_K[1:-1] - losses_K[:-2]
    before_K = np.concatenate([[np.inf, np.inf], np.abs(losses_K[2:] - line_K)])
    line_K = 2 * losses_K[1:-1] - losses_K[2:]
    after_K = np.concatenate([np.abs(losses_K[:-2] - line_K), [np.inf, np.inf]])
    found_K = np.minimum(np.abs(away_K), np.minimum(before_K, after_K)) > limits_K
    few = found_K.sum() <= max(2, _MOST_SET_ASIDE * len(losses_K))
    return found_K if few and (~found_K).sum() >= LEAST_CHECKPOINTS else none_K

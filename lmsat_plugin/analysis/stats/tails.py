"""p-values from simulations, below what their number resolves: the tail of what was simulated is taken as exponential.

Shapes: S simulations, R values.
"""

from __future__ import annotations

import numpy as np

_ENOUGH = 10
"""Simulations that come as far, from which on their share is p."""
_TAIL = 0.1
"""The share of the simulations, the largest, that the tail is fitted to."""
_LEAST = 1e-6
"""No tail is known farther out."""


def tail_p_values(seen_R: np.ndarray, simulated_S: np.ndarray) -> np.ndarray:
    """Return how often a statistic is as large as those seen, shape [R], from its sorted values in simulations.

    It is (1 + hits) / (1 + S) where ten simulations or more come as far. Beyond, the excess over the lower end u of the
    largest tenth is exponential with the mean m of these, so that p is k/S exp(−(x − u)/m), of k values above u
    (Knijnenburg et al. 2009, with shape 0). Tails that are lighter, as those of likelihood ratios, make it too large,
    which is cautious. It is never below a millionth.
    """
    number = len(simulated_S)
    hits_R = number - np.searchsorted(simulated_S, seen_R)
    p_R = (1 + hits_R) / (1 + number)
    above = max(1, round(_TAIL * number))
    start = simulated_S[number - above - 1]
    mean = float((simulated_S[number - above :] - start).mean())
    if mean > 0:
        tail_R = above / number * np.exp(-(seen_R - start) / mean)
        p_R = np.where(hits_R < _ENOUGH, np.clip(tail_R, _LEAST, _ENOUGH / number), p_R)
    return p_R

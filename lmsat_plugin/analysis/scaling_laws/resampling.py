"""The points that a fit is repeated on: those of runs drawn with replacement, and all but the largest.

Shapes: P points, G runs, R repetitions.
"""

from __future__ import annotations

import numpy as np

from lmsat_plugin.analysis.stats.bootstrap import resample

RUNS_BEYOND = 3
"""How many more runs than fitted constants intervals need: with fewer they are too narrow."""
_HELD_OUT = 0.2


def draw_runs(runs_P: np.ndarray, repetitions: int, constants: int, seed: int) -> np.ndarray:
    """Return how often each run is drawn, with replacement, shape [R, G]; the points of a run stay together.

    Samples of a single run, or with fewer points than constants, cannot be fitted and are drawn again.
    """
    sizes_G = np.bincount(runs_P)

    def enough(counts_RG: np.ndarray) -> np.ndarray:
        drawn_RG = counts_RG > 0
        return (drawn_RG @ sizes_G >= constants) & (drawn_RG.sum(1) > 1)

    return resample(len(sizes_G), repetitions, seed, enough)


def largest(sizes_P: np.ndarray) -> np.ndarray:
    """Return which points belong to the largest fifth of the sizes, at least to the largest one."""
    values = np.unique(sizes_P)
    return sizes_P >= values[-max(1, int(_HELD_OUT * len(values)))]

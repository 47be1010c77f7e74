"""The onset of a rise: a change point on the logarithm of the steps, with its interval.

Shapes: K checkpoints, P of them from the best stretch on, R simulated runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.saturation.rise import Rise
from lmsat_plugin.analysis.stats.autoregressive import simulate
from lmsat_plugin.analysis.stats.bootstrap import TAIL, Simulation

_LEAST_AFTER = 3
_PARAMETERS = 4


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

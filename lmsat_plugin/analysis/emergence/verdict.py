"""The verdict on an ability, whether it is emergent, and the reason in words.

Shapes: P checkpoints.
"""

from __future__ import annotations

import numpy as np

from lmsat_plugin.analysis.emergence.curves import LEAST_BESIDE
from lmsat_plugin.analysis.emergence.noise import Noise
from lmsat_plugin.analysis.emergence.thresholds import BreakFit
from lmsat_plugin.analysis.stats.bootstrap import NORMAL

_LEAST_POINTS = 12
_LEAST_RUNS = 3
_SIGNIFICANCE = 0.05
_MOST_DRIFT = 0.05
"""The share of the rise above which a drift along the plateau is an improvement."""
_NEAR_CHANCE = 0.03
"""How far from chance a plateau may lie and count as chance: answers to few questions are biased by as much."""


def too_little(losses_P: np.ndarray, runs: int, models: int) -> str | None:
    """Return why there are too few checkpoints, runs or losses for a verdict; None if there are enough.

    Runs are those of different models, or replicates of one.
    """
    if len(losses_P) < _LEAST_POINTS:
        return f"{len(losses_P)} checkpoints are too few to tell: measure at least {_LEAST_POINTS}"
    if runs < _LEAST_RUNS:
        several = f"{runs} runs" if runs > models else "runs"
        return (
            f"the {several} of {models} model{'s' * (models > 1)} cannot tell a model's own path from that of all: "
            f"measure at least {_LEAST_RUNS}"
        )
    ordered = np.sort(losses_P)
    if ordered[-LEAST_BESIDE] - ordered[LEAST_BESIDE - 1] < 1e-6:
        return "the losses are all alike: measure checkpoints of other losses"
    return None


def judge(fit: BreakFit, losses_P: np.ndarray, noise: Noise, *, chance_known: bool) -> tuple[bool | None, str]:
    """Return whether an ability is emergent, and why (Du et al. 2024, Definition 1); None where that is unknown.

    It is emergent if a break explains the scores clearly better than every curve that improves from the start, its
    plateau is at chance, and checkpoints of several models lie on either side.
    """
    below = f"a threshold, if there is one, is below {losses_P.min():.3f}"
    breaks = fit.ahead > 0
    first, stderr = (fit.plateau, fit.plateau_stderr) if breaks else (fit.start, fit.start_stderr)
    above_chance = chance_known and first - NORMAL * stderr > _NEAR_CHANCE
    if fit.flat_p_value > _SIGNIFICANCE or fit.rise <= 0:
        if above_chance:
            return None, f"the scores are above chance by {first:.3f} at every loss seen, and do not change"
        return None, f"no change with the loss is seen: {below}"
    if chance_known and fit.plateau + fit.rise < NORMAL * fit.plateau_stderr:
        return None, f"the scores do not rise above chance: {below}"
    if above_chance:
        return False, f"improves from the start: above chance by {first:.3f} at the highest loss already"
    if breaks and fit.p_value < _SIGNIFICANCE:
        return _judge_break(fit, losses_P, noise)
    if not breaks and fit.break_p_value < _SIGNIFICANCE:
        return False, f"improves from the start: the best {fit.smooth} explains more than any break"
    return None, f"a break at {fit.threshold:.3f} and the best {fit.smooth} explain the scores alike"


def _judge_break(fit: BreakFit, losses_P: np.ndarray, noise: Noise) -> tuple[bool | None, str]:
    """Return the verdict on a break that is clearly ahead, and why."""
    eta = fit.threshold
    if fit.drift - NORMAL * fit.drift_stderr > 0 and fit.drift > _MOST_DRIFT * fit.rise:
        return False, f"improves from the start: by {fit.drift:.3f} before the break at {eta:.3f} already"
    above = sum(bool((losses_P[run] >= eta).any()) for run in noise.runs)
    below = sum(bool((losses_P[run] < eta).any()) for run in noise.runs)
    if min(above, below) < 2:
        return None, f"only one model lies {'above' if above < 2 else 'below'} the break at {eta:.3f}"
    if not (fit.bounded_low and fit.bounded_high):
        end = "lowest" if fit.bounded_high else "highest"
        return None, f"the break at {eta:.3f} may also lie at the {end} losses seen: measure beyond them"
    return True, f"at chance down to a loss of {eta:.3f}, which the best {fit.smooth} does not explain"

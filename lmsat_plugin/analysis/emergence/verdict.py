"""Whether an ability is emergent, and why, in words.

Shapes: P checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.emergence.curves import LEAST_BESIDE
from lmsat_plugin.analysis.stats.bootstrap import NORMAL

if TYPE_CHECKING:
    from lmsat_plugin.analysis.emergence.noise import Noise
    from lmsat_plugin.analysis.emergence.thresholds import Break

_LEAST_POINTS = 12
_LEAST_MODELS = 3
_SIGNIFICANCE = 0.05
_MOST_DRIFT = 0.05
"""Of the rise, along the plateau."""
_NEAR_CHANCE = 0.03
"""How far from chance a plateau may lie and still be chance: answers to few questions are biased by as much."""


def too_little(losses_P: np.ndarray, models: int) -> str | None:
    """Return why nothing can be told from so few checkpoints, models or losses; None if it can be tried."""
    if len(losses_P) < _LEAST_POINTS:
        return f"{len(losses_P)} checkpoints are too few to tell: measure at least {_LEAST_POINTS}"
    if models < _LEAST_MODELS:
        return (
            f"the runs of {models} model{'s' * (models > 1)} cannot tell a path of their own from that of all: "
            f"measure at least {_LEAST_MODELS}"
        )
    ordered = np.sort(losses_P)
    if ordered[-LEAST_BESIDE] - ordered[LEAST_BESIDE - 1] < 1e-6:
        return "the losses are all alike: measure checkpoints of other losses"
    return None


def judge(found: Break, losses_P: np.ndarray, noise: Noise, *, chance_known: bool) -> tuple[bool | None, str]:
    """Return whether an ability is emergent, None where that cannot be told, and why (Du et al. 2024, Definition 1).

    It is if a break explains the scores clearly better than every curve that improves from the start, with a plateau
    that is at chance, and checkpoints of several models on either side.
    """
    below = f"a threshold, if there is one, is below {losses_P.min():.3f}"
    breaks = found.ahead > 0
    first, stderr = (found.plateau, found.plateau_stderr) if breaks else (found.start, found.start_stderr)
    above_chance = chance_known and first - NORMAL * stderr > _NEAR_CHANCE
    if found.flat_p_value > _SIGNIFICANCE or found.rise <= 0:
        if above_chance:
            return None, f"the scores are above chance by {first:.3f} at every loss seen, and do not change"
        return None, f"no change with the loss is seen: {below}"
    if chance_known and found.plateau + found.rise < NORMAL * found.plateau_stderr:
        return None, f"the scores do not rise above chance: {below}"
    if above_chance:
        return False, f"improves from the start: above chance by {first:.3f} at the highest loss already"
    if breaks and found.p_value < _SIGNIFICANCE:
        return _judge_break(found, losses_P, noise)
    if not breaks and found.break_p_value < _SIGNIFICANCE:
        return False, f"improves from the start: the best {found.smooth} explains more than any break"
    return None, f"a break at {found.threshold:.3f} and the best {found.smooth} explain the scores alike"


def _judge_break(found: Break, losses_P: np.ndarray, noise: Noise) -> tuple[bool | None, str]:
    """Return the verdict on a break that is clearly ahead, and why."""
    eta = found.threshold
    if found.drift - NORMAL * found.drift_stderr > 0 and found.drift > _MOST_DRIFT * found.rise:
        return False, f"improves from the start: by {found.drift:.3f} before the break at {eta:.3f} already"
    above = sum(bool((losses_P[run] >= eta).any()) for run in noise.runs)
    below = sum(bool((losses_P[run] < eta).any()) for run in noise.runs)
    if min(above, below) < 2:
        return None, f"one model alone lies {'above' if above < 2 else 'below'} the break at {eta:.3f}"
    if not (found.bounded_low and found.bounded_high):
        end = "lowest" if found.bounded_high else "highest"
        return None, f"the break at {eta:.3f} may as well lie at the {end} losses seen: measure beyond them"
    return True, f"at chance down to a loss of {eta:.3f}, which the best {found.smooth} does not explain"

"""Whether models of different size, tokenizer or other factors share one curve of score against loss.

Shapes: P checkpoints, K columns of a design, V levels of the factor, R permutations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from lmsat_plugin.analysis.emergence.noise import broken_lines, fitted
from lmsat_plugin.analysis.emergence.points import Scores
from lmsat_plugin.analysis.stats.bootstrap import p_value

_LEAST_IN_COMMON = 6
_LEAST_PERMUTATIONS = 20
_SIGNIFICANCE = 0.05
_SMALL = 0.1
"""A departure from the common curve is negligible below this share of the curve's rise."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How far the levels of a factor depart from one curve (Du et al. 2024, Sec. 3: sizes share one curve)."""

    factor: str
    shared: bool | None = None
    """None where it cannot be told."""
    effect: float | None = None
    """Root mean square of the levels' departures from the common curve, without the noise's share, in scores."""
    relative_effect: float | None = None
    """The effect over the rise of the common curve."""
    statistic: float | None = None
    """F: the mean square that the levels explain over the mean square that they leave."""
    p_value: float | None = None
    reason: str


def sharing(factor: str, scores: Scores, *, repetitions: int = 999, seed: int = 0) -> Sharing:
    """Return how far the levels of a factor depart from one curve, at losses that at least two levels have.

    The common curve consists of broken lines; the curve of a level is shifted and tilted. The statistic is compared
    with that of permutations: of the levels among whole runs, or, where no two runs share a level, of the scores among
    checkpoints with neighbouring losses. ``factor`` is a column of the scores' table.
    """
    unknown = partial(Sharing, factor=factor)
    losses_P, scores_P = scores.losses_P, scores.table["score"].to_numpy()
    levels_P = scores.table[factor].astype(str).to_numpy()
    common_P = _in_common(losses_P, levels_P)
    if common_P.sum() < _LEAST_IN_COMMON or len(np.unique(levels_P[common_P])) < 2:
        return unknown(reason=f"fewer than {_LEAST_IN_COMMON} checkpoints lie where two levels of {factor} have losses")
    losses_P, scores_P, levels_P = losses_P[common_P], scores_P[common_P], levels_P[common_P]
    kept = np.cumsum(common_P) - 1
    runs = [kept[run[common_P[run]]] for run in scores.runs if common_P[run].any()]
    design_PK = broken_lines(losses_P)
    curve_P = fitted(design_PK, scores_P)
    levels = _Levels(design_PK, losses_P, levels_P)
    if levels.left < 1 or levels.gained < 1:
        return unknown(reason=f"{len(losses_P)} checkpoints are too few for {len(set(levels_P))} levels of {factor}")
    (less,), (more,) = levels.left_by(scores_P[None])
    if ((curve_P - curve_P.mean()) ** 2).sum() < more:
        return unknown(reason=f"the scores hardly change where levels of {factor} have losses in common")
    statistic = levels.f(less, more)
    of_runs = np.array([levels_P[run[0]] for run in runs])
    whole = all(len(set(levels_P[run])) == 1 for run in runs) and len(set(of_runs)) < len(of_runs)
    rng = np.random.default_rng(seed)
    if whole:
        statistics_R = np.empty(repetitions)
        for index in range(repetitions):
            permuted_P = np.empty_like(levels_P)
            for run, level in zip(runs, rng.permutation(of_runs), strict=True):
                permuted_P[run] = level
            of_permuted = _Levels(design_PK, losses_P, permuted_P)
            statistics_R[index] = of_permuted.f(*of_permuted.left_by(scores_P[None]))[0]
    else:
        order_RP = _neighbours(losses_P, repetitions, rng)
        statistics_R = levels.f(*levels.left_by(curve_P + (scores_P - curve_P)[order_RP]))
    if len(np.unique(statistics_R.round(9))) < _LEAST_PERMUTATIONS:
        return unknown(reason=f"{len(of_runs)} runs are too few to tell levels of {factor} from runs")
    p = p_value(int((statistics_R >= statistic * (1 - 1e-9)).sum()), repetitions)
    noise = levels.gained * more / levels.left
    effect = float(np.sqrt(max(0.0, less - more - noise) / len(losses_P)))
    rise = float(curve_P.max() - curve_P.min())
    shared, why = None, "which chance may explain"
    if effect < _SMALL * rise:
        shared, why = True, f"little beside its rise of {rise:.3f}"
    elif p < _SIGNIFICANCE:
        shared, why = False, "more than permuted ones"
    return Sharing(
        factor=factor,
        shared=shared,
        effect=effect,
        relative_effect=effect / rise,
        statistic=float(statistic),
        p_value=p,
        reason=f"levels of {factor} depart from one curve by {effect:.3f}, {why}",
    )


def _in_common(losses_P: np.ndarray, levels_P: np.ndarray) -> np.ndarray:
    """Return which checkpoints lie within the range of losses of another level."""
    common_P = np.zeros(len(losses_P), dtype=bool)
    for level in np.unique(levels_P):
        own_P = levels_P == level
        inside_P = (losses_P >= losses_P[own_P].min()) & (losses_P <= losses_P[own_P].max())
        common_P |= inside_P & ~own_P
    return common_P


class _Levels:
    """Designs of one common curve, and of a curve that levels shift and tilt."""

    def __init__(self, design_PK: np.ndarray, losses_P: np.ndarray, levels_P: np.ndarray) -> None:
        own_PV = (levels_P[:, None] == np.unique(levels_P)[1:]).astype(np.float64)
        tilted_PV = own_PV * (losses_P - losses_P.mean())[:, None]
        self.less_PK = _basis(design_PK)
        self.more_PK = _basis(np.column_stack([design_PK, own_PV, tilted_PV]))
        self.gained = self.more_PK.shape[1] - self.less_PK.shape[1]
        self.left = len(losses_P) - self.more_PK.shape[1]

    def left_by(self, scores_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the residual sums of squares of the common curve and of the levels' curves, shapes [R]."""
        less_R, more_R = (
            ((scores_RP - scores_RP @ basis_PK @ basis_PK.T) ** 2).sum(1) for basis_PK in (self.less_PK, self.more_PK)
        )
        return less_R, more_R

    def f(self, less_R: np.ndarray, more_R: np.ndarray) -> np.ndarray:
        """Return F by the residual sums of squares of the common curve and of the levels' curves."""
        return (less_R - more_R) / self.gained / np.maximum(more_R / self.left, 1e-300)


def _basis(design_PK: np.ndarray) -> np.ndarray:
    left_PK, values_K, _ = np.linalg.svd(design_PK, full_matrices=False)
    return left_PK[:, values_K > 1e-10 * values_K[0]]


def _neighbours(losses_P: np.ndarray, repetitions: int, rng: np.random.Generator, width: int = 8) -> np.ndarray:
    """Return permutations [R, P] that keep each checkpoint among its neighbours in loss."""
    order_P = np.argsort(losses_P, kind="stable")
    offsets_R1 = rng.integers(1, width + 1, (repetitions, 1))
    blocks_RP = (np.arange(len(order_P)) + width - offsets_R1) // width
    shuffled_RP = np.argsort(blocks_RP + rng.random(blocks_RP.shape), axis=1)
    permutations_RP = np.empty_like(shuffled_RP)
    permutations_RP[:, order_P] = order_P[shuffled_RP]
    return permutations_RP

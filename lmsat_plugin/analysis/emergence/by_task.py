"""Emergence of each task and metric of a table (`find_emergence`).

Shapes: P checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.emergence.noise import estimate_noise, smooth_variances
from lmsat_plugin.analysis.emergence.points import Scores, scores_of
from lmsat_plugin.analysis.emergence.sharing import Sharing, sharing
from lmsat_plugin.analysis.emergence.thresholds import BreakFit, fit_break
from lmsat_plugin.analysis.emergence.two_step import TwoStep, two_step
from lmsat_plugin.analysis.emergence.verdict import judge, too_little
from lmsat_plugin.analysis.given_numbers import check_seed
from lmsat_plugin.analysis.stats.correlations import pearson, spearman
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_MOST_POINTS = 4000
"""Checkpoints above which some of each run are left out: time and memory grow with their number, intervals hardly."""
_SOME = 0.05
"""The share of scores that may lie two standard deviations below chance by noise."""


@dataclass(frozen=True, eq=False)
class Emergence:
    """Whether the ability that one task and metric measure is emergent, and from which loss on."""

    task: str
    metric: str
    variant: str | None
    """The number of shots and the filter, where the task has several; else None."""
    threshold: float | None
    """η, in the unit of the loss: an upper bound of the loss at which the ability is there; None unless emergent."""
    low: float | None
    high: float | None
    """``low`` and ``high`` are the ends of the 90 % interval of η."""
    emergent: bool | None
    """None where it is unknown."""
    reason: str
    spearman: float | None
    pearson: float | None
    """Correlations of score and loss over all checkpoints of all models (Du et al. 2024, Table 2)."""
    chance: float | None
    n_points: int
    n_models: int
    p_value: float | None
    """How often a curve that improves from the start looks as much like a break; None without a test."""
    shared: Sharing
    two_step: TwoStep | None
    """None for too few checkpoints, or where the higher losses show no rise."""
    scores: Scores = field(repr=False)
    break_fit: BreakFit | None = field(repr=False)
    """The fit behind the verdict; None without one."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat emergence --json`` prints it: all but the scores and the fit."""
        names = (item.name for item in fields(self) if item.name not in ("scores", "break_fit"))
        two_step = None if self.two_step is None else self.two_step.to_dict()
        return {**{name: getattr(self, name) for name in names}, "shared": asdict(self.shared), "two_step": two_step}


def find_emergence(
    data: Results | pd.DataFrame,
    *,
    loss: str = "loss",
    task: str = "*",
    metric: str = "*",
    factor: str = "model",
    seed: int = 0,
) -> list[Emergence]:
    """Return the emergence of each task, metric and variant, by name.

    Raises `LmsatError` as `scores_of` does, and for a seed that is no whole number from 0 on.

    Args:
        data: Results with lmsat_loss beside other tasks; or a table with the columns ``model, loss, task, metric,
            score``, factors and, where known, ``chance``, ``stderr`` or ``n_samples``, ``step``, ``higher_is_better``.
        loss: The column, or the metric of lmsat_loss, that is the loss.
        task, metric: Globs.
        factor: The column whose levels are tested for one common curve.
        seed: Of the random numbers.
    """
    check_seed(seed)
    all_scores = scores_of(data, loss=loss, task=task, metric=metric, factor=factor)
    return [_emergence(scores, factor, seed) for scores in all_scores]


def _emergence(scores: Scores, factor: str, seed: int) -> Emergence:
    scores, every = scores.thinned(_MOST_POINTS)
    losses_P, values_P, runs = scores.losses_P, scores.table["score"].to_numpy(), scores.runs
    models = int(scores.table["model"].nunique())
    reason = too_little(losses_P, len(runs), models)
    fit, emergent, reason = _verdict(scores, seed) if reason is None else (None, None, reason)
    if every > 1:
        reason += f"; of each {every} checkpoints of a run one was used"
    return Emergence(
        task=scores.task,
        metric=scores.metric,
        variant=scores.variant,
        threshold=fit.threshold if fit and emergent else None,
        low=fit.low if fit and emergent else None,
        high=fit.high if fit and emergent else None,
        emergent=emergent,
        reason=reason,
        spearman=spearman(losses_P, values_P),
        pearson=pearson(losses_P, values_P),
        chance=scores.chance,
        n_points=len(losses_P),
        n_models=models,
        p_value=fit.p_value if fit else None,
        shared=sharing(factor, scores, seed=seed),
        two_step=two_step(scores),
        scores=scores,
        break_fit=fit,
    )


def _verdict(scores: Scores, seed: int) -> tuple[BreakFit, bool | None, str]:
    losses_P, gains_P, runs = scores.losses_P, scores.gains_P, scores.runs
    variances_P = smooth_variances(losses_P, scores.table["variance"].to_numpy())
    noise = estimate_noise(losses_P, gains_P, variances_P, runs)
    worse = 0
    if scores.chance is not None:
        # A score that is worse than chance and improves towards it shows no ability.
        least_P = -2 * noise.deviations_P
        worse = int((gains_P < least_P).sum())
        if worse > _SOME * len(gains_P):
            gains_P = np.maximum(gains_P, least_P)
            noise = estimate_noise(losses_P, gains_P, variances_P, runs)
    fit = fit_break(losses_P, gains_P, noise, seed=seed)
    emergent, reason = judge(fit, losses_P, noise, chance_known=scores.chance is not None)
    if worse > _SOME * len(gains_P):
        reason += f"; {worse} scores worse than chance count as chance"
    if scores.chance is None:
        reason += "; chance is not known, so that the plateau stands for it"
    return fit, emergent, reason

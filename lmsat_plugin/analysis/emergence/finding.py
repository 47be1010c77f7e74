"""Emergence of each task and metric of a table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.emergence.noise import estimate_noise, smooth_variances
from lmsat_plugin.analysis.emergence.points import Scores, scores_of
from lmsat_plugin.analysis.emergence.sharing import Sharing, sharing
from lmsat_plugin.analysis.emergence.thresholds import Break, fit_break
from lmsat_plugin.analysis.emergence.two_step import TwoStep, two_step
from lmsat_plugin.analysis.emergence.verdict import judge, too_little

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from lmsat_plugin.results.tree import Results

_SOME = 0.05
"""The share of scores that may lie below chance by two standard deviations without a reason."""


@dataclass(frozen=True, eq=False)
class Emergence:
    """What is found of one task and metric."""

    task: str
    metric: str
    variant: str | None
    """The number of shots and the filter, where results have several; None where they do not."""
    threshold: float | None
    """η, in the unit of the loss: an upper bound of the loss at which the ability is there; None unless emergent."""
    low: float | None
    high: float | None
    """Ends of the 90 % interval of η."""
    emergent: bool | None
    """None where it cannot be told."""
    reason: str
    spearman: float | None
    pearson: float | None
    """Correlations of score and loss over all checkpoints of all models (Du et al. 2024, Table 2)."""
    chance: float | None
    n_points: int
    n_models: int
    p_value: float | None
    """How often a curve that improves from the start looks as much like a break as this; None without a test."""
    shared: Sharing
    two_step: TwoStep | None
    """None for too few checkpoints, or where the higher losses show no rise."""
    scores: Scores = field(repr=False)
    found: Break | None = field(repr=False)
    """The fits behind the verdict; None without any."""

    def to_dict(self) -> dict[str, Any]:
        """Return all but the scores and the fits, as JSON holds it."""
        own = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name not in ("scores", "found")
        }
        two_step = None if self.two_step is None else self.two_step.to_dict()
        return {**own, "shared": dataclasses.asdict(self.shared), "two_step": two_step}


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

    ``data`` are results with lmsat_loss beside other tasks, or a table of such results or with the columns ``model, loss, task, metric, score`` and, if known, ``chance``, ``stderr`` or ``n_samples``, ``step``,
    ``higher_is_better`` and factors. ``loss`` names the column, or the metric of lmsat_loss, that is the loss;
    ``task`` and ``metric`` are globs; ``factor`` is the column whose levels are asked to share one curve.

    Raises `LmsatError` as `lmsat_plugin.analysis.emergence.points.scores_of` does.
    """
    return [
        _of_scores(scores, factor, seed)
        for scores in scores_of(data, loss=loss, task=task, metric=metric, factor=factor)
    ]


def _of_scores(scores: Scores, factor: str, seed: int) -> Emergence:
    from scipy.stats import pearsonr, spearmanr

    losses_P, values_P, runs = scores.losses_P, scores.table["score"].to_numpy(), scores.runs
    found, emergent, reason = None, None, too_little(losses_P, len(runs))
    if reason is None:
        found, emergent, reason = _verdict(scores, seed)
    return Emergence(
        task=scores.task,
        metric=scores.metric,
        variant=scores.variant,
        threshold=found.threshold if found and emergent else None,
        low=found.low if found and emergent else None,
        high=found.high if found and emergent else None,
        emergent=emergent,
        reason=reason,
        spearman=_correlation(spearmanr, losses_P, values_P),
        pearson=_correlation(pearsonr, losses_P, values_P),
        chance=scores.chance,
        n_points=len(losses_P),
        n_models=len(runs),
        p_value=found.p_value if found else None,
        shared=sharing(factor, scores, seed=seed),
        two_step=two_step(scores),
        scores=scores,
        found=found,
    )


def _verdict(scores: Scores, seed: int) -> tuple[Break, bool | None, str]:
    losses_P, gains_P, runs = scores.losses_P, scores.gains_P, scores.runs
    variances_P = smooth_variances(losses_P, scores.table["variance"].to_numpy())
    noise = estimate_noise(losses_P, gains_P, variances_P, runs)
    worse = 0
    if scores.chance is not None:
        # What is worse than chance and improves towards it is not learning.
        least_P = -2 * noise.deviations_P
        worse = int((gains_P < least_P).sum())
        if worse > _SOME * len(gains_P):
            gains_P = np.maximum(gains_P, least_P)
            noise = estimate_noise(losses_P, gains_P, variances_P, runs)
    found = fit_break(losses_P, gains_P, noise, seed=seed)
    emergent, reason = judge(found, losses_P, noise, chance_known=scores.chance is not None)
    if worse > _SOME * len(gains_P):
        reason += f"; {worse} scores worse than chance count as chance"
    if scores.chance is None:
        reason += "; chance is not known, so that the plateau stands for it"
    return found, emergent, reason


def _correlation(correlate: Callable[..., Any], losses_P: np.ndarray, values_P: np.ndarray) -> float | None:
    """Return a correlation; None for less than three values, or for ones that are all alike."""
    if len(losses_P) < 3 or np.ptp(losses_P) == 0 or np.ptp(values_P) == 0:
        return None
    return float(correlate(losses_P, values_P).statistic)

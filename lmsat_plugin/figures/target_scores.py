"""The figure of scores predicted in two steps: the fitted checkpoints, the sigmoid, and the targets beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.emergence import TargetScore
from lmsat_plugin.figures.style import GREY, LETTERS_WIDE, PALETTE, finish, styled, subplots, wrapped
from lmsat_plugin.results.variants import label

_FITTED: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3, "color": PALETTE[0], "alpha": 0.4}
_PREDICTED: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5, "color": PALETTE[2]}
_OBSERVED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "x",
    "markersize": 6,
    "color": PALETTE[2],
    "markeredgecolor": PALETTE[2],
    "markeredgewidth": 1.2,
}


@styled
def target_scores_figure(results: Sequence[TargetScore]) -> Figure:
    """Draw a panel for each task and metric: scores against the loss, which falls to the right, and the targets.

    A target's bar is the 90 % interval of a new run.
    """
    panels = [list(own) for _, own in groupby(results, key=lambda one: (one.task, one.metric, str(one.variant)))]
    figure, all_axes = subplots(len(panels))
    for axes, own in zip(all_axes, panels, strict=True):
        _draw(axes, own)
    finish(
        figure,
        [
            Line2D([], [], label="fitted models", **_FITTED),
            Line2D([], [], label="sigmoid", color=GREY),
            Line2D([], [], label="predicted, with 90 % of new runs", **_PREDICTED),
            Line2D([], [], label="observed", **_OBSERVED),
        ],
    )
    return figure


def _draw(axes: Axes, results: Sequence[TargetScore]) -> None:
    first = results[0]
    axes.set_title(wrapped(label(f"{first.task}, {first.metric}", first.variant), LETTERS_WIDE))
    axes.set_xlabel("loss" if first.scores.loss == "loss" else first.scores.loss)
    axes.set_ylabel("score")
    axes.plot(first.fitted.loss, first.fitted.score, **_FITTED)
    if first.curve is not None:
        losses = [*first.fitted.loss, *(one.loss for one in results)]
        line = np.linspace(min(losses), max(losses), 200)
        axes.plot(line, first.curve.score(line), color=GREY)
    for one in results:
        axes.plot(one.loss, one.observed, **_OBSERVED)
        if one.predicted is not None:
            axes.plot(one.loss, one.predicted, **_PREDICTED)
        if one.low is not None and one.high is not None:
            axes.vlines(one.loss, one.low, one.high, color=PALETTE[2], linewidth=1)
    axes.invert_xaxis()

"""The figure of scores as a power law of compute: the fitted runs, the laws, and the predicted scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.emergence.direct_scores import BY_COMPUTE, DirectFit
from lmsat_plugin.figures.style import (
    BAND,
    GREY,
    LETTERS_WIDE,
    REFERENCE,
    finish,
    log_axis,
    looks_of,
    styled,
    subplots,
    wrapped,
)
from lmsat_plugin.results.variants import label

_OTHER = "other ratios"
_TARGET = GREY
_PREDICTED: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5, "color": _TARGET}
_OBSERVED: dict[str, Any] = {
    **_PREDICTED,
    "marker": "x",
    "markersize": 6,
    "markeredgecolor": _TARGET,
    "markeredgewidth": 1.2,
}
_POINTS = 100


@styled
def direct_scores_figure(results: Sequence[DirectFit]) -> Figure:
    """Draw a panel for each task and metric: scores against compute, and the law of each ratio of tokens to parameters.

    Bands are the 90 % intervals of the laws, bars those of new runs; chance is dashed.
    """
    ratios = sorted({law.ratio for one in results for law in one.laws if law.ratio is not None})
    looks = looks_of([_name(ratio) for ratio in ratios])
    figure, all_axes = subplots(len(results))
    for axes, one in zip(all_axes, results, strict=True):
        _draw(axes, one, looks)
    handles: list[Artist] = [Line2D([], [], label=name, linewidth=1, **look) for name, look in looks.items()]
    handles.append(Line2D([], [], label=_OTHER, linestyle="none", marker=".", color=GREY))
    if any(one.predictions for one in results):
        handles.append(Line2D([], [], label="predicted, with 90 % of new runs", **_PREDICTED))
        handles.append(Line2D([], [], label="observed", **_OBSERVED))
    finish(figure, handles)
    return figure


def _name(ratio: float) -> str:
    return f"{ratio:.3g} tokens per parameter"


def _draw(axes: Axes, one: DirectFit, looks: dict[str, dict[str, Any]]) -> None:
    axes.set_title(wrapped(label(f"{one.task}, {one.metric}", one.variant), LETTERS_WIDE))
    axes.set_xlabel("compute (FLOP)")
    axes.set_ylabel("score")
    if one.chance is not None:
        axes.axhline(one.chance, color=GREY, **REFERENCE)
    axes.plot(one.runs.flops, one.runs.score, linestyle="none", marker=".", color=GREY, zorder=1)
    flops = [*one.runs.flops, *(score.flops for score in one.predictions)]
    for law in one.laws:
        if law.fitted.law is not BY_COMPUTE:
            continue
        look = looks[_name(law.ratio)] if law.ratio is not None else {"color": GREY, "marker": "."}
        own = law.fitted.points.table
        axes.plot(own.flops, own.score, linestyle="none", markersize=4, **look)
        line = np.geomspace(min(own.flops), max(flops), _POINTS)
        drawn = law.scores(pd.DataFrame({"flops": line}))
        axes.plot(line, drawn["predicted"], color=look["color"], linewidth=1)
        axes.fill_between(line, drawn["mean_low"], drawn["mean_high"], color=look["color"], **BAND)
    for score in one.predictions:
        if score.predicted is not None:
            axes.plot(score.flops, score.predicted, **_PREDICTED)
        if score.low is not None and score.high is not None:
            axes.vlines(score.flops, score.low, score.high, color=_TARGET, linewidth=1)
        if score.observed is not None:
            axes.plot(score.flops, score.observed, **_OBSERVED)
    log_axis(axes, "x")

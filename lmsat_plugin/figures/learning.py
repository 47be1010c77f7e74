"""The figure of `lmsat learning`: how much of each change of the loss cancels, and how many tokens get worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.learning import RunLearning
from lmsat_plugin.figures.style import BAND, GREY, PALETTE, finish, log_axis, styled, subplots, wrapped

_LETTERS = 30
_D: dict[str, Any] = {"color": PALETTE[0], "marker": "o"}
_AT_LEAST: dict[str, Any] = {"color": PALETTE[0], "marker": "^", "linestyle": ":", "markerfacecolor": "none"}
_AT_LEAST |= {"markeredgecolor": PALETTE[0], "markeredgewidth": 1}
_WORSE: dict[str, Any] = {"color": PALETTE[2], "marker": "s"}
_SLOWS: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 0.8}


@styled
def learning_figure(runs: Sequence[RunLearning]) -> Figure:
    """Draw a panel for each run: D and the share of tokens that get worse, at the end of each change.

    Hollow triangles are what D is at least, where single tokens are not known. A dashed line marks the deceleration,
    and a band its 90 % interval.
    """
    figure, panels = subplots(len(runs))
    drawn: dict[str, Artist] = {}
    for axes, run in zip(panels, runs, strict=True):
        drawn |= _draw(axes, run)
    finish(figure, list(drawn.values()))
    return figure


def _draw(axes: Axes, run: RunLearning) -> dict[str, Artist]:
    """Draw a run, and return what the legend says of it."""
    axes.set(xlabel="checkpoint" if run.axis == "order" else run.axis, ylabel="share", ylim=(-0.03, 1.03))
    axes.set_title(wrapped(run.model, _LETTERS))
    at = np.array([change.at for change in run.changes])
    drawn: dict[str, Artist] = {}
    for label, name, look in (
        ("D, the share of changes that cancels", "interference", _D),
        ("what D is at least", "interference_at_least", _AT_LEAST),
        ("tokens that get worse", "worse", _WORSE),
    ):
        values = np.array([np.nan if (value := getattr(change, name)) is None else value for change in run.changes])
        if np.isfinite(values).any():
            axes.plot(at, values, **look)
            drawn[label] = Line2D([], [], label=label, **look)
    slows = run.deceleration
    if slows.value is not None:
        axes.axvline(slows.value, **_SLOWS)
        drawn["slows"] = Line2D([], [], label="deceleration of the loss", **_SLOWS)
        if slows.low is not None and slows.high is not None:
            axes.axvspan(slows.low, slows.high, color=GREY, **BAND)
            drawn["interval"] = Patch(color=GREY, label="90 % interval of that", **BAND)
    if at.min() > 0 and at.max() > 10 * at.min():
        log_axis(axes, "x")
    return drawn

"""The figure of learning curves: each run's losses, the curve fitted to them, where it slows down, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.scaling_laws.run_curves import RunCurve
from lmsat_plugin.figures.style import BAND, GREY, PALETTE, finish, log_axis, styled, subplots, wrapped

_LETTERS = 30
_CHECKPOINTS: dict[str, Any] = {"color": PALETTE[0], "marker": "o", "markersize": 3, "linestyle": "none"}
_CURVE: dict[str, Any] = {"color": GREY}
_END: dict[str, Any] = {"color": PALETTE[2], "marker": "D", "markersize": 4.5, "linestyle": "none"}
_HELD_OUT: dict[str, Any] = {"color": PALETTE[1], "marker": "^", "markersize": 5, "linestyle": "none"}
_SLOWS: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 0.8}
_CURVE_POINTS = 200
_BESIDE = 1.04


@styled
def run_curves_figure(results: Sequence[RunCurve]) -> Figure:
    """Draw a panel for each run: its losses, the fitted curve and its end with the 90 % interval.

    Where a broken law slows down, a line marks the place, and a band its 90 % interval. A triangle is the last loss as
    the first half of the steps predicts it.
    """
    figure, panels = subplots(len(results))
    for axes, result in zip(panels, results, strict=True):
        _draw(axes, result)
    finish(figure, _legend(results))
    return figure


def _draw(axes: Axes, result: RunCurve) -> None:
    axes.set(xlabel=result.axis, ylabel="loss (nats per token)")
    axes.set_title(wrapped(f"{result.model}: {result.form} law", _LETTERS))
    axes.plot(result.t_K, result.losses_K, **_CHECKPOINTS)
    t_M = np.geomspace(result.t_K[0], max(result.t_K[-1], result.at), _CURVE_POINTS)
    axes.plot(t_M, result.losses_at(t_M), **_CURVE)
    slows = result.deceleration
    if slows.value is not None:
        axes.axvline(slows.value, **_SLOWS)
        if slows.low is not None and slows.high is not None:
            axes.axvspan(slows.low, slows.high, color=GREY, **BAND)
    _mark(axes, result.at * _BESIDE, (result.final.value, result.final.low, result.final.high), _END)
    if (held_out := result.held_out) is not None:
        ends = (held_out["predicted"], held_out.get("low"), held_out.get("high"))
        _mark(axes, result.t_K[-1] / _BESIDE, ends, _HELD_OUT)
    log_axis(axes, "x")


def _mark(axes: Axes, t: float, ends: tuple[float | None, float | None, float | None], look: dict[str, Any]) -> None:
    """Draw a value with its interval, a little beside its checkpoint."""
    value, low, high = ends
    if value is None:
        return
    axes.plot([t], [value], zorder=3, **look)
    if low is not None and high is not None:
        axes.plot([t, t], [low, high], color=look["color"], linewidth=1)


def _legend(results: Sequence[RunCurve]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], label="checkpoints", **_CHECKPOINTS),
        Line2D([], [], label="fitted curve", **_CURVE),
        Line2D([], [], label="its end, with the 90 % interval", **_END),
    ]
    if any(result.held_out is not None for result in results):
        handles.append(Line2D([], [], label="last loss, predicted from the first half", **_HELD_OUT))
    if any(result.deceleration.value is not None for result in results):
        handles += [
            Line2D([], [], label="where it slows down", **_SLOWS),
            Patch(color=GREY, label="90 % interval of that", **BAND),
        ]
    return handles

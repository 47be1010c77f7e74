"""The figure of runs of equal compute: parabolas of the loss by size, and the sizes at their minima by compute."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.scaling_laws.isoflops import IsoFlop, IsoFlops
from lmsat_plugin.analysis.scaling_laws.laws import COUNTS
from lmsat_plugin.figures.style import GREY, PALETTE, legend_below, log_axis, resize, short_number, styled, subplots

_POINTS: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.5}
_MINIMUM: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 9}
_FAR: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": GREY, "markeredgewidth": 0.8}
_COLOURS = matplotlib.colormaps["viridis"]
_LIGHTEST = 0.85
"""Of the colours of computes: yellow does not show on white."""
_CURVE_POINTS = 200


@styled
def isoflops_figure(result: IsoFlops) -> Figure:
    """Draw the loss by size for each compute with its parabola and minimum, and the size at the minimum by compute.

    Open points are farther than a tenth from the least loss: no parabola is fitted to them. Bars are 90 % intervals.
    """
    figure, (losses, optima) = subplots(2)
    found = [one for one in result.computes if one.n_opt is not None]
    shades = np.linspace(0, _LIGHTEST, len(result.computes))
    handles: list[Artist] = []
    for index, one in enumerate(result.computes):
        colour = _COLOURS(shades[index])
        _draw_compute(losses, result, index, colour)
        _draw_minimum(optima, one, colour)
        handles.append(Line2D([], [], label=f"{short_number(one.flops)} FLOP", color=colour, **_POINTS))
    what = COUNTS[result.count]
    losses.set(title="(a) Loss by size", xlabel=what, ylabel="loss (nats per token)")
    optima.set(title="(b) Size of least loss by compute", xlabel="compute (FLOP)", ylabel=f"{what}, N_opt")
    line = _draw_line(optima, found, result)
    for axes, names in ((losses, "x"), (optima, "xy")):
        for name in names:
            log_axis(axes, name)  # type: ignore[arg-type]
    lines = legend_below(losses, [*handles, Line2D([], [], label="least loss", color=GREY, **_MINIMUM)])
    resize(figure, max(lines, legend_below(optima, [line])))
    return figure


def _draw_compute(axes: Axes, result: IsoFlops, index: int, colour: Any) -> None:
    points = result.table[result.table.compute == index]
    near, one = points[points.near], result.computes[index]
    axes.plot(near.n, near.loss, color=colour, **_POINTS)
    far = points[~points.near]
    axes.plot(far.n, far.loss, **_POINTS, **{**_FAR, "markeredgecolor": colour})
    if one.n_opt is None or one.loss is None or one.curvature is None:
        return
    sizes = np.geomspace(near.n.min(), near.n.max(), _CURVE_POINTS)
    axes.plot(sizes, one.loss + one.curvature * np.log(sizes / one.n_opt) ** 2, color=colour)
    axes.plot([one.n_opt], [one.loss], color=colour, zorder=3, **_MINIMUM)


def _draw_minimum(axes: Axes, one: IsoFlop, colour: Any) -> None:
    if one.n_opt is None:
        return
    axes.plot([one.flops], [one.n_opt], color=colour, zorder=3, **_MINIMUM)
    if one.low is not None and one.high is not None:
        axes.plot([one.flops] * 2, [one.low, one.high], color=colour, linewidth=0.8)


def _draw_line(axes: Axes, found: list[IsoFlop], result: IsoFlops) -> Line2D:
    """Draw the line through the logarithms of the sizes at the minima, whose slope is a; return it for a legend."""
    flops = np.array([one.flops for one in found])
    sizes = np.array([one.n_opt for one in found], dtype=np.float64)
    a, ends = result.a, np.array([flops.min(), flops.max()])
    assert a.value is not None
    at_mean = np.exp(np.log(sizes).mean() - a.value * np.log(flops).mean())
    interval = "" if a.low is None else f", 90 % interval {a.low:.3g} to {a.high:.3g}"
    label = f"N_opt ∝ C^a with a = {a.value:.3g}{interval}"
    return axes.plot(ends, at_mean * ends**a.value, color=PALETTE[2], label=label, linewidth=0.9, zorder=1)[0]

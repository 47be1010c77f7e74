"""The figure of how reliable forecasts were: of the runs with one chance, the share that saturated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.saturation.hindcasts import ForecastClass
from lmsat_plugin.analysis.stats.bootstrap import NORMAL
from lmsat_plugin.figures.style import GREY, PALETTE, REFERENCE, finish, styled, subplots


@styled
def reliability_figure(groups: Mapping[str, Sequence[ForecastClass]]) -> Figure:
    """Draw a panel for each group of hindcasts, by its title: forecasts come true as often as they say on the line.

    Bars are 90 % intervals of the shares (Wilson 1927), as if hindcasts were independent; numbers count hindcasts.
    """
    figure, panels = subplots(len(groups))
    points: dict[str, Any] = {"marker": "o", "color": PALETTE[0], "linestyle": "none"}
    for axes, (title, classes) in zip(panels, groups.items(), strict=True):
        forecast, happened, number = np.array(classes).T
        middle = (happened + NORMAL**2 / (2 * number)) / (1 + NORMAL**2 / number)
        half = np.sqrt(happened * (1 - happened) / number + (NORMAL / (2 * number)) ** 2) * NORMAL
        half /= 1 + NORMAL**2 / number
        axes.plot([0, 1], [0, 1], color=GREY, **REFERENCE)
        axes.vlines(forecast, middle - half, middle + half, color=points["color"], linewidth=1)
        axes.plot(forecast, happened, **points)
        for own in classes:
            # Beside the bar, inward.
            left = own.forecast > 0.8
            axes.annotate(
                f"{own.hindcasts}",
                (own.forecast, own.happened),
                textcoords="offset points",
                xytext=(-5 if left else 5, -9 if own.happened > 0.5 else 5),
                ha="right" if left else "left",
                fontsize=7,
            )
        axes.set(title=title, xlabel="chance forecast", ylabel="share that saturated", xlim=(0, 1), ylim=(-0.02, 1.02))
    line = Line2D([], [], label="as often as forecast", color=GREY, **REFERENCE)
    finish(figure, [Line2D([], [], label="hindcasts, with 90 % intervals", **points), line])
    return figure

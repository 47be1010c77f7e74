"""Figures of what a size buys: tokens and compute to a loss, and loss by shape. Imported only where one is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.figures.style import (
    GREY,
    REFERENCE,
    STYLE,
    legend_below,
    log_axis,
    looks_of,
    resize,
    short_number,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lmsat_plugin.analysis.scaling_laws.efficiency import Efficiency, Reached
    from lmsat_plugin.analysis.scaling_laws.shape import ShapeDependence


def efficiency_figure(found: Efficiency) -> Figure:
    """Draw losses by tokens, and the tokens and the compute that each size needs to reach each loss.

    Brackets span the neighbouring checkpoints; open marks are upper bounds, of models whose first checkpoint is there
    already.
    """
    losses = [f"{one.loss:g}" for one in found.best]
    by_loss = {
        f"{best.loss:g}": [one for one in found.reached if one.loss == best.loss and one.tokens is not None]
        for best in found.best
    }
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        curves, tokens, compute = figure.subplots(1, 3)
        lines = _draw_curves(curves, found)
        looks = looks_of(losses)
        for axes in (tokens, compute):
            for loss, there in by_loss.items():
                _draw_needed(axes, there, "tokens" if axes is tokens else "flops", looks[loss])
            axes.set_xlabel("parameters")
            log_axis(axes, "x")
            log_axis(axes, "y")
        tokens.set_title("(b) Tokens to reach a loss")
        tokens.set_ylabel("tokens")
        compute.set_title("(c) Compute to reach a loss")
        compute.set_ylabel("FLOP")
        handles = [Line2D([], [], label=f"loss {loss}", **looks[loss]) for loss in losses]
        if any(one.at_most for one in found.reached):
            open_: dict[str, Any] = {
                "color": GREY,
                "markerfacecolor": "white",
                "markeredgecolor": GREY,
                "marker": "o",
            }
            handles.append(Line2D([], [], linestyle="none", label="at most: first checkpoint", **open_))
        lines = max(lines, legend_below(tokens, handles))
        resize(figure, 3, lines)
    return figure


def _draw_curves(axes: Axes, found: Efficiency) -> int:
    axes.set_title("(a) Loss and its least so far")
    axes.set_xlabel("tokens")
    axes.set_ylabel("loss (nats per token)")
    models = [one.model for one in found.reached[: len(found.reached) // len(found.best)]]
    handles = []
    for model, look in looks_of(models).items():
        run = found.table[found.table.model == model].sort_values("tokens")
        colour = look["color"]
        axes.plot(run.tokens, run.loss, ".", color=colour, markersize=3, markeredgewidth=0)
        handles += axes.plot(run.tokens, run.loss.cummin(), color=colour, label=model)
    log_axis(axes, "x")
    for best in found.best:
        axes.axhline(best.loss, color=GREY, **REFERENCE)
    return legend_below(axes, handles)


def _draw_needed(axes: Axes, there: list[Reached], what: str, look: dict[str, Any]) -> None:
    sizes = [one.n_params for one in there]
    axes.plot(sizes, [getattr(one, what) for one in there], **look)
    for one in there:
        value, tokens = getattr(one, what), one.tokens
        assert tokens is not None
        if one.at_most:
            axes.plot(
                [one.n_params], [value], markerfacecolor="white", **{**look, "markeredgecolor": look["color"]}
            )
        elif one.low is not None and one.high is not None:
            ends = [value * one.low / tokens, value * one.high / tokens]
            axes.plot([one.n_params] * 2, ends, color=look["color"], linewidth=0.8)


def shape_figure(found: ShapeDependence) -> Figure:
    """Draw the loss at one size above the least of its group by aspect ratio, and the regression's."""
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_title("Loss and shape at a fixed size")
        axes.set_xlabel("aspect ratio (width / depth)")
        axes.set_ylabel("loss above the regression's least (%)")
        table = found.table
        grid = np.geomspace(table.aspect.min(), table.aspect.max(), 200)
        cost, floor = found.cost(grid), found.cost(grid).min()
        names = {
            str(group): f"about {short_number(one.n_params)} parameters"
            for group, one in enumerate(found.groups)
        }
        looks = looks_of([*names, "-1"])
        above = np.log(table.loss) - found.level - found.alpha_n.value * -np.log(table.n) - floor
        for group, look in looks.items():
            rows = table.group == int(group)
            if rows.any():
                label = names.get(group, "alone of its size")
                dots = {**look, "linestyle": "none", "label": label}
                axes.plot(table.aspect[rows], 100 * np.expm1(above[rows]), **dots)
        axes.plot(grid, 100 * np.expm1(cost - floor), color=GREY, label="regression")
        log_axis(axes, "x")
        resize(figure, 1, legend_below(axes, axes.get_lines()))
    return figure

"""The figure of the tokens and the compute that models of each size need to reach a loss."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.scaling_laws.efficiency import Efficiency, Reached
from lmsat_plugin.figures.style import GREY, REFERENCE, STYLE, legend_below, log_axis, looks_of, resize


def efficiency_figure(result: Efficiency) -> Figure:
    """Draw losses by tokens, and the tokens and the compute that each size needs to reach each loss.

    Bars span the two checkpoints between which the loss is reached. An open mark is an upper bound: the model's first
    checkpoint has reached the loss already.
    """
    losses = [f"{best.loss:g}" for best in result.best]
    by_loss = {
        f"{best.loss:g}": [row for row in result.reached if row.loss == best.loss and row.tokens is not None]
        for best in result.best
    }
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        curves, tokens, compute = figure.subplots(1, 3)
        lines = _draw_curves(curves, result)
        looks = looks_of(losses)
        for axes in (tokens, compute):
            for loss, rows in by_loss.items():
                _draw_needed(axes, rows, "tokens" if axes is tokens else "flops", looks[loss])
            axes.set_xlabel("parameters")
            log_axis(axes, "x")
            log_axis(axes, "y")
        tokens.set_title("(b) Tokens to reach a loss")
        tokens.set_ylabel("tokens")
        compute.set_title("(c) Compute to reach a loss")
        compute.set_ylabel("FLOP")
        handles = [Line2D([], [], label=f"loss {loss}", **looks[loss]) for loss in losses]
        if any(row.at_most for row in result.reached):
            open_: dict[str, Any] = {"color": GREY, "markerfacecolor": "white", "markeredgecolor": GREY, "marker": "o"}
            handles.append(Line2D([], [], linestyle="none", label="at most: first checkpoint", **open_))
        lines = max(lines, legend_below(tokens, handles))
        resize(figure, 3, lines)
    return figure


def _draw_curves(axes: Axes, result: Efficiency) -> int:
    axes.set_title("(a) Loss and its least so far")
    axes.set_xlabel("tokens")
    axes.set_ylabel("loss (nats per token)")
    models = [row.model for row in result.reached[: len(result.reached) // len(result.best)]]
    handles = []
    for model, look in looks_of(models).items():
        run = result.table[result.table.model == model].sort_values("tokens")
        colour = look["color"]
        axes.plot(run.tokens, run.loss, ".", color=colour, markersize=3, markeredgewidth=0)
        handles += axes.plot(run.tokens, run.loss.cummin(), color=colour, label=model)
    log_axis(axes, "x")
    for best in result.best:
        axes.axhline(best.loss, color=GREY, **REFERENCE)
    return legend_below(axes, handles)


def _draw_needed(axes: Axes, rows: list[Reached], what: str, look: dict[str, Any]) -> None:
    """Draw ``tokens`` or ``flops`` by size."""
    axes.plot([row.n_params for row in rows], [getattr(row, what) for row in rows], **look)
    for row in rows:
        value, tokens = getattr(row, what), row.tokens
        assert tokens is not None
        if row.at_most:
            open_mark = {**look, "markerfacecolor": "white", "markeredgecolor": look["color"]}
            axes.plot([row.n_params], [value], **open_mark)
        elif row.low is not None and row.high is not None:
            ends = [value * row.low / tokens, value * row.high / tokens]
            axes.plot([row.n_params] * 2, ends, color=look["color"], linewidth=0.8)

"""The figure of the tokens and the compute that models of each size need to reach a loss."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.scaling_laws.efficiency import Efficiency, Reached
from lmsat_plugin.figures.style import GREY, REFERENCE, legend_below, log_axis, looks_of, resize, styled, subplots


@styled
def efficiency_figure(result: Efficiency) -> Figure:
    """Draw losses by tokens, and the tokens and the compute that each size needs to reach each loss.

    Bars span the two checkpoints between which the loss is reached. An open mark is an upper bound: the model's first
    checkpoint has reached the loss already.
    """
    by_loss = {
        f"{best.loss:g}": [row for row in result.reached if row.loss == best.loss and row.tokens is not None]
        for best in result.best
    }
    looks = looks_of(by_loss)
    figure, (curves, tokens, compute) = subplots(3)
    lines = _draw_curves(curves, result)
    for axes, what in ((tokens, "tokens"), (compute, "flops")):
        for loss, rows in by_loss.items():
            _draw_needed(axes, rows, what, looks[loss])
        log_axis(axes, "x")
        log_axis(axes, "y")
    tokens.set(title="(b) Tokens to reach a loss", xlabel="parameters", ylabel="tokens")
    compute.set(title="(c) Compute to reach a loss", xlabel="parameters", ylabel="FLOP")
    handles = [Line2D([], [], label=f"loss {loss}", **look) for loss, look in looks.items()]
    if any(row.at_most for row in result.reached):
        open_: dict[str, Any] = {"color": GREY, "markerfacecolor": "white", "markeredgecolor": GREY, "marker": "o"}
        handles.append(Line2D([], [], linestyle="none", label="at most: first checkpoint", **open_))
    resize(figure, max(lines, legend_below(tokens, handles)))
    return figure


def _draw_curves(axes: Axes, result: Efficiency) -> int:
    axes.set(title="(a) Loss and its least so far", xlabel="tokens", ylabel="loss (nats per token)")
    models = [row.model for row in result.reached[: len(result.reached) // len(result.best)]]
    handles = []
    for model, look in looks_of(models).items():
        run = result.table[result.table.model == model].sort_values("tokens")
        axes.plot(run.tokens, run.loss, ".", color=look["color"], markersize=3, markeredgewidth=0)
        handles += axes.plot(run.tokens, run.loss.cummin(), color=look["color"], label=model)
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
            axes.plot([row.n_params], [value], **{**look, "markeredgecolor": look["color"], "markerfacecolor": "white"})
        elif row.low is not None and row.high is not None:
            ends = [value * row.low / tokens, value * row.high / tokens]
            axes.plot([row.n_params] * 2, ends, color=look["color"], linewidth=0.8)

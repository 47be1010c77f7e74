"""A figure for reports: how the share of one direction changes in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsat_plugin import ReportFigure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def share_by_step(shares: pd.DataFrame) -> ReportFigure:
    """Return the figure of the last layer's share by training step, a line for each model."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="training step", ylabel="share of one direction", xscale="symlog")
        for model, rows in shares.sort_values("step").groupby("model"):
            axes.plot(rows.step.astype(float), rows.value, marker="o", label=model)
        axes.legend()
        return figure

    last = shares.sort_values("step").iloc[-1]
    return ReportFigure(
        name="principal-component",
        title="Share of the last layer's variance in one direction",
        source="",
        alt=f"The share by training step; at step {last.step} of {last.model} it is {last.value:.2f}.",
        draw=draw,
    )

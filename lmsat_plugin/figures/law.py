"""The figure of a fitted scaling law: losses observed beside those that the law predicts.

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from lmsat_plugin.analysis.scaling_laws.fitted_law import FittedLaw, Predictions
from lmsat_plugin.analysis.scaling_laws.laws import COUNTS
from lmsat_plugin.figures.style import BAND, GREY, PALETTE, REFERENCE, legend_below, log_axis, resize, styled, subplots

_LABELS = {
    "D": "tokens",
    "C": "compute (PF-days)",
    "S": "steps S_min",
    "T": "position in the context",
    "loss": "loss (nats per token)",
}
_FITTED: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4}
_PREDICTED = {**_FITTED, "marker": "^"}
_LAW: dict[str, Any] = {
    **{"linestyle": "none", "marker": "_", "markersize": 6},
    **{"markeredgewidth": 0.8, "markeredgecolor": GREY},
}
_CURVE_POINTS = 200
_MOST_MODELS = 7


@styled
def fit_figure(fit: FittedLaw, predictions: Predictions | None = None) -> Figure:
    """Draw losses and the law, and the gaps (observed − predicted) / predicted, against size or compute.

    A law of one variable is a curve with its 90 % interval. A law of several is a curve for each model, or a dash for
    a model with one point. Where a law is fitted to each model alone, colours tell the models apart. ``predictions``
    are those for a table that was not fitted: triangles, with bars for the 90 % intervals of new runs.
    """
    fits = (fit, *fit.others) if fit.law.by_model else (fit,)
    figure, panels = subplots(2)
    losses, gaps = panels
    losses.set(title=f"(a) {fit.law.formula}", ylabel=f"{fit.law.target.replace('_', ' ')} (nats per token)")
    gaps.set(title="(b) Gap to the law", ylabel="(observed − predicted) / predicted")
    handles: list[Artist] = []
    for index, law in enumerate(fits):
        look = {**_FITTED, "color": PALETTE[index % len(PALETTE)]}
        rows = replace(law, others=()).predict(law.points.table).rows
        _draw(panels, law, rows, look)
        _draw_law(losses, law, [rows] if predictions is None else [rows, predictions.rows])
        handles.append(Line2D([], [], label=law.model or "fitted", **look))
    if predictions is not None:
        for index, (label, rows) in enumerate(_by_model(predictions.rows)):
            look = {**_PREDICTED, "color": PALETTE[1 + index]}
            _draw(panels, fit, rows, look)
            losses.vlines(_x(fit, rows), rows.low, rows.high, color=look["color"], linewidth=0.8, alpha=0.6)
            handles.append(Line2D([], [], label=label, **look))
    handles += _explained(fit)
    for axes in (losses, gaps):
        axes.set_xlabel(_label(fit))
        if fit.law.size != "loss":
            log_axis(axes, "x")
    gaps.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    gaps.axhline(0, color=GREY, **REFERENCE)
    resize(figure, 1 + legend_below(losses, handles))
    return figure


def _label(fit: FittedLaw) -> str:
    variables = fit.law.columns
    if {"N", "D"} <= set(variables):
        return f"compute 6ND (FLOP), N {COUNTS[fit.count or 'n_params']}"
    shown = "S" if "S" in variables else fit.law.size
    return COUNTS[fit.count or "n_params"] if shown == "N" else _LABELS[shown]


def _x(fit: FittedLaw, rows: pd.DataFrame) -> np.ndarray:
    """Return the points' values on the x axis, shape [P]."""
    values = fit.law.read(rows, fit.count, observed=False).values
    if {"N", "D"} <= set(values):
        return 6 * values["N"] * values["D"]
    return values["S" if "S" in values else fit.law.size]


def _by_model(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return each model's label and rows, or one label and all rows where models are too many for colours."""
    if "model" not in rows or rows.model.nunique() > _MOST_MODELS:
        return [("not fitted", rows)]
    return [(f"{model}, not fitted", own) for model, own in rows.groupby("model", sort=False)]


def _draw(panels: Sequence[Axes], fit: FittedLaw, rows: pd.DataFrame, look: dict[str, Any]) -> None:
    """Draw losses in the first panel and gaps in the second."""
    x_P = _x(fit, rows)
    panels[0].plot(x_P, rows.observed, **look)
    panels[1].plot(x_P, rows.gap, **look)


def _draw_law(axes: Axes, fit: FittedLaw, tables: list[pd.DataFrame]) -> None:
    """Draw the law's predictions over the range of the tables, with their interval."""
    rows = pd.concat(tables)
    if len(fit.law.columns) == 1:
        column = next(iter(fit.law.columns.values()))
        column = fit.count if column in COUNTS and fit.count else column
        space = np.linspace if fit.law.size == "loss" else np.geomspace
        curve = pd.DataFrame({column: space(rows[column].min(), rows[column].max(), _CURVE_POINTS)})
        rows = replace(fit, others=()).predict(curve.assign(model=fit.model)).rows
        axes.plot(rows[column], rows.predicted, color=GREY)
        axes.fill_between(rows[column], rows.mean_low, rows.mean_high, color=GREY, **BAND)
        return
    for _, own in rows.groupby("model") if "model" in rows else [("", rows)]:
        x_P = _x(fit, own)
        order = np.argsort(x_P)
        if len(own) > 1 and "model" in own:
            axes.plot(x_P[order], own.predicted.iloc[order], color=GREY, linewidth=0.8, zorder=1)
            ends = own.mean_low.iloc[order], own.mean_high.iloc[order]
            axes.fill_between(x_P[order], *ends, color=GREY, **BAND)
        else:
            axes.vlines(x_P, own.mean_low, own.mean_high, color=GREY, alpha=BAND["alpha"], linewidth=2)
            axes.plot(x_P, own.predicted, **_LAW, zorder=1)


def _explained(fit: FittedLaw) -> list[Artist]:
    handles: list[Artist] = [Line2D([], [], label="the law", color=GREY, marker="_", markeredgecolor=GREY)]
    if len(fit.theta_RQ) > 1:
        handles.append(Patch(color=GREY, label="its 90 % interval", **BAND))
    return handles

"""The figures of scaling: losses by tokens, compute and size; models beside published laws; the cost of repeated data.

Numbers of equations and figures are those of Kaplan et al. 2020, unless another paper is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.checkpoint_values import over_runs
from lmsat_plugin.analysis.scaling_laws import FittedLaw, kaplan
from lmsat_plugin.analysis.scaling_laws.allocation import BESIROGLU, HOFFMANN, Chinchilla
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.style import BAND, GREY, PALETTE, REFERENCE, finish, log_axis, styled, subplots

LABELS = {
    "n_params_non_embedding": "parameters without embeddings",
    "n_params": "parameters",
    "tokens": "tokens",
    "flops": "compute 6ND (FLOP)",
}
"""The labels of columns on an axis."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (6, 3)))
_PENALTIES = (0.01, 0.02, 0.05)


@styled
def curves_figure(table: pd.DataFrame, models: ModelLooks) -> Figure:
    """Draw losses during training against tokens and, where sizes are known, against compute (Figs. 1 and 2).

    Args:
        table: ``model, group, tokens, flops, value``: tokens above 0, ``flops`` 6ND or NaN. Runs of one group are drawn
            as their mean, with a band from the least to the greatest.
        models: The looks of the groups.
    """
    columns = ["tokens", "flops"] if table.flops.notna().any() else ["tokens"]
    figure, panels = subplots(len(columns))
    marks: list[Artist] = []
    for axes, column in zip(panels, columns, strict=True):
        pooled = over_runs(table[table[column].notna()], column)
        for model in models.sizes:
            rows = pooled[pooled.model == model].sort_values(column)
            look = models.line(model, len(rows))
            axes.plot(rows[column], rows.value, **look)
            if rows.low.notna().any():
                axes.fill_between(rows[column], rows.low, rows.high, color=look["color"], **BAND)
                marks = [Patch(color=GREY, label="mean of runs, from the least to the greatest", **BAND)]
        _log_log(axes, LABELS[column], "loss (nats per token)")
    _letters(panels)
    models.finish(figure, marks)
    return figure


@styled
def power_laws_figure(table: pd.DataFrame, fits: Mapping[str, FittedLaw | None], models: ModelLooks) -> Figure:
    """Draw final losses against size, data and compute, with fitted power laws (Fig. 1).

    Args:
        table: ``model, loss`` and the columns that are keys of ``fits``, a row for each model.
        fits: The law of each column, a key of `LABELS`; None where there is no law.
        models: The looks of the models.
    """
    figure, panels = subplots(len(fits))
    marks: list[Artist] = []
    for axes, (column, fit) in zip(panels, fits.items(), strict=True):
        _draw_models(axes, table[table[column].notna()], models, x=column, y="loss")
        if fit is not None:
            _draw_law(axes, fit, 1.0 if column != "flops" else kaplan.PF_DAY)
            marks = [Line2D([], [], color=GREY, label="fitted law, 90 % interval")]
        _log_log(axes, LABELS[column], "final loss (nats per token)")
    _letters(panels)
    models.finish(figure, marks)
    return figure


def _draw_law(axes: Axes, fit: FittedLaw, unit: float) -> None:
    rows = fit.predict(fit.points.table).rows
    column = fit.count if fit.count and "N" in fit.law.columns else fit.law.columns[fit.law.size]
    rows = rows.sort_values(column)
    axes.plot(unit * rows[column], rows.predicted, color=GREY, zorder=1)
    axes.fill_between(unit * rows[column], rows.mean_low, rows.mean_high, color=GREY, **BAND)


@styled
def overfitting_figure(table: pd.DataFrame, models: ModelLooks) -> Figure:
    """Draw each model's data beside the data that the published law of overfitting asks for (eq. 4.3, Fig. 9).

    ``table`` has ``model, n_params_non_embedding, tokens``, a row for each model. A line is the number of tokens at
    which training on repeated data ends so many per cent above the loss of unlimited data.
    """
    n = table.n_params_non_embedding.to_numpy("float64")
    figure, (axes,) = subplots()
    grid = np.geomspace(n.min() / 3, n.max() * 3, 50)
    marks: list[Artist] = []
    for penalty, dashes in zip(_PENALTIES, _DASHES, strict=False):
        label = f"loss {100 * penalty:g} % above that of unlimited data"
        look = {"color": GREY, "linestyle": dashes, "linewidth": 0.8, "label": label}
        marks += axes.plot(grid, kaplan.data_needed(grid, penalty), **look)
    _draw_models(axes, table, models, x="n_params_non_embedding", y="tokens")
    _log_log(axes, LABELS["n_params_non_embedding"], "tokens of different text")
    models.finish(figure, marks)
    return figure


@styled
def critical_batch_figure(table: pd.DataFrame, models: ModelLooks) -> Figure:
    """Draw critical batches by loss, measured and by the published law B_* / L^(1/α_B) (eq. 1.4, Fig. 10).

    ``table`` has ``model, loss, value, stderr``, the value in tokens.
    """
    figure, (axes,) = subplots()
    for model, look in models.looks.items():
        rows = table[table.model == model].sort_values("loss")
        # A logarithmic axis cannot show a bar down to 0.
        errors = np.stack([np.minimum(rows.stderr, 0.9 * rows.value), rows.stderr])
        axes.errorbar(rows.loss, rows.value, errors, elinewidth=0.8, linestyle="none", **look)
    grid = np.geomspace(table.loss.min() / 1.1, table.loss.max() * 1.1, 50)
    law = {"color": GREY, "label": "Kaplan et al. 2020, eq. 1.4", **REFERENCE}
    marks = axes.plot(grid, kaplan.critical_batch(grid), **law)
    _log_log(axes, "loss (nats per token)", "critical batch (tokens)")
    axes.invert_xaxis()
    models.finish(figure, marks)
    return figure


@styled
def allocation_figure(table: pd.DataFrame, models: ModelLooks, own: Chinchilla | None = None) -> Figure:
    """Draw each model's size and compute beside the best sizes by several laws (Fig. 14; Hoffmann et al. 2022, Fig. 1).

    ``table`` has ``model, flops, n_params``, a row for each model. ``own`` is a law that was fitted to these models.
    Kaplan's line is of parameters without embeddings.
    """
    laws = [HOFFMANN, BESIROGLU, *([] if own is None else [own])]
    figure, (axes,) = subplots()
    grid = np.geomspace(table.flops.min() / 3, table.flops.max() * 3, 50)
    advice = {"Kaplan et al. 2020 (no embeddings)": kaplan.compute_optimal(grid / kaplan.PF_DAY).n_opt}
    advice |= {law.name: np.array([law.n_opt(float(flops)) for flops in grid]) for law in laws}
    marks: list[Artist] = []
    for (name, n_opt), dashes in zip(advice.items(), _DASHES, strict=False):
        marks += axes.plot(grid, n_opt, color=GREY, linestyle=dashes, label=name)
    _draw_models(axes, table, models, x="flops", y="n_params")
    _log_log(axes, LABELS["flops"], "parameters")
    models.finish(figure, marks)
    return figure


@styled
def w_error_figure(table: pd.DataFrame, widths: Sequence[int], all_D: np.ndarray | None = None) -> Figure:
    """Draw the W-error of the corpus' n-grams by dimension, and the width of models (Godey et al. 2024, Fig. 7).

    Args:
        table: ``dimension, value``.
        widths: The different hidden sizes of the models, rising.
        all_D: The W-errors of dimensions 1 to D, shape [D], for a finer line; None if they are not known.
    """
    figure, (axes,) = subplots()
    rows = table.sort_values("dimension")
    look: dict[str, Any] = {"color": PALETTE[0], "label": "the corpus' n-grams"}
    if all_D is None:
        line = axes.plot(rows.dimension, rows.value, marker="o", **look)
    else:
        dimensions = np.unique(np.geomspace(1, len(all_D), 300).round()).astype(int)
        line = axes.plot(dimensions, all_D[dimensions - 1], **look)
    axes.set(xlabel="dimension d", ylabel="W-error(d)", ylim=(0, 1))
    for width in widths:
        axes.axvline(width, color=GREY, **REFERENCE)
    shown = ", ".join(f"{width:,}" for width in widths[:6])
    marks = [Line2D([], [], color=GREY, label=f"width of models ({shown})", **REFERENCE)] if widths else []
    log_axis(axes, "x")
    finish(figure, [*line, *marks])
    return figure


def _draw_models(axes: Axes, table: pd.DataFrame, models: ModelLooks, *, x: str, y: str) -> None:
    for row in table.to_dict("records"):
        axes.plot([row[x]], [row[y]], **{**models.looks[row["model"]], "linestyle": "none"})


def _log_log(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    log_axis(axes, "x")
    log_axis(axes, "y")


def _letters(panels: list[Axes]) -> None:
    for letter, axes in zip("abc", panels, strict=False):
        axes.set_title(f"({letter})" if len(panels) > 1 else "")

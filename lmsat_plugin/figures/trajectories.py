"""The figures of losses, scores and geometry in training (Godey et al. 2024, Figs. 1 to 5).

Tables have a row for each checkpoint. Those by step hold at least two steps of each model, all above 0.

Shapes: K checkpoints, L layers with the embeddings, S singular values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from lmsat_plugin.analysis.checkpoint_values import Sizes
from lmsat_plugin.figures.model_looks import SEQUENTIAL, ModelLooks, colour_bar, shortened, size_words
from lmsat_plugin.figures.style import (
    BAND,
    GREY,
    MARKERS,
    REFERENCE,
    ShortNumbers,
    finish,
    log_axis,
    resize,
    styled,
    subplots,
    wrapped,
)
from lmsat_plugin.results.series import AXES, short_count

BEST: dict[str, Any] = {"marker": "*", "markersize": 9, "linestyle": "none", "markeredgewidth": 0.4}
"""How a best checkpoint is marked."""
_LETTERS = 34
_BAR = 0.8
"""Inches for a colour bar."""
_LEAST_GAP = 0.06
"""Between names beside a panel, as a share of its height."""


def step_axis(axes: Axes, steps: np.ndarray, axis: str = "step") -> None:
    """Make the x axis one of training steps, or of another of `AXES`: linear, as in the papers, or logarithmic.

    It is logarithmic where most steps are early.
    """
    axes.set_xlabel(AXES[axis])
    if np.median(steps) < steps.max() / 4:
        log_axis(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        counts = FuncFormatter(lambda value, _: short_count(value))
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if axis == "step" else counts)


@styled
def by_step_figure(
    table: pd.DataFrame,
    models: ModelLooks,
    label: str,
    *,
    best: Mapping[str, tuple[float, float]] | None = None,
    log: bool = False,
) -> Figure:
    """Draw a value by training step, one line for each model (Godey et al. 2024, Figs. 1a and 5).

    Args:
        table: ``model, axis, step, value, stderr``, on one axis, and ``low, high`` of means over runs.
        models: The looks of the models.
        label: Of the y axis.
        best: Step and value of the checkpoint to mark, by model.
        log: Whether the y axis is logarithmic.
    """
    figure, (axes,) = subplots()
    draw_by_step(axes, table, models)
    axes.set_ylabel(label)
    marks: list[Artist] = []
    for model, (step, value) in (best or {}).items():
        if model in models.sizes:
            axes.plot([step], [value], **{**models.looks[model], **BEST}, zorder=5)
            marks = [Line2D([], [], color=GREY, label="best checkpoint", **BEST)]
    if log:
        log_axis(axes, "y")
    models.finish(figure, [*marks, *band_handles([table], models)])
    return figure


def band_handles(tables: Iterable[pd.DataFrame], models: ModelLooks) -> list[Artist]:
    """Return the legend's entries of the bands that `draw_by_step` draws."""
    labels = []
    tables = list(tables)
    if any(_over_runs(table).any() for table in tables):
        labels.append("mean of runs, from the least to the greatest")
    if not models.many and any((table.stderr.notna() & ~_over_runs(table)).any() for table in tables):
        labels.append("± standard error")
    return [Patch(color=GREY, label=label, **BAND) for label in labels]


def _over_runs(table: pd.DataFrame) -> pd.Series:
    return table.get("low", pd.Series(np.nan, index=table.index)).notna()


def draw_by_step(axes: Axes, table: pd.DataFrame, models: ModelLooks) -> None:
    """Draw values by step, bands of runs, and, where models are few, bands of the standard errors that are known."""
    for model in models.sizes:
        rows = table[table.model == model].sort_values("step")
        look = models.line(model, len(rows))
        axes.plot(rows.step, rows.value, label=model, **look)
        if _over_runs(rows).any():
            axes.fill_between(rows.step, rows.low, rows.high, color=look["color"], **BAND)
        elif not models.many and rows.stderr.notna().any():
            ends = rows.value - rows.stderr, rows.value + rows.stderr
            axes.fill_between(rows.step, *ends, color=look["color"], **BAND)
    step_axis(axes, table.step.to_numpy(), axis_of(table))


def axis_of(table: pd.DataFrame) -> str:
    """Return the axis of a table whose rows lie on one."""
    return str(table.axis.iloc[0]) if "axis" in table.columns and len(table) else "step"


@styled
def scores_figure(
    by_task: Mapping[tuple[str, str], pd.DataFrame], chances: Mapping[str, float | None], models: ModelLooks
) -> Figure:
    """Draw scores by training step, a panel for each task and metric, chance dashed.

    Args:
        by_task: Tables as those of `by_step_figure`, by the panel's title and the metric.
        chances: The chance level, by the panel's title; None where it is not known.
        models: The looks of the models.
    """
    figure, panels = subplots(len(by_task))
    for axes, ((title, metric), table) in zip(panels, by_task.items(), strict=True):
        axes.set(title=wrapped(title, _LETTERS), ylabel=metric)
        draw_by_step(axes, table, models)
        if (chance := chances[title]) is not None:
            axes.axhline(chance, color=GREY, **REFERENCE)
    marks: list[Artist] = []
    if any(chance is not None for chance in chances.values()):
        marks.append(Line2D([], [], color=GREY, label="chance", **REFERENCE))
    models.finish(figure, [*marks, *band_handles(by_task.values(), models)])
    return figure


@styled
def extrapolation_figure(points: pd.DataFrame, models: ModelLooks) -> Figure:
    """Draw best and final losses against compute beside the law of the larger models (Godey et al. 2024, Fig. 1b).

    ``points`` has ``model, kind`` (best or final), ``flops, observed, predicted``. A grey line joins each loss with the
    one that the law predicts for its size and tokens.
    """
    figure, (axes,) = subplots()
    final = points[points.kind == "final"].sort_values("flops")
    axes.plot(final.flops, final.predicted, color=GREY, linestyle="--", linewidth=0.8)
    axes.vlines(points.flops, points.predicted, points.observed, color=GREY, linewidth=0.5)
    axes.plot(points.flops, points.predicted, linestyle="none", marker="_", markeredgecolor=GREY)
    for row in points.to_dict("records"):
        look = {**models.looks[row["model"]], "linestyle": "none"}
        axes.plot([row["flops"]], [row["observed"]], **{**look, **(BEST if row["kind"] == "best" else {})})
    axes.set(xlabel="compute 6ND (FLOP)", ylabel="loss (nats per token)")
    log_axis(axes, "x")
    marks: list[Artist] = [Line2D([], [], color=GREY, linestyle="none", marker="o", label="final checkpoint")]
    if (points.kind == "best").any():
        marks.append(Line2D([], [], color=GREY, label="best checkpoint, where earlier", **BEST))
    marks.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label="the law"))
    models.finish(figure, marks)
    return figure


@styled
def anisotropy_figure(by_model: Mapping[str, np.ndarray], models: ModelLooks) -> Figure:
    """Draw the mean cosine of representations by relative depth (Godey et al. 2024, Fig. 2).

    ``by_model`` has the anisotropy of each layer, shape [L]: the first is that of the embeddings, the last that after
    the final norm.
    """
    figure, (axes,) = subplots()
    for model, values_L in by_model.items():
        axes.plot(np.linspace(0, 1, len(values_L)), values_L, **models.line(model, len(values_L)))
    axes.set(xlabel="relative depth (0: embeddings, 1: last)", ylabel="anisotropy (mean cosine)")
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
    models.finish(figure)
    return figure


@styled
def loss_and_anisotropy_figure(table: pd.DataFrame, models: ModelLooks, label: str) -> Figure:
    """Draw losses by step in the colour of the last layer's anisotropy (Godey et al. 2024, Fig. 3).

    ``table`` has ``model, step, value, anisotropy``. Where there are more models than markers, sizes name the models.
    """
    figure, (axes,) = subplots()
    norm = Normalize(0, 1)
    last_values = {}
    for model in models.sizes:
        rows = table[table.model == model].sort_values("step")
        last_values[model] = float(rows.value.iloc[-1])
        axes.plot(rows.step, rows.value, color="#bbbbbb", linewidth=0.6, zorder=1)
        marker = models.looks[model]["marker"]
        dots = {"c": rows.anisotropy, "cmap": SEQUENTIAL, "norm": norm, "marker": marker, "s": 14}
        axes.scatter(rows.step, rows.value, edgecolors="none", zorder=2, **dots)
    axes.set_ylabel(label)
    if (table.value > 0).all() and table.value.max() > 8 * table.value.min():
        log_axis(axes, "y")
    step_axis(axes, table.step.to_numpy(), axis_of(table))
    markers: list[Artist] = []
    if len(models.sizes) > len(MARKERS):
        _name_ends(axes, last_values, models.sizes)
    else:
        looks = {model: {"marker": look["marker"], "linestyle": "none"} for model, look in models.looks.items()}
        markers += [Line2D([], [], color=GREY, label=model, **look) for model, look in looks.items()]
    finish(figure, markers)
    colour_bar(figure, ScalarMappable(norm, SEQUENTIAL), _BAR).set_label("last layer's anisotropy")
    return figure


def _name_ends(axes: Axes, last_values: Mapping[str, float], sizes: Sizes) -> None:
    """Name models by their sizes where their lines end, as far as there is room."""
    before = -np.inf
    for model, value in sorted(last_values.items(), key=lambda item: item[1]):
        at = axes.transAxes.inverted().transform(axes.transData.transform((0, value)))[1]
        if at - before >= _LEAST_GAP:
            before, size = at, sizes[model]
            name = shortened(model) if size is None else size_words(size)
            axes.text(1.01, at, name, transform=axes.transAxes, va="center", fontsize=6, color=GREY)


@styled
def singular_values_figure(
    by_model: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]],
    most: int = 100,
    axes_of: Mapping[str, str] | None = None,
) -> Figure:
    """Draw singular values of the LM head over training, in units of the largest (Godey et al. 2024, Fig. 4).

    Args:
        by_model: The rising steps, shape [K], and each step's singular values, shape [S], from large to small.
        most: The index of the last to draw. The largest is left out: it is always 1.
        axes_of: What the steps of each model are, one of `AXES`; by default training steps.
    """
    figure, panels = subplots(len(by_model))
    shares = {
        model: np.array([values_S[1 : most + 1] / values_S[0] for values_S in spectra]).T
        for model, (_, spectra) in by_model.items()
    }
    least = max(1e-4, min(float(share[share > 0].min()) for share in shares.values()))
    norm = LogNorm(least, 1)
    colours: dict[str, Any] = {"norm": norm, "cmap": SEQUENTIAL, "shading": "nearest", "rasterized": True}
    for axes, (model, shares_SK) in zip(panels, shares.items(), strict=True):
        steps_K, index_S = by_model[model][0], np.arange(1, len(shares_SK) + 1)
        axes.pcolormesh(steps_K, index_S, np.maximum(shares_SK, least), **colours)
        axes.grid(False)
        axes.set(title=wrapped(model, _LETTERS), ylabel="singular value i")
        step_axis(axes, steps_K, (axes_of or {}).get(model, "step"))
    resize(figure, 0)
    bar = colour_bar(figure, ScalarMappable(norm, SEQUENTIAL), _BAR)
    bar.ax.yaxis.set_major_formatter(ShortNumbers())
    bar.set_label("sᵢ / s₀")
    return figure

"""The figure of scores against the loss: models on one curve, chance, and the threshold of emergence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.emergence import Emergence
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.style import (
    BAND,
    GREY,
    LETTERS_WIDE,
    REFERENCE,
    Looks,
    grid_of,
    resize,
    styled,
    subplots,
    wrapped,
)
from lmsat_plugin.results.variants import label


@styled
def emergence_figure(results: Sequence[Emergence], models: ModelLooks | None = None) -> Figure:
    """Draw the scores of each task and metric against the loss, which falls to the right (Du et al. 2024, Fig. 1).

    A panel for each result, a colour for each model, chance dashed. Where an ability is emergent, its threshold is
    drawn with the 90 % interval; elsewhere the curve that explains the scores best, if one was fitted.

    Args:
        results: At least one.
        models: The looks of the models; by default the models come in the order of the results.
    """
    if models is None:
        models = ModelLooks(dict.fromkeys(name for result in results for name in result.scores.table["model"]))
    figure, panels = subplots(len(results))
    for axes, result in zip(panels, results, strict=True):
        _draw(axes, result, models.looks)
    handles = [*models.handles(linestyle="none"), *_marks(results)]
    labels = [wrapped(str(handle.get_label()), LETTERS_WIDE) for handle in handles]
    _, columns = grid_of(len(results))
    lines = max(sum(text.count("\n") + 1 for text in column) for column in np.array_split(labels, columns))
    resize(figure, lines, padding=1)
    figure.legend(handles, labels, loc="lower left", ncols=columns, bbox_to_anchor=(0.02, 0.01)).set_in_layout(False)
    models.add_colour_bar(figure)
    return figure


def _draw(axes: Axes, result: Emergence, looks: Looks) -> None:
    scores, chance = result.scores, result.chance
    axes.set_title(wrapped(label(f"{result.task}, {result.metric}", result.variant), LETTERS_WIDE))
    axes.set_xlabel("loss (nats per token)" if scores.loss == "loss" else scores.loss)
    axes.set_ylabel("score")
    for model, rows in scores.table.groupby("model", sort=True):
        axes.plot(rows["loss"], rows["score"], linestyle="none", label=model, **looks[str(model)])
    if chance is not None:
        axes.axhline(chance, color=GREY, label="chance", **REFERENCE)
    if result.break_fit is not None:
        values_P = result.break_fit.fit_P if result.emergent else result.break_fit.smooth_P
        order_P = np.argsort(scores.losses_P)
        scores_P = scores.sign * values_P + (chance or 0.0)
        name = "break" if result.emergent else "smooth curve"
        axes.plot(scores.losses_P[order_P], scores_P[order_P], color=GREY, label=name)
    if result.threshold is not None and result.low is not None and result.high is not None:
        axes.axvspan(result.low, result.high, color=GREY, label="90 %", **BAND)
        axes.axvline(result.threshold, color=GREY, linestyle=":", label="threshold")
    axes.invert_xaxis()


def _marks(results: Sequence[Emergence]) -> list[Artist]:
    """Return the legend's entries for the lines that are drawn."""
    marks: list[Artist] = []
    if any(result.chance is not None for result in results):
        marks.append(Line2D([], [], color=GREY, label="chance", **REFERENCE))
    if any(result.break_fit is not None for result in results):
        marks.append(Line2D([], [], color=GREY, label="best curve"))
    if any(result.threshold is not None for result in results):
        marks.append(Line2D([], [], color=GREY, linestyle=":", label="threshold"))
        marks.append(Patch(color=GREY, label="its 90 % interval", **BAND))
    return marks

"""Scores against the loss: models on one curve, chance, and the threshold. Imported only where a figure is wanted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.style import (
    BAND,
    GREY,
    LETTERS_WIDE,
    PANEL,
    REFERENCE,
    STYLE,
    Looks,
    wrapped,
)
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from lmsat_plugin.analysis.checkpoint_values import Sizes
    from lmsat_plugin.analysis.emergence import Emergence

_ABREAST = 3
_LEGEND_COLUMNS = 3


def emergence_figure(found: Sequence[Emergence], sizes: Sizes | None = None) -> Figure:
    """Draw the scores of each task and metric against the loss, which falls to the right (Du et al. 2024, Fig. 1).

    A panel for each, a colour for each model, chance dashed; where an ability is emergent its threshold stands with
    the interval of 90 %, else the curve that explains the scores best, if one was fitted. ``sizes`` are the parameters
    of the models: many are told apart by them.
    """
    there = dict.fromkeys(model for one in found for model in one.scores.table["model"])
    models = ModelLooks(
        there if sizes is None else {name: size for name, size in sizes.items() if name in there}
    )
    columns = min(_ABREAST, len(found))
    rows = math.ceil(len(found) / columns)
    with rc_context(STYLE):
        figure = Figure()
        for index, one in enumerate(found):
            _draw(figure.add_subplot(rows, columns, index + 1), one, models.looks)
        handles = [*_models(models), *_marks(found)]
        labels = [wrapped(str(handle.get_label()), LETTERS_WIDE) for handle in handles]
        abreast = min(columns, _LEGEND_COLUMNS)
        columns_of_labels = np.array_split(labels, abreast)
        lines = max(sum(text.count("\n") + 1 for text in column) for column in columns_of_labels)
        legend = (1 + 1.5 * lines) * STYLE["legend.fontsize"] / 72
        height = PANEL[1] * rows + legend
        figure.set_size_inches(PANEL[0] * columns, height)
        figure.set_layout_engine("constrained", rect=(0, legend / height, 1, 1 - legend / height))
        figure.legend(
            handles, labels, loc="lower left", ncols=abreast, bbox_to_anchor=(0.02, 0.01)
        ).set_in_layout(False)
        models.add_colour_bar(figure)
    return figure


def _draw(axes: Axes, one: Emergence, looks: Looks) -> None:
    axes.set_title(wrapped(label(f"{one.task}, {one.metric}", one.variant), LETTERS_WIDE))
    axes.set_xlabel("loss (nats per token)" if one.scores.loss == "loss" else one.scores.loss)
    axes.set_ylabel("score")
    for model, rows in one.scores.table.groupby("model", sort=True):
        axes.plot(rows["loss"], rows["score"], linestyle="none", label=model, **looks[str(model)])
    if one.chance is not None:
        axes.axhline(one.chance, color=GREY, label="chance", **REFERENCE)
    if one.found is not None:
        values_P = one.found.fit_P if one.emergent else one.found.smooth_P
        order_P = np.argsort(one.scores.losses_P)
        scores_P = one.scores.sign * values_P + (one.chance or 0.0)
        name = "break" if one.emergent else "smooth curve"
        axes.plot(one.scores.losses_P[order_P], scores_P[order_P], color=GREY, label=name)
    if one.threshold is not None and one.low is not None and one.high is not None:
        axes.axvspan(one.low, one.high, color=GREY, alpha=BAND, linewidth=0, label="90 %")
        axes.axvline(one.threshold, color=GREY, linestyle=":", label="threshold")
    axes.invert_xaxis()


def _models(models: ModelLooks) -> list[Artist]:
    if models.many:
        return []
    return [Line2D([], [], linestyle="none", label=model, **look) for model, look in models.looks.items()]


def _marks(found: Sequence[Emergence]) -> list[Artist]:
    """Return what a legend says of lines, as far as they are there."""
    marks: list[Artist] = []
    if any(one.chance is not None for one in found):
        marks.append(Line2D([], [], color=GREY, label="chance", **REFERENCE))
    if any(one.found is not None for one in found):
        marks.append(Line2D([], [], color=GREY, label="best curve"))
    if any(one.threshold is not None for one in found):
        marks.append(Line2D([], [], color=GREY, linestyle=":", label="threshold"))
        marks.append(Patch(color=GREY, alpha=BAND, linewidth=0, label="its 90 % interval"))
    return marks

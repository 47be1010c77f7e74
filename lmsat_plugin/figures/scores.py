"""Figures of downstream scores by training step. Imported only where one is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.style import BAND, GREY, REFERENCE, STYLE, wrapped
from lmsat_plugin.figures.trajectories import draw_by_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.artist import Artist

    from lmsat_plugin.analysis.checkpoint_values import Sizes

_COLUMNS = 3
_LETTERS = 34


def scores_figure(
    by_task: Mapping[tuple[str, str], pd.DataFrame], chances: Mapping[str, float | None], sizes: Sizes
) -> Figure:
    """Draw scores by training step, a panel for each task and metric, with what guessing scores.

    Args:
        by_task: ``model, step, value, stderr`` by task and metric.
        chances: What guessing scores in each task; None where that is not known.
        sizes: Of the models.
    """
    columns = min(_COLUMNS, len(by_task))
    rows = -(-len(by_task) // columns)
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        models = ModelLooks(sizes)
        panels = []
        for index, ((task, metric), table) in enumerate(by_task.items()):
            axes = figure.add_subplot(rows, columns, index + 1)
            panels.append(axes)
            axes.set_title(wrapped(task, _LETTERS))
            axes.set_ylabel(metric)
            draw_by_step(axes, table, models)
            if (chance := chances[task]) is not None:
                axes.axhline(chance, color=GREY, **REFERENCE)
        marks: list[Artist] = []
        if any(chance is not None for chance in chances.values()):
            marks.append(Line2D([], [], color=GREY, label="chance", **REFERENCE))
        if any(axes.collections for axes in panels):
            marks.append(Patch(color=GREY, alpha=BAND, linewidth=0, label="± standard error"))
        lowest = panels[(rows - 1) * columns :]
        models.finish(figure, lowest, marks, rows, columns)
    return figure

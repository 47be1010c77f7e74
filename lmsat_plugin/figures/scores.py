"""The figure of downstream scores by training step."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.style import BAND, GREY, REFERENCE, styled, subplots, wrapped
from lmsat_plugin.figures.trajectories import draw_by_step

_LETTERS = 34


@styled
def scores_figure(
    by_task: Mapping[tuple[str, str], pd.DataFrame], chances: Mapping[str, float | None], models: ModelLooks
) -> Figure:
    """Draw scores by training step, a panel for each task and metric, chance dashed.

    Args:
        by_task: ``model, step, value, stderr`` by task and metric.
        chances: The chance level of each task; None where it is not known.
        models: The looks of the models.
    """
    figure, panels = subplots(len(by_task))
    for axes, ((task, metric), table) in zip(panels, by_task.items(), strict=True):
        axes.set(title=wrapped(task, _LETTERS), ylabel=metric)
        draw_by_step(axes, table, models)
        if (chance := chances[task]) is not None:
            axes.axhline(chance, color=GREY, **REFERENCE)
    marks: list[Artist] = []
    if any(chance is not None for chance in chances.values()):
        marks.append(Line2D([], [], color=GREY, label="chance", **REFERENCE))
    if any(axes.collections for axes in panels):
        marks.append(Patch(color=GREY, label="± standard error", **BAND))
    models.finish(figure, marks)
    return figure

"""Small panels beside each other, one for each metric of a task."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.style import grid_of, log_axis, styled, subplots, wrapped
from lmsat_plugin.figures.trajectories import band_handles, draw_by_step

_LETTERS = 34


@styled
def multiples_figure(by_metric: Mapping[tuple[str, bool], pd.DataFrame], models: ModelLooks) -> Figure:
    """Draw metrics by training step, a panel each.

    Args:
        by_metric: Tables as those of `by_step_figure`, by the metric's label and whether its axis is logarithmic.
        models: The looks of the models.
    """
    figure, panels = subplots(len(by_metric))
    _, columns = grid_of(len(panels))
    for place, (axes, ((label, log), table)) in enumerate(zip(panels, by_metric.items(), strict=True)):
        draw_by_step(axes, table, models)
        axes.set_title(wrapped(label, _LETTERS))
        if place + columns < len(panels):
            axes.set_xlabel("")
        if log:
            log_axis(axes, "y")
    models.finish(figure, band_handles(by_metric.values(), models))
    return figure

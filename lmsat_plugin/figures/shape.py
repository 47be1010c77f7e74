"""The figure of the loss by a model's shape, width over depth, at a fixed size."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lmsat_plugin.analysis.scaling_laws.shape import ShapeDependence
from lmsat_plugin.figures.style import GREY, finish, log_axis, looks_of, short_number, styled, subplots


@styled
def shape_figure(result: ShapeDependence) -> Figure:
    """Draw losses by aspect ratio, in per cent above the regression's least at the same size, and the regression."""
    figure, (axes,) = subplots()
    axes.set(title="Loss and shape at a fixed size", xlabel="aspect ratio (width / depth)")
    axes.set_ylabel("loss above the regression's least (%)")
    table = result.table
    grid = np.geomspace(table.aspect.min(), table.aspect.max(), 200)
    cost, floor = result.cost(grid), result.cost(grid).min()
    names = {
        str(group): f"about {short_number(models.n_params)} parameters" for group, models in enumerate(result.groups)
    }
    looks = looks_of([*names, "-1"])
    above = np.log(table.loss) - result.level - result.alpha_n.value * -np.log(table.n) - floor
    for group, look in looks.items():
        rows = table.group == int(group)
        if rows.any():
            dots = {**look, "linestyle": "none", "label": names.get(group, "alone of its size")}
            axes.plot(table.aspect[rows], 100 * np.expm1(above[rows]), **dots)
    axes.plot(grid, 100 * np.expm1(cost - floor), color=GREY, label="regression")
    log_axis(axes, "x")
    finish(figure, axes.get_lines())
    return figure

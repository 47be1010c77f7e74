"""The figure of a leaderboard: dots with 90 % intervals, the best model at the top.

Shapes: K models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmsat_plugin.analysis.stats.bootstrap import NORMAL
from lmsat_plugin.figures.style import LETTERS_WIDE, PALETTE, PANEL, new_figure, styled, wrapped
from lmsat_plugin.ranking.columns import Column
from lmsat_plugin.ranking.leaderboard import Leaderboard

_ROW = 0.24
"""Inches for each model."""
_DOTS: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": PALETTE[0], "elinewidth": 1, "capsize": 2}


@styled
def leaderboard_figure(board: Leaderboard) -> Figure:
    """Draw the values that models are ranked by and their downstream average, the best model at the top.

    Where standard errors are known, each value has its 90 % interval. A model's rank stands before its name.
    """
    shown = [column for column in board.columns if column.name in {board.ranked_by.name, "downstream"}]
    shown.sort(key=lambda column: column != board.ranked_by)
    figure = new_figure()
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, shown, strict=True):
        _draw(axes, board, column)
    ranks = ("" if row.get("rank") is None else f"{row['rank']}. " for row in board.rows)
    names = [wrapped(f"{rank}{row['model']}", LETTERS_WIDE) for rank, row in zip(ranks, board.rows, strict=True)]
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    lines = sum(name.count("\n") + 1 for name in names)
    if isinstance(figure, Figure):
        figure.set_size_inches(PANEL[0] * (len(shown) + 0.6), 0.9 + max(3, lines) * _ROW)
    return figure


def _draw(axes: Axes, board: Leaderboard, column: Column) -> None:
    values_K, stderrs_K = (
        np.array([row.get(name) for row in board.rows], dtype=np.float64)
        for name in (column.name, f"{column.name}_stderr")
    )
    known = np.isfinite(stderrs_K).any()
    # A mean over few runs has a wider interval than its standard error says.
    highs_K = np.array([row.get(f"{column.name}_high") for row in board.rows], dtype=np.float64)
    intervals_K = np.where(np.isfinite(highs_K), highs_K - values_K, NORMAL * stderrs_K) if known else None
    axes.errorbar(values_K, np.arange(len(values_K)), xerr=intervals_K, **_DOTS)
    axes.set_xlabel(column.title_with_unit + (", with 90 % intervals" if known else ""))
    axes.set_title("higher is better" if column.higher_is_better else "lower is better")
    axes.tick_params(axis="y", length=0)

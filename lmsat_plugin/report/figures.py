"""All figures that a tree of results can fill. Imported only where they are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsat_plugin.report.cards_of_results import cards_of
from lmsat_plugin.report.report_figure import ReportFigure
from lmsat_plugin.report.scaling_of_results import scaling_figures_of
from lmsat_plugin.report.scores_of_results import score_figures_of
from lmsat_plugin.report.trajectories_of_results import trajectory_figures_of

if TYPE_CHECKING:
    from lmsat_plugin.report.collected import Collected

__all__ = ["ReportFigure", "figures_of"]


def figures_of(collected: Collected) -> list[ReportFigure]:
    """Return the figures that the results can fill: a card for each model, then those of the papers.

    Their names differ. None is empty.
    """
    return [
        *cards_of(collected),
        *trajectory_figures_of(collected),
        *scaling_figures_of(collected),
        *score_figures_of(collected),
    ]

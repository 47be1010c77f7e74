"""All figures that a tree of results can fill. Imported only where they are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.card_figures import cards_of
from lmsat_plugin.page.scaling_figures import scaling_figures_of
from lmsat_plugin.page.score_figures import score_figures_of
from lmsat_plugin.page.training_figures import trajectory_figures_of

if TYPE_CHECKING:
    from lmsat_plugin.analysis.analyses import Analyses

__all__ = ["ReportFigure", "figures_of"]


def figures_of(analyses: Analyses) -> list[ReportFigure]:
    """Return the figures that the results can fill: a card for each model, then those of the papers.

    Their names differ. None is empty.
    """
    return [
        *cards_of(analyses),
        *trajectory_figures_of(analyses),
        *scaling_figures_of(analyses),
        *score_figures_of(analyses),
    ]

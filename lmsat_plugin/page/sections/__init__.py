"""Which figures the results can fill, section by section, in the order in which the page shows them."""

from __future__ import annotations

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections import cards, every_metric, published_laws, scaling, scores, training


def all_figures(analyses: Analyses) -> list[ReportFigure]:
    """Return the figures that the results can fill, of all parts of all sections. None is empty."""
    parts = (*cards.PARTS, *training.PARTS, *scaling.PARTS, *published_laws.PARTS, *scores.PARTS, *every_metric.PARTS)
    return [figure for part in parts for figure in part(analyses)]

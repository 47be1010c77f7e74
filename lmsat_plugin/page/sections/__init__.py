"""Which figures the results can fill, section by section, in the order in which the page shows them."""

from __future__ import annotations

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections import cards, events, every_metric, published_laws, scaling, scores, training


def all_figures(analyses: Analyses) -> list[ReportFigure]:
    """Return the figures that the results can fill, of all parts of all sections. None is empty."""
    sections = (cards, events, training, scaling, published_laws, scores, every_metric)
    return [figure for section in sections for part in section.PARTS for figure in part(analyses)]

"""Emergence from the loss perspective (Du et al. 2024): at which loss a task's scores exceed chance."""

from lmsat_plugin.analysis.emergence.finding import Emergence, find_emergence
from lmsat_plugin.analysis.emergence.points import Scores, scores_of

__all__ = ["Emergence", "Scores", "find_emergence", "scores_of"]

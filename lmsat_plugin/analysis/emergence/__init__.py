"""Emergence (Du et al. 2024): the loss from which on a task's scores exceed chance."""

from lmsat_plugin.analysis.emergence.by_task import Emergence, find_emergence
from lmsat_plugin.analysis.emergence.points import Scores, scores_of

__all__ = ["Emergence", "Scores", "find_emergence", "scores_of"]

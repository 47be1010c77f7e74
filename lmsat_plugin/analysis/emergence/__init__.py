"""Scores from losses: where they exceed chance, and those of larger models, from losses or from compute."""

from lmsat_plugin.analysis.emergence.by_task import Emergence, find_emergence
from lmsat_plugin.analysis.emergence.direct_scores import DirectFit, fit_direct
from lmsat_plugin.analysis.emergence.points import Scores, scores_of
from lmsat_plugin.analysis.emergence.target_scores import TargetScore, predict_scores

__all__ = [
    "DirectFit",
    "Emergence",
    "Scores",
    "TargetScore",
    "find_emergence",
    "fit_direct",
    "predict_scores",
    "scores_of",
]

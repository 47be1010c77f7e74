"""Scores from losses: where they exceed chance (Du et al. 2024), and those of larger models (Bhagia et al. 2024)."""

from lmsat_plugin.analysis.emergence.by_task import Emergence, find_emergence
from lmsat_plugin.analysis.emergence.points import Scores, scores_of
from lmsat_plugin.analysis.emergence.target_scores import TargetScore, predict_scores

__all__ = ["Emergence", "Scores", "TargetScore", "find_emergence", "predict_scores", "scores_of"]

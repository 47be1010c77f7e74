"""The rank that a model's LM head needs (Godey et al. 2024, Sec. 5)."""

from lmsat_plugin.analysis.rank_needed.by_checkpoint import CheckpointRanks, find_rank_needed
from lmsat_plugin.analysis.rank_needed.dimension import w_error
from lmsat_plugin.analysis.rank_needed.rank_curve import CURVES, RankCurve, by_rank, rank_needed

__all__ = ["CURVES", "CheckpointRanks", "RankCurve", "by_rank", "find_rank_needed", "rank_needed", "w_error"]

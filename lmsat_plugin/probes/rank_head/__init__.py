"""Losses with LM heads of lower rank: truncated, and trained at their rank."""

from lmsat_plugin.probes.rank_head.probe import RankHeadProbe

__all__ = ["RankHeadProbe"]

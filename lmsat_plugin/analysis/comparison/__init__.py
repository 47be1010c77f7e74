"""Whether the difference between two models is real: paired, with its interval, and how much the data could show."""

from __future__ import annotations

from lmsat_plugin.analysis.comparison.comparing import Comparison, PairComparison, compare

__all__ = ["Comparison", "PairComparison", "compare"]

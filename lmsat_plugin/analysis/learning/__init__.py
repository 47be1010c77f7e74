"""What changes between successive checkpoints of a run: which tokens' losses fall, which rise, and how much cancels."""

from lmsat_plugin.analysis.learning.changes import LossChange, PartChange, interference
from lmsat_plugin.analysis.learning.runs import RunLearning, find_learning

__all__ = ["LossChange", "PartChange", "RunLearning", "find_learning", "interference"]

"""Emergence from the loss perspective (Du et al. 2024): at which loss a task's scores leave chance."""

from lmsat_plugin.analysis.comparable import (
    bits_per_byte,
    size_threshold,
    unigram_nats,
    unigram_normalised_perplexity,
)
from lmsat_plugin.analysis.emergence.analysis import Emergence, find_emergence
from lmsat_plugin.analysis.emergence.points import Scores, scores_of

__all__ = [
    "Emergence",
    "Scores",
    "bits_per_byte",
    "find_emergence",
    "scores_of",
    "size_threshold",
    "unigram_nats",
    "unigram_normalised_perplexity",
]

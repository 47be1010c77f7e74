"""Sequences of a corpus for a probe's own passes: cut one after another, drawn in an order that is always the same."""

from __future__ import annotations

import random

import numpy as np

from lmsat_plugin.model.anatomy import position_limit
from lmsat_plugin.probe import ProbeContext
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.windows import Window, most_scored


def longest_sequence(context: ProbeContext, most: int) -> int:
    """Return how many tokens a sequence may score: ``most``, or fewer where the window or the model takes fewer."""
    assert context.corpus is not None
    window = min(context.corpus.window, position_limit(context.model) or context.corpus.window)
    return min(most, most_scored(window, context.corpus.prefix_policy))


def draw_sequences(corpus: TokenizedCorpus, length: int, tokens: int) -> list[Window]:
    """Return sequences of at most ``length`` tokens, each once, until they score so many tokens.

    Of the sequence before its own a token sees the last token alone; with ``prefix=window`` each begins with the prefix
    token.
    """
    stretches = []
    for index, document in enumerate(corpus.documents):
        whole = np.concatenate([[corpus.prefix], document.tokens])
        for start in range(0, len(whole) - 1, length):
            own = whole[start : start + length + 1]
            scored = len(own) - 1
            if start and corpus.prefix_policy == "window":
                own = np.concatenate([[corpus.prefix], own])
            stretches.append(Window(document=index, tokens=own, scored=scored))
    random.Random(0).shuffle(stretches)
    ends = np.cumsum([stretch.scored for stretch in stretches])
    return stretches[: np.searchsorted(ends, tokens) + 1]

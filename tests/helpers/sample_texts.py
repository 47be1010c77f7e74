"""Enough text to measure on one part of it and to train on another."""

from __future__ import annotations

import functools

from lmsat_plugin.text.corpora import CorpusSettings, sample


@functools.cache
def sample_texts() -> list[str]:
    """Return texts of which none is another's."""
    return [text[:1500] for text in list(sample(CorpusSettings()))[:60] if text]

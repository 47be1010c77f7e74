"""Losses that compare across tokenizers: bits per byte, and unigram-normalised perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from lmsat_plugin.errors import LmsatError


def bits_per_byte(nats_per_token: float, tokens: int, n_bytes: int) -> float:
    """Return nats · tokens / (ln 2 · bytes), bytes of UTF-8: the same text has the same bytes for every tokenizer.

    Raises `LmsatError` for counts below 1.
    """
    if tokens < 1 or n_bytes < 1:
        raise LmsatError(f"{tokens} tokens of {n_bytes} bytes have no bits per byte: give counts from 1 on")
    return nats_per_token * tokens / (math.log(2) * n_bytes)


def unigram_nats(documents: Iterable[np.ndarray]) -> float:
    """Return the loss of the unigram model, nats per token: −1/T Σ_t ln p(w_t), p a token's share of the T tokens.

    ``documents`` are arrays of token ids, any integers from 0 on; the entropy of their counts. Raises `LmsatError`
    if they hold no token.
    """
    counts = np.zeros(0, dtype=np.int64)
    for tokens in documents:
        of_document = np.bincount(np.asarray(tokens, dtype=np.int64), minlength=len(counts))
        of_document[: len(counts)] += counts
        counts = of_document
    shares = counts[counts > 0] / max(1, counts.sum())
    if not len(shares):
        raise LmsatError("no tokens, no unigrams: give documents that are not empty")
    return float(-(shares * np.log(shares)).sum())


def unigram_normalised_perplexity(nats: float, unigram: float) -> float:
    """Return PPLu = exp(−1/T Σ_t ln(p(w_t | w_<t) / p(w_t))) = e^(nats − unigram) (Roh et al. 2020, arXiv 2011.13220).

    Both in nats per token of the same T tokens; ``unigram`` is what `unigram_nats` returns. Below 1 for a model that
    knows more than frequencies. Its logarithm is the loss L_u of Tao et al. 2024, Eq. 4. Du et al. 2024 name normalised
    perplexity as the way to compare vocabularies; whether they mean this one is not known.
    """
    return math.exp(nats - unigram)

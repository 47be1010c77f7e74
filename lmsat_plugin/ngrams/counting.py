"""Count the n-grams of a corpus exactly, in little memory for any length.

Shapes: N n-grams, V tokens of the vocabulary, B branching contexts: those with several successors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.sparse import csr_array

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams.records import Records

_BLOCK = 1 << 22
SizedT = TypeVar("SizedT", bound=Sized)


@dataclass(frozen=True, kw_only=True)
class NgramCounts:
    """The n-grams of a corpus by context, the n − 1 tokens before a token, which is its successor."""

    order: int
    tokens: int
    """Tokens of the corpus, also those of documents too short for an n-gram."""
    contexts: int
    """Number of distinct contexts."""
    single_contexts_V: np.ndarray
    """Number of contexts whose only successor is this token, int64."""
    single_ngrams_V: np.ndarray
    """How often these contexts occur, int64."""
    branching_BV: csr_array
    """How often each token follows each branching context, int64; the sum of a row is the context's own count."""


def count_ngrams(
    documents: Iterable[np.ndarray], order: int, vocab_size: int, temporary: Path | None = None
) -> NgramCounts:
    """Count the n-grams within each document. Documents are a stream of arrays of token ids below ``vocab_size``.

    Each n-gram is a record: its context as a key of 64 bits, and its successor in 32. About 20 million records stay in
    memory; more go to a nameless file in the folder ``temporary``. Records are parted by key, and the parts are counted
    one after another. If V^(n−1) ≤ 2^64 the key is the context itself, packed and permuted: the counts are exact.
    Otherwise it is a hash, under which C²/2^65 pairs among C contexts are expected to coincide: 3e-4 pairs among 100
    million contexts.

    Raises `LmsatError` if no document has ``order`` tokens, or if the disk is full.
    """
    tokens = 0

    def stretches() -> Iterator[np.ndarray]:
        nonlocal tokens
        for document in documents:
            tokens += len(document)
            for start in range(0, len(document) - order + 1, _BLOCK):
                yield document[start : start + _BLOCK + order - 1]

    tally = _Tally(vocab_size)
    with Records(temporary) as records:
        for block in batches_of(stretches(), _BLOCK):
            records.add(*_keys_and_successors(block, order, vocab_size))
        for keys_N, successors_N in records.parts():
            tally.add(keys_N, successors_N)
    if not tally.contexts:
        raise LmsatError(
            f"no document has {order} tokens ({tokens} in all): give a longer text or a lower order than {order}"
        )
    return tally.counts(order, tokens)


def batches_of(parts: Iterable[SizedT], least: int) -> Iterator[list[SizedT]]:
    """Yield lists of parts whose lengths add up to at least ``least``, but for the last."""
    batch: list[SizedT] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part)
        if size >= least:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _keys_and_successors(stretches: list[np.ndarray], order: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each n-gram's context as a key, uint64, and its successor, int32, both of shape [N]."""
    tokens = np.concatenate(stretches).astype(np.int32, copy=False)
    ends = np.cumsum([len(stretch) for stretch in stretches])
    within = np.ones(len(tokens), dtype=bool)
    for distance in range(1, order):
        within[ends - distance] = False
    within = within[: len(tokens) - order + 1]
    keys_N = np.zeros(len(within), dtype=np.uint64)
    packed = vocab_size ** (order - 1) <= 1 << 64
    for position in range(order - 1):
        if packed:
            keys_N *= np.uint64(vocab_size)
        else:
            _permute(keys_N)
        keys_N += tokens[position : position + len(keys_N)].astype(np.uint64)
    _permute(keys_N)
    return keys_N[within], tokens[order - 1 :][within]


def _permute(keys: np.ndarray) -> None:
    """Replace keys in place by keys with random-looking bits, one to one (SplitMix64, Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    keys ^= keys >> np.uint64(31)


class _Tally:
    """The counts of all parts so far."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self.contexts = 0
        self._single_contexts_V = np.zeros(vocab_size, dtype=np.int64)
        self._single_ngrams_V = np.zeros(vocab_size, dtype=np.int64)
        self._branching: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, keys_N: np.ndarray, successors_N: np.ndarray) -> None:
        """Count one part's contexts, none of which is in another part."""
        v = self._vocab_size
        order = np.argsort(keys_N)
        keys_N, successors_N = keys_N[order], successors_N[order]
        starts = _run_starts(keys_N)
        counts = np.diff(starts, append=len(keys_N))
        single = np.maximum.reduceat(successors_N, starts) == np.minimum.reduceat(successors_N, starts)
        self.contexts += len(starts)
        only = successors_N[starts[single]]
        self._single_contexts_V += np.bincount(only, minlength=v)
        self._single_ngrams_V += np.bincount(only, counts[single], minlength=v).astype(np.int64)
        branching_N = np.repeat(~single, counts)
        rows = np.repeat(np.arange((~single).sum()), counts[~single])
        pairs = rows * v + successors_N[branching_N]
        pairs.sort()
        pair_starts = _run_starts(pairs)
        rows, successors = np.divmod(pairs[pair_starts], v)
        pair_counts = np.diff(pair_starts, append=len(pairs))
        self._branching.append((pair_counts, successors.astype(np.int32), np.bincount(rows)))

    def counts(self, order: int, tokens: int) -> NgramCounts:
        """Return the counts of all parts together."""
        counts, successors, lengths_B = map(np.concatenate, zip(*self._branching, strict=True))
        bounds = np.concatenate([[0], np.cumsum(lengths_B)])
        return NgramCounts(
            order=order,
            tokens=tokens,
            contexts=self.contexts,
            single_contexts_V=self._single_contexts_V,
            single_ngrams_V=self._single_ngrams_V,
            branching_BV=csr_array((counts, successors, bounds), shape=(len(lengths_B), self._vocab_size)),
        )


def _run_starts(ordered: np.ndarray) -> np.ndarray:
    """Return where each run of equal values begins."""
    if not len(ordered):
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

"""Counts of n-grams, exact, in little memory however long the corpus.

Shapes: N n-grams, V tokens of the vocabulary, B branching contexts: those with several successors.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

_BLOCK = 1 << 22
_IN_MEMORY = 1 << 24


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of a corpus by context, the n − 1 tokens before a token, which is its successor."""

    order: int
    tokens: int
    """Tokens of the corpus, those of documents too short for an n-gram included."""
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
    """Count the n-grams within each document, a stream of arrays of token ids below ``vocab_size``.

    Each n-gram is a record of its context, as a key of 64 bits, and its successor, in 32. Some 20 million records
    stay in memory; more go to a nameless file in the folder ``temporary``. They are parted by key, and the parts
    are counted one after another. Where V^(n−1) ≤ 2^64 the key is the context itself, packed and permuted: the
    counts are exact. Else it is a hash, under which C²/2^65 pairs among C contexts are expected to be taken for
    one: 3e-4 pairs among 100 million contexts.

    Raises `LmsatError` if no document has ``order`` tokens, or if the disk is full.
    """
    tokens = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal tokens
        for document in documents:
            tokens += len(document)
            yield document

    tally = _Tally(vocab_size)
    with _Records(temporary) as records:
        for stretches in _blocks(counted(), order):
            records.add(*_keys_and_successors(stretches, order, vocab_size))
        for keys_N, successors_N in records.parts():
            tally.add(keys_N, successors_N)
    if not tally.contexts:
        raise LmsatError(
            f"no document has {order} tokens ({tokens} in all): give a longer text or a lower order than {order}"
        )
    return tally.counts(order, tokens)


def _blocks(documents: Iterable[np.ndarray], order: int) -> Iterator[list[np.ndarray]]:
    """Yield lists of stretches of documents, each of at least ``order`` tokens, together about `_BLOCK` tokens."""
    block: list[np.ndarray] = []
    size = 0
    for tokens in documents:
        for start in range(0, len(tokens) - order + 1, _BLOCK):
            block.append(tokens[start : start + _BLOCK + order - 1])
            size += len(block[-1])
            if size >= _BLOCK:
                yield block
                block, size = [], 0
    if block:
        yield block


def _keys_and_successors(
    stretches: list[np.ndarray], order: int, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
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
    """Replace keys, in place, by ones whose bits all look random, and one to one (SplitMix64, Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    keys ^= keys >> np.uint64(31)


class _Records:
    """Keys and successors, parted by the first 8 bits of the key; in memory while they are few."""

    def __init__(self, temporary: Path | None) -> None:
        self._folder = temporary
        self._file: BinaryIO | None = None
        self._runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._unwritten = 0

    def __enter__(self) -> _Records:
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.clear()
        if self._file is not None:
            self._file.close()

    def add(self, keys_N: np.ndarray, successors_N: np.ndarray) -> None:
        """Add records. Raises `LmsatError` if they do not fit on the disk."""
        parts_N = (keys_N >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(parts_N, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(parts_N, minlength=256))])
        self._runs.append((keys_N[order], successors_N[order], bounds))
        if sum(len(keys) for keys, *_ in self._runs[self._unwritten :]) > _IN_MEMORY:
            try:
                self._write()
            except OSError as error:
                raise LmsatError(
                    f"the n-grams cannot be kept in {self._folder or tempfile.gettempdir()} ({error.strerror}): "
                    "free space, or name another folder with --temporary FOLDER"
                ) from error

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        for index in range(self._unwritten, len(self._runs)):
            keys, successors, bounds = self._runs[index]
            mapped = []
            for column in (keys, successors):
                offset = self._file.tell()
                self._file.write(column.data)
                self._file.flush()
                mapped.append(np.memmap(self._file, column.dtype, "r", offset, column.shape))
                self._file.seek(0, 2)
            self._runs[index] = (mapped[0], mapped[1], bounds)
        self._unwritten = len(self._runs)

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the keys and the successors of each part."""
        for part in range(256):
            slices = [
                (keys[bounds[part] : bounds[part + 1]], successors[bounds[part] : bounds[part + 1]])
                for keys, successors, bounds in self._runs
            ]
            if any(len(keys) for keys, _ in slices):
                keys_N, successors_N = map(np.concatenate, zip(*slices, strict=True))
                yield keys_N, successors_N


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
            order,
            tokens,
            self.contexts,
            self._single_contexts_V,
            self._single_ngrams_V,
            csr_array((counts, successors, bounds), shape=(len(lengths_B), self._vocab_size)),
        )


def _run_starts(ordered: np.ndarray) -> np.ndarray:
    """Return where each run of equal values begins."""
    if not len(ordered):
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

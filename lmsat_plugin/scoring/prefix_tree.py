"""The plan of a scoring pass: sequences that begin alike share the tokens of their common prefix.

Sorted sequences form a tree. A part of it that is small enough is packed into one *row*, in which each token attends to
those before it on its own path. A long prefix of a large part is a *trunk*: it is encoded once, alone, and its keys and
values are what the rows behind it attend to. The plan depends on tokens alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# Big-endian: the bytes are in the same order as the numbers.
_ID = np.dtype(">u4")


class Limits(NamedTuple):
    """When tokens are shared."""

    row: int
    """The most tokens of a row that holds more than one sequence."""
    trunk: int
    """A prefix of so many tokens is encoded alone, though it would fit into its row; 0 for never."""
    saved: int = 128
    """A prefix is a trunk only where that saves so many tokens."""


WHOLE = Limits(row=0, trunk=0, saved=0)
"""Nothing is shared: each sequence is a row."""


@dataclass(frozen=True)
class Row:
    """Sequences ``first`` to ``stop``, in their sorted order, behind their common first ``start`` tokens."""

    first: int
    stop: int
    start: int
    size: int
    """Its tokens."""


@dataclass(frozen=True)
class Trunk:
    """Tokens ``start`` to ``stop`` of sequence ``path``, which the sequences ``first`` to ``last`` share."""

    first: int
    last: int
    path: int
    start: int
    stop: int
    rows: list[Row] = field(default_factory=list)
    trunks: list[Trunk] = field(default_factory=list)


class Tree:
    """Sequences in sorted order, cut into rows and trunks.

    Args:
        sequences: Tokens `packed`; those that are equal, or the beginning of another, are one path.
        limits: When tokens are shared.
    """

    def __init__(self, sequences: Sequence[bytes], limits: Limits) -> None:
        order = sorted(range(len(sequences)), key=lambda index: sequences[index])
        self.order = order
        """The index of each sequence, in sorted order."""
        self.tokens = [np.frombuffer(sequences[index], dtype=_ID) for index in order]
        """The tokens of each sequence, in sorted order."""
        self._lengths = np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)
        self.shared = np.zeros(len(order), dtype=np.int64)
        """How many first tokens each sequence has in common with the one before it."""
        for place in range(1, len(order)):
            self.shared[place] = common_length(self.tokens[place - 1], self.tokens[place])
        self._limits = limits
        self.root = Trunk(first=0, last=len(order), path=0, start=0, stop=0)
        """Without tokens of its own."""
        if limits.row:
            self._cut()
        else:
            self._keep_whole()

    @property
    def shares(self) -> bool:
        """Whether any token is shared."""
        return bool(self._limits.row) and self.computed < int(self._lengths.sum())

    @property
    def computed(self) -> int:
        """How many tokens are computed."""
        total, waiting = 0, [self.root]
        while waiting:
            trunk = waiting.pop()
            waiting += trunk.trunks
            total += trunk.stop - trunk.start + sum(row.size for row in trunk.rows)
        return total

    def deal(self, parts: int) -> list[int]:
        """Return the borders of ``parts`` ranges of sequences, of which the largest has as few tokens as possible.

        Each range counts the whole of its first sequence: what that shares with the one before it is encoded once
        more. So a prefix is encoded in one range, unless a border is within it, which makes the largest range smaller.
        """
        count = len(self.tokens)
        again = self.shared if self._limits.row else np.zeros_like(self.shared)
        before = np.concatenate([[0], np.cumsum(self._lengths - again)])

        def borders(most: int) -> list[int]:
            found = [0]
            for _ in range(parts):
                first = found[-1]
                limit = before[first] + most - (again[first] if first < count else 0)
                found.append(max(first, int(np.searchsorted(before, limit, side="right")) - 1))
            return found

        # To begin later never costs more: ranges as long as they can be are the fewest.
        least = bisect_left(range(int(before[-1])), True, key=lambda most: borders(most)[-1] == count)
        return borders(least)

    def _keep_whole(self) -> None:
        for place, tokens in enumerate(self.tokens):
            if place and len(tokens) == self._lengths[place - 1] == self.shared[place]:
                # Equal to the one before: they share the row.
                before = self.root.rows.pop()
                self.root.rows.append(Row(before.first, place + 1, 0, before.size))
            else:
                self.root.rows.append(Row(place, place + 1, 0, len(tokens)))

    def _cut(self) -> None:
        waiting = [(self.root, 0, len(self.tokens))] if self.tokens else []
        while waiting:
            trunk, first, stop = waiting.pop()
            path = self.path(first, stop)
            size, common = self.size(first, stop, trunk.stop), self.common(first, stop)
            segment = common - trunk.stop
            apart = self._limits.trunk and segment >= self._limits.trunk and size > segment
            if (size == segment or size <= self._limits.row) and not apart:
                trunk.rows.append(Row(first, stop, trunk.stop, size))
                continue
            cuts = np.nonzero(self.shared[path + 1 : stop] <= common)[0] + path + 1
            if apart or segment * len(cuts) >= self._limits.saved:
                behind = Trunk(first=first, last=stop, path=path, start=trunk.stop, stop=common)
                trunk.trunks.append(behind)
                rest = size - segment
                if rest <= self._limits.row:
                    behind.rows.append(Row(first, stop, common, rest))
                    continue
                trunk = behind
            edges = [first, *cuts.tolist(), stop]
            waiting += [(trunk, *part) for part in zip(edges[-2::-1], edges[:0:-1], strict=True)]

    def path(self, first: int, stop: int) -> int:
        """Return the first sequence of a range that is not the beginning of the next."""
        while first + 1 < stop and self.shared[first + 1] == self._lengths[first]:
            first += 1
        return first

    def size(self, first: int, stop: int, start: int) -> int:
        """Return how many tokens a range has behind its first ``start``, each path counted once."""
        own = np.maximum(self.shared[first:stop], start)
        own[0] = start
        # Those that end in the trunk have nothing behind it.
        return int(np.maximum(self._lengths[first:stop] - own, 0).sum())

    def common(self, first: int, stop: int) -> int:
        """Return how many first tokens all of a range have in common that are not the beginning of another."""
        path = self.path(first, stop)
        least = int(self._lengths[path])
        return min(least, int(self.shared[path + 1 : stop].min())) if stop > path + 1 else least


def packed(tokens: Sequence[int]) -> bytes:
    """Return token ids as bytes, which take little memory and are in the order of the ids."""
    return np.asarray(tokens, dtype=_ID).tobytes()


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many first tokens two sequences have in common."""
    length = min(len(one), len(other))
    unequal = np.nonzero(one[:length] != other[:length])[0]
    return int(unequal[0]) if len(unequal) else length

"""The ways in which a plan shares tokens, and small plans of one way each, which show whether a model can."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from lmsat_plugin.scoring.prefix_tree import WHOLE, Row, Tree, Trunk


class Way(StrEnum):
    """How tokens are shared, in words for a sentence."""

    ROWS = "masks within a row"
    ROWS_BEHIND = "masks behind cached keys"
    PATHS_BEHIND = "cached keys"


def parts_of(tree: Tree) -> list[Row | Trunk]:
    """Return all rows and trunks of a plan."""
    parts: list[Row | Trunk] = []
    waiting = [tree.root]
    while waiting:
        trunk = waiting.pop()
        waiting += trunk.trunks
        parts += [*trunk.rows, *trunk.trunks]
    return parts


def ways_of(tree: Tree) -> frozenset[Way]:
    """Return the ways in which a plan shares tokens."""
    parts = parts_of(tree)
    rows = [part for part in parts if isinstance(part, Row) and _branches(tree, part.first, part.stop)]
    found = {Way.ROWS_BEHIND if row.start else Way.ROWS for row in rows}
    return frozenset(found | ({Way.PATHS_BEHIND} if any(isinstance(part, Trunk) for part in parts) else set()))


def few_of(tree: Tree) -> list[int]:
    """Return the numbers of few sequences that share the longest prefix of a plan, and are of several lengths."""
    ranges = [(part.first, part.stop if isinstance(part, Row) else part.last) for part in parts_of(tree)]
    branching = [each for each in ranges if _branches(tree, *each)]
    first, stop = max(branching, key=lambda each: (tree.common(*each), each[1] - each[0]))
    after = tree.path(first, stop) + 1
    fork = after + int(tree.shared[after:stop].argmin())
    by_length = sorted(range(first, stop), key=lambda place: len(tree.tokens[place]))
    return [tree.order[place] for place in sorted({fork - 1, fork, by_length[0], by_length[-1]})]


def _branches(tree: Tree, first: int, stop: int) -> bool:
    """Return whether the sequences of a range are more than the beginnings of one."""
    return tree.path(first, stop) < stop - 1


def share_by(sequences: Sequence[bytes], way: Way) -> Tree:
    """Return a plan of sequences that shares their common prefix in one way: as two trunks, or within a row."""
    tree = Tree(sequences, WHOLE)
    count, common = len(tree.tokens), tree.common(0, len(tree.tokens))
    last, rows = tree.root, [(0, count)]
    if way != Way.ROWS and common > 1:
        for start, stop in ((0, common // 2), (common // 2, common)):
            behind = Trunk(first=0, last=count, path=tree.path(0, count), start=start, stop=stop)
            last.trunks.append(behind)
            last = behind
    if way == Way.PATHS_BEHIND:
        rows = [(place, place + 1) for place in range(count)]
    tree.root.rows.clear()
    sizes = [(first, stop, tree.size(first, stop, last.stop)) for first, stop in rows]
    last.rows.extend(Row(first, stop, last.stop, size) for first, stop, size in sizes if size)
    return tree

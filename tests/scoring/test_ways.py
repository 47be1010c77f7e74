"""Small plans that show each way of sharing: they hold a fork, and share by trunks, masks, or both."""

from __future__ import annotations

import pytest

from lmsat_plugin.scoring.prefix_tree import WHOLE, Limits, Tree, packed
from lmsat_plugin.scoring.ways import Way, few_of, share_by, ways_of

HEADER = list(range(20))
SEQUENCES = [packed([*HEADER, *tail]) for tail in ([1], [1, 2], [1, 2, 3], [1, 2, 4, 5], [7, 8], [9] * 9)]
LONE = [packed([99]), packed([99] * 40)]


@pytest.mark.parametrize(
    ("limits", "ways"),
    [
        (WHOLE, set()),
        (Limits(row=100, trunk=0), {Way.ROWS}),
        (Limits(row=100, trunk=10), {Way.ROWS_BEHIND, Way.PATHS_BEHIND}),
        (Limits(row=1, trunk=10, saved=1), {Way.PATHS_BEHIND}),
    ],
)
def test_ways_of_a_plan(limits, ways):
    assert ways_of(Tree(SEQUENCES, limits)) == ways


def test_few_hold_a_fork_though_longer_ones_are_one_path():
    all_of_them = [*LONE, *SEQUENCES]
    few = few_of(Tree(all_of_them, Limits(row=45, trunk=0)))
    tree = Tree([all_of_them[index] for index in few], WHOLE)
    assert tree.path(0, len(few)) < len(few) - 1
    assert tree.common(0, len(few)) >= len(HEADER)


@pytest.mark.parametrize("way", Way)
def test_a_small_plan_shares_in_one_way(way):
    tree = share_by(SEQUENCES, way)
    assert way in ways_of(tree) | {Way.PATHS_BEHIND}
    trunk, depth = tree.root, 0
    while trunk.trunks:
        [trunk], depth = trunk.trunks, depth + 1
    assert depth == (0 if way == Way.ROWS else 2)
    assert sum(row.stop - row.first for row in trunk.rows) == len(SEQUENCES)
    assert len(trunk.rows) == (len(SEQUENCES) if way == Way.PATHS_BEHIND else 1)

"""Plans cover each token of each sequence once, and compute no token of a shared row twice."""

from __future__ import annotations

import random
from itertools import combinations_with_replacement, pairwise

import pytest

from lmsat_plugin.scoring.prefix_tree import WHOLE, Limits, Tree, Trunk, packed


def paths(tree: Tree) -> dict[int, list[int]]:
    """Return the tokens that each sequence gets from its trunks and its row."""
    found: dict[int, list[int]] = {}

    def walk(trunk: Trunk, before: list[int]) -> None:
        before = before + tree.tokens[trunk.path][trunk.start : trunk.stop].tolist()
        assert len(before) == trunk.stop
        for row in trunk.rows:
            assert row.start == trunk.stop
            for place in range(row.first, row.stop):
                own = tree.tokens[place].tolist()
                assert place not in found
                found[place] = (before + own[row.start :])[: len(own)]
        for behind in trunk.trunks:
            assert behind.start == trunk.stop < behind.stop
            walk(behind, before)

    walk(tree.root, [])
    return found


def unlike(random_: random.Random) -> list[tuple[int, ...]]:
    """Return sequences of two tokens that share beginnings of any length; some are the beginning of others."""
    heads = [[random_.randint(0, 1) for _ in range(random_.randint(0, 30))] for _ in range(3)]
    found = [
        (*random_.choice(heads), *(random_.randint(0, 1) for _ in range(random_.randint(0, 8)))) or (0,)
        for _ in range(random_.randint(1, 12))
    ]
    return [*found, found[0]] if random_.random() < 0.3 else found


def tree_of(sequences: list[tuple[int, ...]], limits: Limits) -> Tree:
    return Tree([packed(sequence) for sequence in sequences], limits)


def distinct_prefixes(sequences: list[tuple[int, ...]]) -> int:
    return len({sequence[: length + 1] for sequence in sequences for length in range(len(sequence))})


@pytest.mark.parametrize("seed", range(300))
def test_each_sequence_gets_its_tokens(seed):
    random_ = random.Random(seed)
    sequences = unlike(random_)
    for limits in (
        WHOLE,
        Limits(row=1000, trunk=0),
        Limits(row=random_.choice([1, 5, 20]), trunk=random_.choice([0, 4, 10]), saved=random_.choice([1, 8, 64])),
    ):
        tree = tree_of(sequences, limits)
        found = paths(tree)
        assert {place: tuple(tokens) for place, tokens in found.items()} == {
            place: sequences[index] for place, index in enumerate(tree.order)
        }
        assert distinct_prefixes(sequences) <= tree.computed
    assert tree_of(sequences, Limits(row=1000, trunk=0)).computed == distinct_prefixes(sequences)
    assert tree_of(sequences, WHOLE).computed == sum(map(len, set(sequences)))


def test_what_many_share_is_a_trunk_and_a_question_with_its_options_a_row():
    sequences = [(*[9] * 700, *[document] * 70, *[option] * 25) for document in range(40) for option in range(100, 104)]
    tree = tree_of(sequences, Limits(row=512, trunk=192))
    [trunk] = tree.root.trunks
    assert (trunk.start, trunk.stop, len(trunk.rows)) == (0, 700, 40)
    assert {row.size for row in trunk.rows} == {70 + 4 * 25}
    assert tree.computed == 700 + 40 * 170
    # A long prompt of one document is encoded alone: attention to what is masked costs as much as any other.
    alone = tree_of(sequences[:4], Limits(row=1000, trunk=192))
    assert [(trunk.stop, trunk.rows[0].size) for trunk in alone.root.trunks] == [(770, 100)]


def test_a_short_prefix_is_not_worth_a_trunk():
    sequences = [(1, 2, 3, *[document] * 400) for document in range(4, 8)]
    tree = tree_of(sequences, Limits(row=512, trunk=192))
    assert not tree.root.trunks
    assert tree.computed == 4 * 403
    assert not tree.shares


def test_sequences_that_are_beginnings_of_others_are_one_path():
    tree = tree_of([tuple(range(length)) for length in range(1, 2000)], Limits(row=512, trunk=192))
    assert tree.computed == 1999


@pytest.mark.parametrize("seed", range(60))
def test_the_largest_share_is_the_least_that_it_can_be(seed):
    random_ = random.Random(seed)
    sequences, parts = unlike(random_)[:8], random_.randint(1, 3)
    for limits, tokens in ((Limits(row=20, trunk=0), distinct_prefixes), (WHOLE, lambda some: sum(map(len, some)))):
        tree = tree_of(sorted(set(sequences)), limits)
        places = sorted(set(sequences))
        every = [[0, *inner, len(places)] for inner in combinations_with_replacement(range(len(places) + 1), parts - 1)]

        def largest(borders, places=places, tokens=tokens):
            return max(tokens(places[first:stop]) for first, stop in pairwise(borders))

        found = tree.deal(parts)
        assert (found[0], found[-1], len(found)) == (0, len(places), parts + 1)
        assert largest(found) == min(map(largest, every))


def test_a_part_of_nothing():
    assert tree_of([], WHOLE).deal(3) == [0, 0, 0, 0]

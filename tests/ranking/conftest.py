"""A tree of seven models, one of which saturates and one of which has a hostile name, and its leaderboard."""

from __future__ import annotations

import pytest
from report_trees import read_analyses
from result_trees import Made, write_tree

from lmsat_plugin.ranking.leaderboard import leaderboard_of

HOSTILE = '<script>alert("x")</script>|y'


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    models = [*(Made(f"org/m{size}", 10**6 * 4**size) for size in range(5)), Made("org/sick", 4 * 10**6, 4000)]
    write_tree(root, [*models, Made(HOSTILE, 2 * 10**6)])
    return root


@pytest.fixture(scope="session")
def board(tree):
    return leaderboard_of(read_analyses(tree))


@pytest.fixture(scope="session")
def hostile_name() -> str:
    return HOSTILE

"""The report that the tests of the page read, written once."""

from __future__ import annotations

import contextlib
import io

import pytest
from report_trees import MODELS, TASKS
from result_trees import TOKENS_PER_STEP, write_tree

from lmsat_plugin.cli.main import main


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("deep") / "down" / "results"
    write_tree(root, MODELS, tasks=TASKS)
    return root


@pytest.fixture(scope="session")
def run(tree):
    """The folder of the report on three models by 22 checkpoints, one of which saturates; and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["report", str(tree), "--tokens-per-step", str(TOKENS_PER_STEP)]) == 0
    return tree / "report", printed.getvalue()


@pytest.fixture(scope="session")
def report(run):
    return run[0]

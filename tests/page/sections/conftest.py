"""A tree with all that is measured, and the report's figures of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from report_trees import LONG_NAME, STEPS, models_of, read_analyses
from result_trees import Made, add_arrays, write_result, write_tree

from lmsat_plugin.page.sections import all_figures

if TYPE_CHECKING:
    from lmsat_plugin import ReportFigure


@pytest.fixture(scope="session")
def full_tree(tmp_path_factory) -> list[ReportFigure]:
    """Return the figures of three models with all that is measured."""
    root = tmp_path_factory.mktemp("full-tree")
    write_tree(root, [*models_of(2), Made(LONG_NAME, 10**8)], STEPS)
    more = {
        "lmsat_gradient_noise": {"critical_batch_tokens": (3e5, 1e4)},
        "lmsat_ngram": {"w_error_64": 0.6, "w_error_128": 0.3, "contexts": 9},
    }
    for task, values in more.items():
        write_result(root, LONG_NAME, 64, {task: values}, 10**8)
    for step in STEPS:
        perplexity = {"wikitext": {"word_perplexity": 30 + 2e4 / step}}
        write_result(root, LONG_NAME, step, perplexity, 10**8)
    add_arrays(root)
    return all_figures(read_analyses(root))

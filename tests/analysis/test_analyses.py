"""All analyses of one tree: what is missing, and why."""

from __future__ import annotations

from result_trees import Made, write_tree

from lmsat_plugin import Results
from lmsat_plugin.analysis.analyses import Analyses


def test_no_law_is_fitted_where_the_largest_model_saturates(tmp_path):
    write_tree(tmp_path, [Made("a", 10**7), Made("b", 10**8, 4000)])
    analyses = Analyses.of(Results.read(tmp_path, tokens_per_step=2_000_000))
    assert analyses.law is None
    assert "larger than all that saturate, and there is none" in analyses.missing["law"]

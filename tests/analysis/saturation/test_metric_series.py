"""Series of a metric: which one is meant, what tells series apart, and how values are compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from training_runs import falling, results_of

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.saturation import series_of
from lmsat_plugin.analysis.saturation.verdict import in_words
from lmsat_plugin.errors import LmsatError


def test_the_default_metric_and_others():
    rng = np.random.default_rng(12)
    loss = results_of(falling(rng), task="lmsat_loss", metric="loss", higher=False)
    both = pd.concat([loss, results_of(falling(rng) / 10)])
    assert find_saturation(both)[0].task == "lmsat_loss"
    assert find_saturation(both, "piqa")[0].metric == "acc"
    assert series_of(results_of(falling(rng) / 10))[0].higher_is_better
    two = pd.concat([results_of(falling(rng) / 10), results_of(falling(rng) / 10, task="sciq")])
    with pytest.raises(LmsatError, match="piqa acc, sciq acc"):
        series_of(two)
    assert [one.task for one in find_saturation(two)] == ["piqa", "sciq"]
    with pytest.raises(LmsatError, match="not known whether higher is better for lmsat_head stable_rank"):
        find_saturation(
            results_of(falling(rng), task="lmsat_head", metric="stable_rank", higher=None), "lmsat_head", "stable_rank"
        )


def test_series_are_told_apart_and_perplexities_compared_by_ratio():
    rng = np.random.default_rng(13)
    tables = [
        results_of(np.exp(falling(rng)), metric="word_perplexity", higher=False, num_fewshot=shots) for shots in (0, 5)
    ]
    found = find_saturation(pd.concat(tables))
    assert [one.num_fewshot for one in found] == [0, 5]
    assert found[0].series.losses_K == pytest.approx(np.log(tables[0].value))
    assert " % better than" in found[0].reason
    assert in_words(found[0].series, np.log(2.26)) == "a factor of 2.26"


@pytest.mark.parametrize(
    ("stated", "higher"), [(None, True), ("True", True), ("False", False), (0.0, False), ("up", None)]
)
def test_the_direction_of_a_csv_is_what_it_states_or_what_is_known_of_the_metric(stated, higher):
    table = results_of(falling(np.random.default_rng(14)) / 10).drop(columns="higher_is_better")
    if stated is not None:
        table["higher_is_better"] = stated
    if stated == "up":
        with pytest.raises(LmsatError, match="not known whether higher is better"):
            series_of(table)
    else:
        assert series_of(table)[0].higher_is_better is higher
    with pytest.raises(LmsatError, match="for piqa own"):
        series_of(table.drop(columns="higher_is_better", errors="ignore").assign(metric="own"), "piqa", "own")

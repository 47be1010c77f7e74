"""Values by checkpoint out of a table: which are taken, in which order, and evenly spread over the steps."""

from __future__ import annotations

import pandas as pd
from result_trees import Made, write_result, write_tree

from lmsat_plugin import load_results
from lmsat_plugin.analysis.checkpoint_values import by_step, evenly, last_of, shown_scores, sizes_of, values_of


def test_values_of_checkpoints(tmp_path):
    write_tree(tmp_path, [Made("b", 10**7), Made("a", 10**8)], (0, 1, 64, 1000, 2000))
    write_result(tmp_path, "c", 64, {"piqa": {"acc_norm": 0.5}, "mmlu_law": {"acc": 0.3}, "open": {"em": 0.1}})
    table = load_results(tmp_path)
    assert list(sizes_of(table).items()) == [("b", 1e7), ("a", 1e8), ("c", None)]
    assert shown_scores(table) == [("arc_easy", "acc"), ("open", "em"), ("piqa", "acc")]
    rows = values_of(table, "lmsat_loss", "loss")
    assert len(rows) == 10
    assert set(by_step(rows).step) == {64, 1000, 2000}
    assert list(last_of(rows).step) == [2000, 2000]
    again = pd.concat([table, table.assign(num_fewshot=5).head(3)])
    assert len(values_of(again, "arc_easy", "acc")) == 10
    assert by_step(rows[rows.step == 2000]).empty


def test_evenly_spread_checkpoints_of_each_model():
    rows = pd.DataFrame({"model": ["a"] * 5 + ["b"] * 2, "step": [30, None, 0, 20, 10, 7, 3]})

    def steps(most: int) -> list:
        chosen = evenly(rows, most)
        return [chosen.step[chosen.model == model].fillna(-1).tolist() for model in "ab"]

    assert steps(1) == [[30], [7]]
    assert steps(2) == [[-1, 30], [3, 7]]
    assert steps(3) == [[-1, 10, 30], [3, 7]]
    assert steps(9) == [[-1, 0, 10, 20, 30], [3, 7]]
    assert evenly(rows[:0], 3).empty

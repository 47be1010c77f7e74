"""The tables of a report: which columns a page has room for, and which two models are compared."""

from __future__ import annotations

import pandas as pd
from report_trees import read_analyses
from result_trees import STEPS, Made, add_arrays, write_tree

from lmsat_plugin.page import tables

MODELS = (Made("a", 10**7), Made("b", 10**8), Made("c", 10**9))


def test_columns_that_have_no_room_are_told(tmp_path, monkeypatch):
    write_tree(tmp_path, MODELS, tasks={"arc_easy": (0.25, 3.4, 0.010)})
    analyses = read_analyses(tmp_path, tokens_per_step=None)
    monkeypatch.setattr(tables, "CELLS", 5 * len(MODELS) * len(STEPS))
    values = next(table for table in tables.tables_of(analyses, tmp_path / "report") if table.name == "values")
    kept = values.columns[3:-1]
    assert len(kept) == 5
    assert {heading.split(" ")[0] for heading in kept} == {*analyses.table.task}
    assert kept[0].startswith("lmsat_")
    assert "lmsat_loss loss" in kept
    assert "5 of 10 columns are in the CSV file alone" in values.about
    assert len(values.csv.splitlines()) == 1 + len(analyses.table)


def test_the_best_model_is_compared_with_the_next_best(tmp_path):
    write_tree(tmp_path, MODELS, tasks={"arc_easy": (0.25, 3.4, 0.010)})
    add_arrays(tmp_path, documents=20, window=8)
    found = tables.tables_of(read_analyses(tmp_path), tmp_path / "report")
    table = next(table for table in found if table.name == "comparison")
    assert table.title == "Is the difference real? c against b"
    assert {row[0] for row in table.rows} == {"lmsat_loss", "arc_easy"}
    assert table.columns[:4] == ["task", "metric", "n-shot", "filter"]
    assert "document" in next(row for row in table.rows if row[0] == "lmsat_loss")
    assert table.about.startswith("c's loss is ")


def test_a_single_model_is_compared_with_none(tmp_path):
    write_tree(tmp_path, MODELS[:1])
    found = tables.tables_of(read_analyses(tmp_path), tmp_path / "report")
    assert "comparison" not in {table.name for table in found}


def test_every_value_has_a_heading_where_some_name_no_filter_and_no_shots():
    """What is derived has no filter, and old results name none: their headings say the task and the metric."""
    values = pd.DataFrame({"task": ["a", "a", "b", "a"], "metric": "acc"}).assign(
        num_fewshot=pd.array([0, 5, 5, None], dtype="Int64"),
        filter=pd.array(["none", "strict", None, None], dtype="string"),
    )
    assert tables.headings_of(values).tolist() == ["a acc 0-shot none", "a acc 5-shot strict", "b acc 5-shot", "a acc"]

"""The wide table: a row a checkpoint, equal to what a loop over the tidy table finds."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from result_files import new, write

from lmsat_plugin.cli.main import main
from lmsat_plugin.results.tree import load_results
from lmsat_plugin.results.wide import wide_table


@pytest.fixture
def tree(tmp_path):
    for model, steps in (("b", (5, 30)), ("a", (10, 200, 20))):
        for step in steps:
            results = {"quiz": {"acc,none": step / 1000, "bits,none": 2.0}}
            if step != 20:
                results["test"] = {"acc,none": step / 500}
            content = new(results, {"pretrained": model, "revision": f"step{step}"})
            write(tmp_path / model / f"step{step}" / "results_1.json", content)
    return tmp_path


def test_a_row_a_checkpoint(tree):
    tidy = load_results(tree)
    wide = wide_table(tidy)
    assert list(zip(wide.model, wide.step, strict=True)) == [("a", 10), ("a", 20), ("a", 200), ("b", 5), ("b", 30)]
    assert list(wide.columns[-3:]) == ["quiz/acc", "quiz/bits", "test/acc"]
    for row in wide.to_dict(orient="records"):
        of_checkpoint = tidy[(tidy.model == row["model"]) & (tidy.step == row["step"])]
        known = {f"{one.task}/{one.metric}": one.value for one in of_checkpoint.itertuples()}
        assert {name: row[name] for name in wide.columns[-3:] if not pd.isna(row[name])} == known


def test_what_differs_within_a_metric_names_its_columns():
    one = {"model": "a", "revision": "step1", "step": 1, "variant": None, "run": None, "stage": None}
    rows = [
        {**one, "task": "lmsat_loss", "metric": "loss", "corpus": corpus, "num_fewshot": None, "value": value}
        for corpus, value in (("pile", 2.0), ("wikitext", 3.0))
    ]
    rows += [
        {**one, "task": "quiz", "metric": "acc", "corpus": None, "num_fewshot": shots, "value": value}
        for shots, value in ((0, 0.1), (5, 0.2))
    ]
    table = (
        pd.DataFrame(rows).assign(tokens=None, words=None, n_params=7, filter="none").astype({"num_fewshot": "Int64"})
    )
    [row] = wide_table(table).to_dict(orient="records")
    assert {name: value for name, value in row.items() if "/" in name} == {
        "lmsat_loss/loss (pile)": 2.0,
        "lmsat_loss/loss (wikitext)": 3.0,
        "quiz/acc (0-shot)": 0.1,
        "quiz/acc (5-shot)": 0.2,
    }


def test_on_the_command_line(tree, capsys):
    assert main(["results", str(tree), "--wide", "--format", "json", "--model", "a"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["step"], row["test/acc"]) for row in rows] == [(10, 0.02), (20, None), (200, 0.4)]
    assert main(["results", str(tree), "--wide"]) == 0
    printed = capsys.readouterr().out
    assert "5 checkpoints" in printed
    assert " bits " in printed
    assert " quiz/acc " in printed
    assert main(["results", str(tree), "--wide", "--all"]) == 2
    assert "--wide shows one value" in capsys.readouterr().err

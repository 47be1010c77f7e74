"""Patterns of names, over a tree of results and over a table; several trees read as one."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from result_files import new, write

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.patterns import matching, rows_matching
from lmsat_plugin.results.tree import Results, load_results

NAMES = ("pythia-70m", "pythia-160m", "olmo[1b]", None)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["pythia-*"], ["pythia-70m", "pythia-160m"]),
        (["olmo[1b]"], ["olmo[1b]"]),
        (["olmo*", "pythia-70m", "*m"], ["olmo[1b]", "pythia-70m", "pythia-160m"]),
    ],
)
def test_names_that_patterns_choose(patterns, chosen):
    assert matching(NAMES, "model", patterns) == chosen


def test_a_pattern_that_chooses_nothing_is_named():
    with pytest.raises(LmsatError, match=r"no result has --model gpt\*: give some of olmo\[1b\], pythia-70m"):
        matching(NAMES, "model", ["pythia-*", "gpt*"])
    with pytest.raises(LmsatError, match="no result states a run: leave out --run"):
        matching([None], "run", ["1"])
    with pytest.raises(LmsatError, match="no column run: leave out --run"):
        rows_matching(pd.DataFrame({"model": ["a"]}), "run", ["1"])
    assert rows_matching(pd.DataFrame({"run": [1, 2, None]}), "run", ["2"]).run.tolist() == [2]


@pytest.fixture
def tree(tmp_path):
    for model in ("a-1", "a-2", "b-1"):
        for step in (10, 20):
            results = {"quiz": {"acc,none": 0.5, "bits,none": 2.0}, "test": {"acc,none": 0.25}}
            content = new(results, {"pretrained": model, "revision": f"step{step}"})
            write(tmp_path / model / f"step{step}" / "results_1.json", content)
    return tmp_path


def test_results_of_some_names(tree):
    results = Results.read(tree)
    chosen = results.select(patterns={"model": ["a-*"], "metric": ["acc"], "task": ["q*", "test"], "run": None}).table
    assert set(chosen.model) == {"a-1", "a-2"}
    assert set(chosen.metric) == {"acc"}
    assert len(chosen) == 2 * 2 * 2
    with pytest.raises(LmsatError, match="no result has --task no"):
        results.select(patterns={"task": ["no"]})


def test_several_trees_are_read_as_the_one_that_holds_them(tree):
    whole = load_results(tree)
    several = load_results([tree / "a-1", tree / "a-2", tree / "b-1" / "step20", tree / "b-1"])
    pd.testing.assert_frame_equal(several, whole)
    [file] = (tree / "b-1" / "step10").rglob("*.json")
    assert set(load_results([tree / "a-1", file]).model) == {"a-1", "b-1"}
    with pytest.raises(LmsatError, match="no folder is given"):
        load_results([])


def test_several_tables_and_folders_on_the_command_line(tree, tmp_path, capsys):
    for name in ("x", "y"):
        steps = range(0, 60, 2)
        rows = [f"{name},{step},{3 + 2 * (step + 1) ** -0.5}" for step in steps]
        (tmp_path / f"{name}.csv").write_text("\n".join(("model,step,loss", *rows)))
    tables = [str(tmp_path / "x.csv"), str(tmp_path / "y.csv")]
    assert main(["saturation", *tables, "--json"]) == 0
    assert [one["model"] for one in json.loads(capsys.readouterr().out)] == ["x", "y"]
    assert main(["saturation", *tables, "--model", "y", "--json"]) == 0
    assert [one["model"] for one in json.loads(capsys.readouterr().out)] == ["y"]
    assert main(["saturation", *tables, str(tree)]) == 2
    assert f"{tables[0]} is a table and {tree} is not" in capsys.readouterr().err

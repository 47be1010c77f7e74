"""``lmsat emergence`` from a CSV and from a tree of results: JSON, table, figure, and errors in one sentence."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from emergence_scores import three_tasks

from lmsat_plugin.cli.main import main

KEYS = [
    *("task", "metric", "variant", "threshold", "low", "high", "emergent", "reason", "spearman", "pearson", "chance"),
    *("n_points", "n_models", "p_value", "shared", "two_step"),
]
MODELS = 5


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("emergence") / "scores.csv"
    three_tasks().assign(tokenizer="a").to_csv(path, index=False)
    return path


def printed(capsys, *arguments) -> list[dict]:
    assert main(["emergence", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def found(csv):
    """What is found of each task, as ``--json`` prints it."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["emergence", str(csv), "--json"]) == 0
    return {row["task"]: row for row in json.loads(output.getvalue(), parse_constant=pytest.fail)}


def test_json(found):
    assert [list(row) for row in found.values()] == [KEYS] * 3
    assert {task: row["emergent"] for task, row in found.items()} == {"hellaswag": False, "mmlu": True, "race": None}
    assert found["mmlu"]["low"] <= 2.2 <= found["mmlu"]["high"]
    assert found["mmlu"]["n_models"] == MODELS
    assert found["mmlu"]["n_points"] == 15 * MODELS
    assert found["mmlu"]["chance"] == 0.25
    assert found["mmlu"]["shared"]["factor"] == "model"
    assert found["hellaswag"]["two_step"]["absolute_error"] < 0.05
    assert [found[task][end] for task in ("hellaswag", "race") for end in ("threshold", "low", "high")] == [None] * 6


def test_globs_and_factor(csv, capsys):
    found = printed(capsys, csv, "--task", "m*", "--metric", "acc", "--factor", "tokenizer")
    assert [one["task"] for one in found] == ["mmlu"]
    assert found[0]["shared"]["shared"] is None


def test_table_gives_thresholds_and_reasons(csv, capsys):
    assert main(["emergence", str(csv)]) == 0
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.lstrip().startswith("mmlu ")]
    assert row.split()[2] == "yes"
    assert "hellaswag, acc: improves from the start" in out
    assert "race, acc: no change with the loss is seen" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--factor", "corpus"], "no column 'corpus' for a factor"),
        (["--task", "gsm8k"], "no task and metric that match 'gsm8k'"),
        (["--loss", "bits_per_byte"], "no column 'bits_per_byte'"),
        (["--figure", "curves.bmp"], "not a figure's file name"),
    ],
)
def test_errors_are_one_sentence(csv, capsys, arguments, sentence):
    assert main(["emergence", str(csv), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_missing_and_empty_files(tmp_path, capsys):
    assert main(["emergence", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read as CSV" in capsys.readouterr().err
    (tmp_path / "scores.csv").write_text("model,loss,task,metric\nm,2.0,mmlu,acc\n")
    assert main(["emergence", str(tmp_path / "scores.csv")]) == 2
    assert "no column 'score'" in capsys.readouterr().err


def test_a_tree_of_results(tmp_path, found, capsys):
    table = three_tasks()
    for (model, step), rows in table.groupby(["model", "step"]):
        results = {
            row.task: {"acc,none": row.score, "acc_stderr,none": (row.score * (1 - row.score) / 3000) ** 0.5}
            for row in rows.itertuples()
        }
        loss = float(rows["loss"].iloc[0])
        results["lmsat_loss"] = {"loss,none": loss, "bits_per_byte,none": loss / 3, "perplexity,none": 2.7**loss}
        content = {
            "results": results,
            "n-samples": {task: {"original": 3000, "effective": 3000} for task in results},
            "higher_is_better": {task: {"acc": True} for task in results},
            "config": {"model": "hf", "model_args": {"pretrained": f"me/{model}", "revision": f"step{step}"}},
            "date": 1.7e9,
        }
        folder = tmp_path / "tree" / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"results_step{step}.json").write_text(json.dumps(content))
    of_tree = {row["task"]: row for row in printed(capsys, tmp_path / "tree")}
    for task, row in found.items():
        assert of_tree[task]["emergent"] == row["emergent"]
    assert of_tree.keys() == found.keys()
    assert of_tree["mmlu"]["threshold"] == pytest.approx(found["mmlu"]["threshold"], abs=0.01)
    (bits,) = printed(capsys, tmp_path / "tree", "--loss", "bits_per_byte", "--task", "mmlu")
    assert bits["threshold"] == pytest.approx(of_tree["mmlu"]["threshold"] / 3, abs=0.005)


def test_figure_file(csv, tmp_path):
    arguments = ["--task", "mmlu", "--figure", str(tmp_path / "curves.png")]
    assert main(["emergence", str(csv), *arguments]) == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

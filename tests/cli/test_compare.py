"""``lmsat compare``: what it prints, its JSON, and its refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compared_results import write_losses, write_questions

from lmsat_plugin.analysis.comparison.sentences import sentence_on_tokens
from lmsat_plugin.analysis.comparison.tokens_to_loss import TokensToLoss
from lmsat_plugin.cli.main import main

TOKENS = np.random.default_rng(0).integers(100, 300, 30)


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(1)
    hardness = rng.normal(4, 0.5, 30)
    for model, loss in (("org/a", 0.0), ("org/b", 0.3)):
        for step in (100, 200):
            own = TOKENS * (hardness + loss - step / 1000 + rng.normal(0, 0.02, 30))
            write_losses(tmp_path / model, model, step, own, TOKENS, geometry=True)
    return tmp_path


def test_the_sentence_comes_first_and_the_table_after_it(tree, capsys):
    assert main(["compare", str(tree / "org" / "a"), str(tree / "org" / "b")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("org/b's loss is 0.297 nats/token higher than org/a's (")
    assert "Compared: org/a, step 200; org/b, step 200." in out
    for said in ("95 % interval", "detectable", "document", "To reach 4.", "anisotropy_last"):
        assert said in out


def test_the_interface_of_its_json(tree, capsys):
    assert main(["compare", "a", "b@step200", "--results", str(tree), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"sentence", "metrics"} <= answer.keys()
    (row,) = answer["metrics"]
    keys = {"task", "metric", "a", "b", "difference", "low", "high", "p", "mde", "n", "paired"}
    assert keys <= row.keys()
    assert (row["task"], row["metric"], row["n"], row["paired"]) == ("lmsat_loss", "loss", 30, True)
    assert row["low"] < row["difference"] < row["high"]
    assert answer["pairs"][0]["model"] == "org/b@step200"


def test_a_checkpoint_of_a_folder(tree, capsys):
    folder = str(tree / "org" / "a")
    assert main(["compare", f"{folder}@step100", folder, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["metrics"][0]["difference"] == pytest.approx(-0.1, abs=0.02)


def test_what_cannot_be_compared_is_null_and_a_sentence(tmp_path, capsys):
    for name, shots in (("a", 0), ("b", 5)):
        write_questions(tmp_path / name, name, {"acc": np.ones(20)}, **{"n-shot": {"quiz": shots}})
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [answer["metrics"][0][name] for name in ("difference", "low", "p", "mde")] == [None] * 4
    assert "num_fewshot=0 in a, num_fewshot=5 in b" in answer["sentence"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{}/org/a"], "one model alone has no difference"),
        (["{}", "{}/org/a"], "holds several models, org/a, org/b: name those to compare, with --results"),
        (["a", "c", "--results", "{}"], "holds no model 'c': give one of org/a, org/b"),
        (["{}/org/a", "nowhere"], "nowhere is neither a folder nor a file: give one with results, or name models"),
        (["a", "a", "--results", "{}"], "org/a and org/a are the same checkpoint"),
        (["a@step100", "b@step200", "--results", "{}", "--at", "tokens"], "no two checkpoints are at equal tokens"),
    ],
)
def test_bad_input_is_a_sentence(tree, capsys, arguments, said):
    assert main(["compare", *(argument.format(tree) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_table_of_losses_is_no_results_to_compare(tmp_path, capsys):
    table = tmp_path / "losses.csv"
    table.write_text("model,step,loss\nm,1,3.5\n", "utf-8")
    assert main(["compare", str(table), str(table)]) == 2
    assert "losses.csv is a table of your own, and no results: give the folder" in capsys.readouterr().err


def test_as_many_tokens_are_not_called_1_times_as_many():
    needs = {"reference": "a", "model": "b", "metric": "loss", "loss": 3.0, "at_most": (), "reason": None}
    assert sentence_on_tokens(TokensToLoss(**needs, a=7.03e4, b=7.01e4)).endswith(" 7.01e+04 tokens, about as many.")
    assert sentence_on_tokens(TokensToLoss(**needs, a=1e4, b=2e4)).endswith(" 2e+04 tokens, 2 times as many.")

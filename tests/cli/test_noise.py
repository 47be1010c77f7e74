"""``lmsat noise``: table, sentences and JSON from a CSV and from results, and bad input in one sentence."""

from __future__ import annotations

import json

import pytest
from benchmark_tables import recipes_by_sizes

from lmsat_plugin.cli.main import main


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "scores.csv"
    recipes_by_sizes(noise=0.004).to_csv(path, index=False)
    return path


def printed(capsys, *arguments) -> list[dict]:
    assert main(["noise", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_json(csv, capsys):
    rows = printed(capsys, csv)
    assert [(row["task"], row["metric"], row["size"]) for row in rows] == [
        ("arc_easy", "acc", size) for size in ("60M", "300M", "1B")
    ]
    assert {"noise", "signal", "snr", "mde", "reasons", "models"} <= rows[0].keys()
    assert rows[0]["snr"] == rows[0]["signal"] / rows[0]["noise"]
    (row,) = printed(capsys, csv, "--model", "*-60M", "--task", "arc*", "--metric", "acc", "--last", "15")
    assert [model["n_checkpoints"] for model in row["models"]] == [15] * 3


def test_the_table_says_what_is_worth_running(csv, capsys):
    assert main(["noise", str(csv), "--difference", "0.03"]) == 0
    out = capsys.readouterr().out
    assert "Worth running at 60M: arc_easy acc (snr" in out
    assert "for 0.03" in out
    assert "To show a difference of 0.03 at 80 % power" in out
    assert "No share of seeds: no model has several runs." in out


def test_too_noisy_and_too_few_questions_are_told_apart(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    for noise, questions, said in ((0.05, 2000, "Too noisy"), (0.004, 100, "Too few questions")):
        recipes_by_sizes(noise=noise).assign(n_samples=questions).to_csv(path, index=False)
        assert main(["noise", str(path)]) == 0
        assert f"{said} at 60M: arc_easy acc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--last", "1"], "a line takes 3 checkpoints"),
        (["--task", "gsm8k"], "gsm8k"),
        (["--difference", "-1"], "above 0"),
    ],
)
def test_errors_are_one_sentence(csv, capsys, arguments, sentence):
    assert main(["noise", str(csv), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1

"""``lmsat fit``: what it prints, draws and refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.cli.main import main

PAPER = "A=119.09,alpha=0.246,B=410.7,beta=0.28,E=1.69"


def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 1.69 + 119.09 / n**0.246 + 410.7 / d**0.28


@pytest.fixture
def runs(tmp_path):
    """Return a CSV of ten sizes trained over four lengths, with 0.5 % of noise."""
    n, d = (one.ravel() for one in np.meshgrid(np.geomspace(1e7, 1e10, 10), np.geomspace(1e9, 1e12, 4)))
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(40))
    table = pd.DataFrame({"run": range(40), "model": n, "n_params": n, "tokens": d, "loss": loss(n, d) * noise})
    path = tmp_path / "runs.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def saturated(tmp_path):
    """Return a CSV of two models, 1 % and then 3 % above the law, the second 2 % and then 1 %."""
    n, d = np.repeat([1e7, 3e7], 2), np.tile([1e11, 3e11], 2)
    gaps = np.array([0.01, 0.03, 0.02, 0.01])
    table = pd.DataFrame({"model": ["a", "a", "b", "b"], "n_params": n, "tokens": d, "loss": loss(n, d) * (1 + gaps)})
    path = tmp_path / "saturated.csv"
    table.to_csv(path, index=False)
    return path


def printed(capsys, *arguments: object) -> dict:
    assert main(["fit", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda constant: pytest.fail(constant))


def test_json(runs, capsys):
    found = printed(capsys, "chinchilla", runs, "--repetitions", 100)
    assert found["law"] == "chinchilla"
    assert found["params"]["alpha"].keys() == {"value", "low", "high", "given", "reason"}
    assert found["params"]["alpha"]["low"] < 0.246 < found["params"]["alpha"]["high"]
    assert found["objective"]["delta"] == 1e-3
    assert (found["n_points"], found["n_runs"], found["repetitions"]) == (40, 40, 100)
    assert 0 < found["residual_rms"] < 0.01
    assert found["condition_number"]["all"] > found["condition_number"]["exponents"] > 1
    assert found["spread"]["params"].keys() == found["params"].keys()
    assert found["held_out"]["n_points"] == 8
    assert found["warnings"] == []


def test_gaps_of_given_constants(runs, saturated, capsys):
    found = printed(capsys, "chinchilla", runs, "--given", PAPER, "--predict", saturated)
    assert all(one["given"] and one["low"] is None for one in found["params"].values())
    np.testing.assert_allclose([row["gap"] for row in found["predictions"]], [0.01, 0.03, 0.02, 0.01], atol=1e-9)
    # Of the second model the least loss is the last.
    assert found["gaps"]["mean_final"] == pytest.approx(0.02)
    least = [min((row["observed"], row["gap"]) for row in found["predictions"] if row["model"] == m)[1] for m in "ab"]
    assert found["gaps"]["mean_best"] == pytest.approx(np.mean(least))


def test_losses_to_predict_may_be_missing(runs, saturated, capsys):
    pd.read_csv(saturated).drop(columns="loss").to_csv(saturated, index=False)
    found = printed(capsys, "chinchilla", runs, "--given", PAPER, "--predict", saturated)
    assert [row["gap"] for row in found["predictions"]] == [None] * 4
    assert "gaps" not in found
    predicted = [row["predicted"] for row in found["predictions"]]
    np.testing.assert_allclose(predicted, loss(np.repeat([1e7, 3e7], 2), np.tile([1e11, 3e11], 2)))


def test_table_for_people(runs, saturated, tmp_path, capsys):
    figure = tmp_path / "fit.png"
    arguments = ["--given", "B=410.7,beta=0.28", "--predict", str(saturated), "--figure", str(figure)]
    assert main(["fit", "chinchilla", str(runs), "--repetitions", "50", *arguments]) == 0
    out = capsys.readouterr().out
    for text in ("alpha", "given", "90 % interval", "condition number", "fitted without the largest N", "best %"):
        assert text in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["fit", "kaplan-d", str(runs), "--repetitions", "50"]) == 0
    assert main(["fit", "chinchilla", str(runs), "--given", PAPER, "--predict", str(runs)]) == 0
    assert "by checkpoint" in capsys.readouterr().out


def test_results_tree(tmp_path, capsys):
    """Five models' results as lmsat writes them, with both counts of parameters."""
    for index, n in enumerate(np.geomspace(1e7, 1e10, 5)):
        note = {
            "probes": {"loss": {"version": 1, "settings": {}}},
            "corpus": {"corpus": "text", "documents": 2},
            "model": {"n_params": int(n), "n_params_non_embedding": int(n * 0.9)},
            "checkpoint": {"model": f"model-{index}", "revision": "step9", "step": 9, "tokens": 10**11},
        }
        config = {"model": "lmsat", "model_args": {"pretrained": f"model-{index}"}, "lmsat": note}
        result = {"results": {"lmsat_loss": {"loss,none": float(loss(n, np.array(1e11)))}}, "config": config}
        path = tmp_path / f"model-{index}" / "results_1.json"
        path.parent.mkdir()
        path.write_text(json.dumps(result), "utf-8")
    found = printed(capsys, "chinchilla", tmp_path, "--given", "B=410.7,beta=0.28,E=1.69", "--repetitions", 50)
    assert found["n"] == "n_params"
    assert found["params"]["alpha"]["value"] == pytest.approx(0.246, rel=1e-4)
    assert [other["n"] for other in found["others"]] == ["n_params_non_embedding"]
    # The same exponent, for these counts are proportional.
    assert found["others"][0]["params"]["alpha"]["value"] == pytest.approx(0.246, rel=1e-4)
    assert found["others"][0]["params"]["A"]["value"] == pytest.approx(119.09 * 0.9**0.246, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gopher", "{runs}"], "'gopher' is not a law: give one of chinchilla"),
        (["chinchilla", "{runs}", "--given", "alpha"], "--given alpha does not name a constant and its number"),
        (
            ["chinchilla", "{runs}", "--given", "alpha=steep"],
            "--given alpha=steep does not name a constant and its number",
        ),
        (["chinchilla", "{runs}", "--given", "gamma=1"], "no constant 'gamma'"),
        (["chinchilla", "{runs}", "--given", "alpha=nan"], "alpha=nan is not a number"),
        (["kaplan-n", "{runs}", "--repetitions", "-1"], "repetitions=-1"),
        (["transfer", "{runs}"], "no column 'other_loss'"),
        (["chinchilla", "{saturated}"], "too few runs (2) to fit E, A, B, alpha, beta"),
        (["chinchilla", "{runs}", "--figure", "fit.gif"], "fit.gif is not a figure's file name"),
        (["chinchilla", "{runs}.csv"], "cannot be read as CSV"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, says, runs, saturated, capsys):
    code = main(["fit", *(one.format(runs=runs, saturated=saturated) for one in arguments)])
    captured = capsys.readouterr()
    assert code == 2
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_rows_without_a_model(runs, saturated, capsys):
    """Each is a run of its own, unless the law is fitted to each model."""
    table = pd.read_csv(runs).drop(columns="run").astype({"model": object})
    table["model"] = [f"m{index}" for index in range(len(table))]
    table.loc[[0, 3], "model"] = None
    table.to_csv(runs, index=False)
    warnings = printed(capsys, "chinchilla", runs, "--repetitions", 5)["warnings"]
    assert not any("rows of the same model" in warning for warning in warnings)
    table = pd.read_csv(saturated).assign(position=[1, 2, 3, 4])
    table.loc[1, "model"] = None
    table.to_csv(saturated, index=False)
    assert main(["fit", "context", str(saturated)]) == 2
    assert "a row has no model" in capsys.readouterr().err

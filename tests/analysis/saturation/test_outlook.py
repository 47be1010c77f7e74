"""Where runs are going: through the command, and what it refuses to forecast."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from places import PYTHIA_LOSSES
from training_runs import STEPS, falling, results_of, table_of

from lmsat_plugin.analysis import find_saturation, forecast_saturation
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError

FEW = {"repetitions": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a CSV of four whole runs, one of which rises, and one that has seen three quarters of training."""
    rng = np.random.default_rng(0)
    parts = [
        table_of(falling(rng) + 0.1 * (np.arange(28) >= 17) * (run == 1), model=f"m{run}", tokens=STEPS * 1e6)
        for run in range(5)
    ]
    parts[4] = parts[4][:21]
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    pd.concat(parts).to_csv(path, index=False)
    return path


def answer(capsys, *words):
    assert main(["saturation", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_says_where_each_run_is_going(runs, capsys):
    found = {row["model"]: row for row in answer(capsys, runs, "--forecast")}
    short = found["m4"]
    assert short["forecast"]["until"] == STEPS[-1]
    assert short["forecast"]["seen"] == 0.75
    assert found["m0"]["forecast"]["until"] == 2 * STEPS[-1]
    assert short["p_base_rate"] == 1.5 / 5
    assert found["m1"]["p_base_rate"] == 0.5 / 5
    assert short["p_saturates"] == pytest.approx(0.75 * short["forecast"]["p_own"] + 0.25 * 0.3)
    own = {model: row["forecast"]["p_own"] for model, row in found.items()}
    assert own["m1"] > 0.1 > max(own["m0"], own["m4"])
    gain = short["expected_gain"]
    expected = 0.8 * (21**-0.7 - 28**-0.7)
    assert gain["low"] < expected < gain["high"]
    assert gain["value"] == pytest.approx(expected, abs=0.015)
    assert short["forecast"]["precedents"] is None
    hindsight = short["forecast"]["hindcasts"]
    assert (hindsight["runs"], hindsight["hindcasts"], hindsight["source"]) == (5, 15, "runs at hand")
    assert short["forecast"]["sentence"].startswith(
        "m4: If training goes on to step 140,000, the loss ends above its least value with a chance of "
    )
    assert "% (base rate 30 %), and falls by a further 0.0" in short["forecast"]["sentence"]
    assert "p_saturates" not in answer(capsys, runs)[0]


def test_the_end_may_be_stated_in_tokens(runs, capsys):
    assert main(["saturation", str(runs), "--forecast", "--until", "140B"]) == 0
    out = capsys.readouterr().out
    assert "m4: If training goes on to step 140,000, " in out
    assert "m0: no forecast: it has come to step 140,000 already" in out
    assert "the forecast's Brier score is " in out


def test_few_runs_borrow_the_base_rate_and_the_hindcasts():
    rng = np.random.default_rng(1)
    (found,) = forecast_saturation(find_saturation(table_of(falling(rng))), **FEW)
    assert found.base.source == "published runs"
    assert found.skill.source == "published runs"
    assert "published runs of Pythia" in found.skill.sentence()


@pytest.mark.parametrize(
    ("number", "until", "words"),
    [
        (28, 1_400_000, "10 % of the run are too little to extrapolate"),
        (4, None, "4 checkpoints cannot tell a curve"),
        (28, 140_000, "it has come to step 140,000 already"),
        (28, 5e12, "the tokens that it has seen are unknown"),
    ],
)
def test_what_is_not_forecast_is_null_with_a_reason(number, until, words):
    verdicts = find_saturation(table_of(falling(np.random.default_rng(2)), model="m")[:number])
    (found,) = forecast_saturation(verdicts, until=until, **FEW)
    row = found.to_dict()
    assert row["p_saturates"] is row["expected_gain"] is None
    assert words in row["forecast"]["reason"]
    assert found.sentence() == f"m: no forecast: {found.reason}."


def test_a_run_without_a_curve_is_null():
    values = falling(np.random.default_rng(2))
    tables = {
        "diverged": table_of(np.where(np.arange(28) > 20, np.nan, values)),
        "all 28 values are": table_of(np.full(28, 3.0)),
        "only rises": table_of(np.linspace(2, 3, 7), steps=STEPS[:7]),
    }
    for words, table in tables.items():
        (found,) = forecast_saturation(find_saturation(table), **FEW)
        assert found.p_saturates is None
        assert words in found.reason


def test_runs_that_differ_in_their_shots_have_names_of_their_own():
    values = 0.6 - 0.3 * (STEPS / 5000) ** -0.7
    parts = [results_of(values, stderr=1e-4).assign(num_fewshot=shots) for shots in (0, 5)]
    verdicts = find_saturation(pd.concat(parts))
    found = forecast_saturation(verdicts, until=STEPS[-1], **FEW)
    assert [one.sentence().partition(":")[0] for one in found] == ["m, 0-shot", "m, 5-shot"]


def test_scores_and_perplexities_are_told_in_their_own_words():
    rng = np.random.default_rng(3)
    noise = 0.002 * rng.standard_normal(28)
    scores = find_saturation(results_of(0.6 - 0.3 * (STEPS / 5000) ** -0.7 + noise, stderr=1e-4))
    (found,) = forecast_saturation(scores, **FEW)
    assert "piqa acc ends below its highest value with a chance of" in found.sentence()
    assert "and rises by a further 1." in found.sentence()
    assert " points (" in found.sentence()
    perplexities = np.exp(3 + 0.5 * (STEPS / 5000) ** -0.7 + noise)
    found = find_saturation(results_of(perplexities, metric="perplexity", higher=False, stderr=1e-3))
    (found,) = forecast_saturation(found, **FEW)
    assert "piqa perplexity ends above its least value with a chance of" in found.sentence()
    assert " % (" in found.sentence().rpartition("falls by a further")[2]


def test_what_is_asked_wrongly_is_one_sentence(runs, tmp_path, capsys):
    for wrong in ({"until": float("nan")}, {"until": 0}, {"until": "143000"}, {"repetitions": 0}, {"seed": "a"}):
        with pytest.raises(LmsatError, match=f"{next(iter(wrong))}=.* is out of range"):
            forecast_saturation([], **wrong)
    several = pd.concat([results_of(falling(np.random.default_rng(4)), task=task, higher=False) for task in "ab"])
    several.to_csv(tmp_path / "several.csv", index=False)
    for words, message in {
        (runs, "--until", "5"): "add --forecast",
        (runs, "--forecast", "--until", "soon"): "--until soon is no place",
        (tmp_path / "several.csv", "--forecast"): "name one with --task T --metric M",
    }.items():
        assert main(["saturation", *map(str, words)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not PYTHIA_LOSSES.exists(), reason="needs the losses digitised from the paper")
def test_on_the_published_losses_forecasts_are_no_better_than_the_base_rate(capsys):
    assert main(["saturation", str(PYTHIA_LOSSES), "--forecast", "--until", "143000"]) == 0
    out = capsys.readouterr().out
    assert "In 15 hindcasts of 5 runs at hand, from 30, 50 and 70 % of training" in out
    assert "no better than the base rate" in out
    assert "pythia-1b: no forecast: 1 checkpoint cannot tell a curve" in out

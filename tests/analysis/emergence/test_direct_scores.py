"""Scores as a power law of compute: known laws, another fit, intervals, chance, and the published ladder."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from places import PUBLISHED

from lmsat_plugin.analysis import fit_direct, predict_scores
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import plot

LADDER = PUBLISHED / "olmo_ladder.csv"
PARAMETERS = {
    **{"190M": 190_354_176, "370M": 371_262_464, "760M": 758_220_288, "1B": 1_279_395_840},
    **{"7B": 6_887_575_552, "13B": 13_202_396_160},
}
"""As OLMo's ladder counts them, without the input embeddings (allenai/OLMo-ladder)."""
SIZES = np.geomspace(1e8, 3e9, 6)
A, ALPHA, CHANCE = 3e4, 0.22, 0.25


def one_ratio(noise: float = 0.0, seed: int = 0, ratio: float = 20.0) -> pd.DataFrame:
    """Return the last scores of six sizes and of a larger one, with −ln Q = A/C^alpha."""
    sizes = np.append(SIZES, 3e10)
    rng = np.random.default_rng(seed)
    flops = 6 * sizes * ratio * sizes
    deficit = A / flops**ALPHA * np.exp(noise * rng.standard_normal(len(sizes)))
    score = CHANCE + (1 - CHANCE) * np.exp(-deficit)
    names = [f"m{place}" for place in range(len(sizes))]
    table = pd.DataFrame({"model": names, "n_params": sizes, "tokens": ratio * sizes, "score": score, "step": 1000})
    return table.assign(task="quiz", metric="acc", chance=CHANCE)


def test_a_known_law_is_found():
    (one,) = fit_direct(one_ratio(), predict_models=["m6"], at=1e24, repetitions=0)
    (law,) = one.laws
    assert law.ratio == pytest.approx(20)
    assert law.fitted.params["alpha"].value == pytest.approx(ALPHA, rel=1e-6)
    assert law.fitted.params["A"].value == pytest.approx(A, rel=1e-4)
    larger, at = one.predictions
    assert larger.relative_error == pytest.approx(0, abs=1e-6)
    assert at.predicted == pytest.approx(CHANCE + (1 - CHANCE) * np.exp(-A / 1e24**ALPHA), abs=1e-6)
    assert one.two_step_reason is not None
    assert larger.two_step is None


def test_the_fit_beside_least_squares_of_the_double_logarithm():
    """Krajewski et al. 2025 fit ln(−ln Q) by least squares, which the least Huber loss comes close to."""
    table = one_ratio(noise=0.01, seed=1)
    (one,) = fit_direct(table, predict_models=["m6"], repetitions=0)
    small = table.iloc[:-1]
    flops, q = 6 * small.n_params * small.tokens, (small.score - CHANCE) / (1 - CHANCE)
    slope, _ = np.polyfit(np.log(flops), np.log(-np.log(q)), 1)
    assert one.laws[0].fitted.params["alpha"].value == pytest.approx(-slope, abs=0.01)


def test_intervals_hold_new_runs():
    inside = []
    for seed in range(6):
        (one,) = fit_direct(one_ratio(0.02, seed), predict_models=["m6"], repetitions=40)
        (score,) = one.predictions
        assert score.low <= score.mean_low < score.predicted < score.mean_high <= score.high
        inside.append(score.low <= score.observed <= score.high)
    assert 2 / 3 <= np.mean(inside) <= 1


def test_several_ratios_have_a_law_each_and_one_of_size_and_tokens():
    tables = []
    for ratio in (20.0, 100.0):
        table = one_ratio(ratio=ratio)
        deficit = 2000 / table.n_params**0.4 + 3e4 / table.tokens**0.45
        score = CHANCE + (1 - CHANCE) * np.exp(-deficit)
        tables.append(table.assign(model=table.model + f" {ratio:g}", score=score))
    target = tables[0].tail(1).assign(model="far", tokens=300 * 3e10)
    deficit = 2000 / target.n_params**0.4 + 3e4 / target.tokens**0.45
    target = target.assign(score=CHANCE + (1 - CHANCE) * np.exp(-deficit))
    (one,) = fit_direct(pd.concat([*tables, target]), predict_models=["far", "m6 100"], repetitions=0)
    assert [law.ratio for law in one.laws] == [pytest.approx(20), pytest.approx(100), None]
    scores = {score.model: score for score in one.predictions}
    assert scores["far"].formula == "-ln Q = A/N^alpha + B/D^beta"
    assert scores["far"].relative_error == pytest.approx(0, abs=1e-4)
    assert scores["m6 100"].formula == "-ln Q = A/C^alpha"
    # A law at one ratio says nothing of another.
    (alone,) = fit_direct(pd.concat([tables[0], target]), predict_models=["far"], repetitions=0)
    assert alone.predictions[0].predicted is None
    assert "it has 300 tokens for each parameter" in alone.predictions[0].reason


def test_scores_at_chance_are_left_out_and_named():
    table = one_ratio().assign(n_samples=1000)
    table.loc[0, "score"] = CHANCE + 0.02
    (one,) = fit_direct(table, repetitions=0)
    assert one.at_chance == ("m0",)
    assert one.laws[0].fitted.params["alpha"].value == pytest.approx(ALPHA, rel=1e-6)
    (none,) = fit_direct(table.assign(score=CHANCE), repetitions=0)
    assert (none.laws, none.reason) == ((), "no score is clearly above chance")
    (few,) = fit_direct(table.head(3), repetitions=0)
    assert "too few runs (2)" in few.reason
    json.dumps([one.to_dict(), none.to_dict(), few.to_dict()], allow_nan=False)


def test_compute_may_be_stated_alone_and_chance_be_unknown():
    table = one_ratio()
    table = table.assign(flops=6 * table.n_params * table.tokens).drop(columns=["n_params", "tokens", "chance"])
    (one,) = fit_direct(table, predict_models=["m6"], repetitions=0)
    assert one.chance is None
    assert one.laws[0].ratio is one.predictions[0].ratio is None
    assert one.predictions[0].predicted is not None


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda t: t.drop(columns="tokens"), {}, "the compute of the runs is unknown"),
        (lambda t: t.assign(metric="brier_score"), {}, "no score is a share"),
        (lambda t: t, {"predict_models": ["m9"]}, "no model or size is called 'm9'"),
        (lambda t: t, {"fit_models": ["m1"], "predict_models": ["m1"]}, "m1 is both fitted and predicted"),
        (lambda t: t, {"at": -1.0}, "at=-1.0 is out of range"),
        (lambda t: t, {"repetitions": -1}, "out of range"),
    ],
)
def test_bad_input_is_one_sentence(change, options, sentence):
    with pytest.raises(LmsatError, match=sentence) as caught:
        fit_direct(change(one_ratio()), **options)
    assert "\n" not in str(caught.value)


def test_the_command(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    one_ratio(noise=0.02).to_csv(path, index=False)
    options = ["--predict-model", "m6", "--at", "1e25", "--repetitions", "20"]
    assert main(["fit", "direct", str(path), *options, "--figure", str(tmp_path / "direct.png")]) == 0
    out = capsys.readouterr().out
    assert "Mean size of the relative error of m6" in out
    assert "No prediction in two steps: the table has no column 'loss'" in out
    assert (tmp_path / "direct.png").read_bytes().startswith(b"\x89PNG")
    assert main(["fit", "direct", str(path), *options, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [score["model"] for score in row["predictions"]] == ["m6", None]
    for arguments, sentence in (
        (["direct", str(path), "--robust"], "direct takes no --robust"),
        (["chinchilla", str(path), "--predict-model", "m6"], "--predict-model goes with lmsat fit direct"),
    ):
        assert main(["fit", *arguments]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.skipif(not LADDER.exists(), reason="the published ladder is not here")
def test_the_published_ladder():
    table = pd.read_csv(LADDER).drop(columns="loss")
    table = table[table.task.isin(["arc_challenge_test", "hellaswag_val"])].sort_values("step")
    table = table.groupby(["model", "task"]).tail(1)
    times = table.model.str.extract(r"-(\d+)xC")[0].astype(float)
    n_params = table["size"].map(PARAMETERS)
    tokens = (20 * n_params * times).fillna(table.model.map({"7B": 4e12, "7B-anneal": 4.05e12, "13B": 5e12}))
    found = fit_direct(
        table.assign(n_params=n_params, tokens=tokens), ["190M", "370M", "760M", "1B"], ["13B"], repetitions=0
    )
    assert [one.predictions[0].relative_error for one in found] == pytest.approx([-0.030, 0.061], abs=0.002)
    assert "190M-1xC" in found[0].at_chance


def test_the_two_steps_beside_it_are_those_of_the_other_command():
    table = one_ratio(0.01)
    rows = [table.assign(step=step, score=table.score * (0.7 + 0.3 * step / 8)) for step in range(1, 9)]
    table = pd.concat(rows).assign(loss=lambda own: 3 - 2 * own.score)
    small = [f"m{place}" for place in range(6)]
    (one,) = fit_direct(table, small, ["m6"], repetitions=0)
    (two,) = predict_scores(table, small, ["m6"], repetitions=0)
    beside = one.predictions[0].two_step
    assert beside.predicted == two.predicted
    assert beside.chained.predicted == two.chained.predicted
    assert one.predictions[0].to_dict()["two_step"].keys() >= {"predicted", "relative_error", "chained"}


def test_the_figure_has_a_panel_for_each_benchmark():
    tables = [one_ratio(), one_ratio(noise=0.01).assign(task="riddle")]
    figure = plot(fit_direct(pd.concat(tables), predict_models=["m6"], repetitions=20))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["quiz, acc", "riddle, acc"]

"""Scores predicted in two steps: against published predictions, another solver, and curves that are known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from places import PUBLISHED
from scipy.optimize import curve_fit, least_squares

from lmsat_plugin.analysis import predict_scores
from lmsat_plugin.analysis.emergence.sigmoid import fit_sigmoid
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError

LADDER = PUBLISHED / "olmo_ladder.csv"
SIZES = {"100M": 1e8, "200M": 2e8, "400M": 4e8, "800M": 8e8, "8B": 8e9}


def curve(loss):
    return 0.25 + 0.75 / (1 + np.exp(6 * (loss - 0.7)))


def ladder(noise=0.01, seed=0, tokens=True) -> pd.DataFrame:
    """Return runs of five sizes, of which the smaller are at two lengths; the loss is a law of size and tokens."""
    rng, rows = np.random.default_rng(seed), []
    for size, n in SIZES.items():
        for ratio in (20, 100):
            d = ratio * n * np.linspace(0.2, 1, 12)
            loss = 0.4 + 60 / n**0.28 + 80 / d**0.28
            rows.append(
                pd.DataFrame(
                    {"model": f"{size}-{ratio}", "size": size, "step": np.arange(1, 13), "loss": loss, "n_params": n}
                ).assign(tokens=d, task="quiz", metric="acc", score=curve(loss) + noise * rng.standard_normal(12))
            )
    table = pd.concat(rows, ignore_index=True).assign(chance=0.25)
    return table if tokens else table.drop(columns=["tokens"])


SMALL = ["100M", "200M", "400M", "800M"]


@pytest.mark.skipif(not LADDER.exists(), reason="the published ladder is not here")
def test_the_published_ladder(capsys):
    fitted = "190M,370M,760M,1B"
    assert (
        main(["emergence", str(LADDER), "--two-step", "--fit-models", fitted, "--predict-model", "13B", "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert len(rows) == 4
    assert np.mean([abs(row["relative_error"]) for row in rows]) <= 0.049
    assert all(row["low"] <= row["mean_low"] < row["predicted"] < row["mean_high"] <= row["high"] for row in rows)
    published = {"arc_challenge_test": 0.6030, "hellaswag_val": 0.8416, "csqa_val": 0.7173, "openbookqa_test": 0.4572}
    for row in rows:
        assert row["predicted"] == pytest.approx(published[row["task"]], abs=0.02)


def test_the_least_squares_are_those_of_another_solver():
    rng = np.random.default_rng(3)
    losses = np.sort(rng.uniform(0.8, 1.6, 80))
    scores = curve(losses) + rng.normal(0, 0.01, 80)
    counts = rng.multinomial(80, np.full(80, 1 / 80), 5).astype(float)
    found = fit_sigmoid(losses, scores, ideal=1.0, counts_RP=counts)

    def other(weights):
        def residuals(p):
            return np.sqrt(weights) * (p[0] + (p[1] - p[0]) / (1 + np.exp(p[3] * (x - p[2]))) - y)

        x, y = np.append(losses, 0), np.append(scores, 1.0)
        starts = ([0.2, 0.9, middle, rate] for middle in (0.4, 0.8, 1.2) for rate in (3, 8))
        bounds = ([0, 0, 0, 0], [1, 1, np.inf, np.inf])
        return min((least_squares(residuals, start, bounds=bounds) for start in starts), key=lambda fit: fit.cost).x

    np.testing.assert_allclose(found.best.score(losses), _at(other(np.ones(81)), losses), atol=1e-4)
    for sample, count in zip(found.samples_R4, counts, strict=True):
        np.testing.assert_allclose(_at(sample, losses), _at(other(np.append(count, 1)), losses), atol=5e-4)


def _at(p, losses):
    return p[0] + (p[1] - p[0]) / (1 + np.exp(p[3] * (losses - p[2])))


def test_a_known_curve_and_both_steps():
    found = predict_scores(ladder(), SMALL, ["8B"])
    assert [one.model for one in found] == ["8B-100", "8B-20"]
    for one in found:
        assert one.predicted == pytest.approx(curve(one.loss), abs=0.02)
        assert one.low < one.observed < one.high
        assert one.chained.loss == pytest.approx(one.loss, rel=0.001)
        assert one.chained.predicted == pytest.approx(one.predicted, abs=0.005)
        assert one.chained.low < one.observed < one.chained.high
        assert (one.n_runs, one.n_points) == (8, 8 * 10)
    (without,) = predict_scores(ladder(tokens=False), SMALL, ["8B-20"])
    assert without.chained is None
    assert without.predicted == found[1].predicted


def test_intervals_hold_new_scores():
    inside = [
        one.low <= one.observed <= one.high
        for seed in range(20)
        for one in predict_scores(ladder(0.02, seed, tokens=False), SMALL, ["8B-20"], repetitions=100)
    ]
    assert 0.8 <= np.mean(inside) <= 1.0


def test_what_the_data_do_not_say_is_null():
    flat = ladder().assign(score=0.25)
    noisy = ladder().assign(score=0.25 + np.random.default_rng(0).normal(0, 0.01, 120))
    for table, reason in ((flat, "do not change"), (noisy, "show no rise")):
        (one,) = predict_scores(table, SMALL, ["8B-20"])
        assert reason in one.reason
        assert one.predicted is one.low is one.high is one.relative_error is one.chained is None
    (few,) = predict_scores(ladder(), ["100M", "200M", "400M"], ["8B-20"])
    assert "intervals need 7 runs, here are 6" in few.reason
    assert few.predicted is not None
    assert few.low is few.high is few.mean_low is None


@pytest.mark.parametrize(
    ("fitted", "targets", "sentence"),
    [(SMALL, ["9B"], "no model or size is called '9B'"), (SMALL, ["800M-20"], "800M-20 is both fitted and predicted")],
)
def test_wrong_names(fitted, targets, sentence):
    with pytest.raises(LmsatError, match=sentence):
        predict_scores(ladder(), fitted, targets)


def test_the_command_wants_models(tmp_path, capsys):
    ladder().to_csv(tmp_path / "ladder.csv", index=False)
    for arguments, sentence in ((["--two-step"], "--fit-models NAME"), (["--fit-models", "100M"], "--two-step")):
        assert main(["emergence", str(tmp_path / "ladder.csv"), *arguments]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    names = ["--two-step", "--fit-models", ",".join(SMALL), "--predict-model", "8B"]
    assert main(["emergence", str(tmp_path / "ladder.csv"), *names, "--figure", str(tmp_path / "two.png")]) == 0
    assert "from size and tokens" in capsys.readouterr().out
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_beside_an_ordinary_fit():
    table = ladder(0.0)
    (one,) = predict_scores(table, SMALL, ["8B-20"])
    small = table[table["size"].isin(SMALL)]
    theirs, _ = curve_fit(lambda x, *p: _at(p, x), [*small.loss, 0], [*small.score, 1], p0=[0.2, 0.95, 0.8, 5])
    assert one.predicted == pytest.approx(_at(theirs, one.loss), abs=0.002)
